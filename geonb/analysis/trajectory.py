"""The path of one prompt's tokens through activation space, beside a random walk of equal steps and the shuffled path."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from geonb.analysis.measured import Measured, assemble, check_draws, spread_of
from geonb.errors import InputError
from geonb.geometry.intrinsic_dimension import nearest_neighbours, two_nn_of
from geonb.geometry.jackknife import half_sample_interval, half_samples, jackknife_interval
from geonb.geometry.point_cloud import gaussian_twin, row_angles

_OPERATORS = {
    "arc_length": "sum of ||p_(t+1) - p_t||",
    "velocity": "mean ||p_(t+1) - p_t||",
    "turning_angle": "mean angle of successive steps",
    "curvature": "mean Menger curvature 4 A / (a b c) times the mean step",
    "directness": "||p_T - p_1|| / arc length",
    "two_nn": "TwoNN over the tokens (Facco et al. 2017)",
    "expansion_ratio": "largest TwoNN over layers / TwoNN of the last layer",
}
Figure = tuple[float, tuple[float, float] | None]
_RUNS = 20  # of successive places that the jackknife leaves out, one at a time
_UNITS = {
    "arc_length": "activation units",
    "velocity": "activation units",
    "turning_angle": "rad",
    "two_nn": "dimensions",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTrajectory(Measured):
    """The figures of one path; their null is the random walk, and `shuffled` holds those of the tokens in random order."""

    tokens: int
    layer: int  # index into the layers that were given; 0 for one path
    shuffled: dict[str, tuple[float, ...]]
    dimensions: tuple[float, ...]  # TwoNN of every layer

    def shuffled_interval(self, name: str) -> tuple[float, float] | None:
        """Mean -+ 2 standard deviations of the shuffled paths; None where order does not enter the figure."""
        self[name]
        return spread_of(self.shuffled.get(name, ()))


def token_trajectory(
    P: Any, *, layer: int = -1, draws: int = 20, halves: int = 40, seed: int = 0, name: str = "one prompt"
) -> TokenTrajectory:
    """Arc length, velocity, turning angle, curvature x step, directness and TwoNN of a path P: (tokens, d).

    P may be (layers, tokens, d), as `Activations.trajectory` gives it: the figures are then those of `layer`, and
    `expansion_ratio` is over all. Curvature is multiplied by the mean step, so that it has no unit and does not shrink as
    norms grow. The null of a path's figures is a walk from the first token with steps of equal lengths in uniformly random
    directions; that of `expansion_ratio` are Gaussian clouds with the mean and covariance of each layer. Intervals are
    jackknifes over runs of successive steps, and over half of the tokens for TwoNN; a sum and a chord of one path have none.
    Raises `InputError` for fewer than 5 tokens and for a path that does not move.

    >>> circle = np.array([[np.cos(t), np.sin(t)] for t in np.linspace(0, np.pi, 30)])
    >>> found = token_trajectory(circle, draws=5)
    >>> round(found["arc_length"].value, 2), round(found["directness"].value, 2)
    (3.14, 0.64)
    """
    check_draws(draws)
    layers = _layers(P)
    count = len(layers)
    if not -count <= layer < count:
        raise InputError(f"layer {layer} was given; allowed are {-count} to {count - 1}.")
    layer %= count
    path = layers[layer]
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    if not steps.any():
        raise InputError("the path does not move: every token lies at one point, so check how it was collected.")
    values = _figures(path)
    figures: dict[str, Figure] = {
        one: (value, None) for one, value in values.items() if one in ("arc_length", "directness")
    }
    for one, local in _local(path).items():
        figures[one] = values[one], _run_interval(local)
    figures["two_nn"], dimensions, expansion = _dimensions(layers, layer, halves, seed)
    if count > 1:
        figures["expansion_ratio"] = expansion
    nulls: dict[str, list[float]] = {one: [] for one in figures if one not in ("arc_length", "velocity")}
    shuffled: dict[str, list[float]] = {one: [] for one in figures if one not in ("two_nn", "expansion_ratio")}
    for draw in range(draws):
        rng = np.random.default_rng((seed, draw))
        walk = _walk(path[0], steps, rng)
        for one, value in {**_figures(walk), "two_nn": _two_nn(walk)}.items():
            if one in nulls:
                nulls[one].append(value)
        if count > 1:
            mixing = rng.standard_normal((len(path),) * 2)
            nulls["expansion_ratio"].append(_expansion([_two_nn(gaussian_twin(each, mixing)) for each in layers]))
        for one, value in _figures(path[rng.permutation(len(path))]).items():
            shuffled[one].append(value)
    said = f"float64, seed {seed}; null: mean of {draws} random walks of equal step lengths"
    ratio = f"{_OPERATORS['expansion_ratio']}, whose null is {draws} Gaussian clouds in place of walks"
    measured, kept = assemble(
        figures, nulls, n=len(path), units=_UNITS, operators={**_OPERATORS, "expansion_ratio": ratio}, said=said
    )
    return TokenTrajectory(
        subject=name,
        measured=measured,
        nulls=kept,
        tokens=len(path),
        layer=layer,
        shuffled={one: tuple(found) for one, found in shuffled.items()},
        dimensions=tuple(dimensions),
    )


def _layers(given: Any) -> np.ndarray:
    given = given.detach().cpu().double().numpy() if hasattr(given, "detach") else given
    try:
        found = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("the path is no array of numbers; allowed are (tokens, d) and (layers, tokens, d).") from None
    found = found[None] if found.ndim == 2 else found
    if found.ndim != 3 or found.shape[1] < 5 or found.shape[0] < 1 or not np.isfinite(found).all():
        raise InputError(
            f"a path of shape {np.shape(given)} was given; allowed are finite numbers (tokens, d) or (layers, tokens, d) with "
            "5 or more tokens: give a longer prompt."
        )
    return found


def _local(path: np.ndarray) -> dict[str, np.ndarray]:
    """The figures that are means over the path, place by place."""
    steps = np.diff(path, axis=0)
    size = np.linalg.norm(steps, axis=1)
    return {
        "velocity": size,
        "turning_angle": row_angles(steps[:-1], steps[1:]),
        "curvature": _menger(path) * size.mean(),
    }


def _menger(path: np.ndarray) -> np.ndarray:
    """4 Area / (a b c) of successive triples: 2 sin(angle at the middle) / opposite side; nan where two points coincide."""
    before, after, across = path[1:-1] - path[:-2], path[2:] - path[1:-1], path[2:] - path[:-2]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = 2 * np.sin(row_angles(before, after)) / np.linalg.norm(across, axis=1)
    return np.where(np.isfinite(found), found, np.nan)


def _figures(path: np.ndarray) -> dict[str, float]:
    found = {
        one: float(np.nanmean(values)) if np.isfinite(values).any() else math.nan
        for one, values in _local(path).items()
    }
    length = float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())
    return {
        "arc_length": length,
        **found,
        "directness": float(np.linalg.norm(path[-1] - path[0])) / length if length > 0 else math.nan,
    }


def _run_interval(values: np.ndarray) -> tuple[float, float]:
    """A jackknife that leaves out runs of neighbouring places, which depend on each other."""
    usable = values[np.isfinite(values)]
    if len(usable) < 4:
        return math.nan, math.nan
    runs = np.array_split(np.arange(len(usable)), min(_RUNS, len(usable) // 2))
    return jackknife_interval(float(usable.mean()), [float(np.delete(usable, run).mean()) for run in runs])


def _two_nn(cloud: np.ndarray) -> float:
    return two_nn_of(nearest_neighbours(cloud, 2))


def _expansion(dimensions: list[float]) -> float:
    last = dimensions[-1]
    return float(np.nanmax(dimensions)) / last if math.isfinite(last) and last > 0 else math.nan


def _dimensions(layers: np.ndarray, layer: int, halves: int, seed: int) -> tuple[Figure, list[float], Figure]:
    tokens = layers.shape[1]
    tables = [nearest_neighbours(one, min(tokens - 1, 2 + 24)) for one in layers]
    dimensions = [two_nn_of(one) for one in tables]
    left_out = [
        [two_nn_of(one.without(part)) for one in tables] for part in half_samples(tokens, count=halves, seed=seed)
    ]
    own = dimensions[layer], half_sample_interval(dimensions[layer], [one[layer] for one in left_out])
    ratio = _expansion(dimensions)
    return own, dimensions, (ratio, half_sample_interval(ratio, [_expansion(one) for one in left_out]))


def _walk(start: np.ndarray, steps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    ways = rng.standard_normal((len(steps), len(start)))
    ways *= (steps / np.linalg.norm(ways, axis=1))[:, None]
    return np.concatenate([start[None], start + np.cumsum(ways, axis=0)])
