"""Point clouds of known dimension, to hold an estimator against."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from geonb.errors import InputError


def _segment(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.random((n, 1))


def _swiss_roll(rng: np.random.Generator, n: int) -> np.ndarray:
    # arc length, not angle, is uniform: equal density everywhere
    angle = np.sqrt(rng.uniform((1.5 * np.pi) ** 2, (4.5 * np.pi) ** 2, n))
    return np.stack([angle * np.cos(angle), angle * np.sin(angle), rng.uniform(0, 21, n)], axis=1)


def _sphere(rng: np.random.Generator, n: int) -> np.ndarray:
    points = rng.standard_normal((n, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def _cube(dimension: int) -> Callable[[np.random.Generator, int], np.ndarray]:
    return lambda rng, n: rng.random((n, dimension))


# name -> (dimension, how to draw n points)
MANIFOLDS: dict[str, tuple[int, Callable[[np.random.Generator, int], np.ndarray]]] = {
    "segment": (1, _segment),
    "Swiss roll": (2, _swiss_roll),
    "sphere": (2, _sphere),
    "cube of 5": (5, _cube(5)),
    "cube of 20": (20, _cube(20)),
}


def points_on(name: str, n: int, *, seed: int, width: int = 64, noise: float = 0.0) -> np.ndarray:
    """`n` points (n, width) of a manifold of `MANIFOLDS`, turned into `width` dimensions by a random isometry.

    `noise`: standard deviation of a Gaussian in every dimension. Raises `InputError` for an unknown name.
    """
    if name not in MANIFOLDS:
        raise InputError(f"the manifold {name!r} was given; allowed are {', '.join(MANIFOLDS)}.")
    rng = np.random.default_rng(seed)
    points = MANIFOLDS[name][1](rng, n)
    turn = np.linalg.qr(rng.standard_normal((width, points.shape[1])))[0]
    return points @ turn.T + noise * rng.standard_normal((n, width))
