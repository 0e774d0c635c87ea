"""The dimension of word representations by depth, under the published protocol and under changes that should not matter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from geonb.errors import InputError
from geonb.geometry.dimension import mle_dimension, two_nn
from geonb.geometry.intrinsic_dimension import gride
from geonb.geometry.measurement import Measurement

ESTIMATORS: dict[str, Callable[[np.ndarray], float]] = {
    "TwoNN": two_nn,
    "GRIDE": lambda points: gride(points, first=2).dimension,
    "MLE": mle_dimension,
}
NORMS = ("raw", "rms", "without outlier dimensions")
OUTLIERS = 3  # dimensions of the largest variance


def five_depths(count: int) -> list[int]:
    """Of `count` depths all where there are at most five, else the first, a quarter, a half, three quarters and the last.

    >>> five_depths(31)
    [0, 8, 15, 22, 30]
    """
    return sorted({round(part * (count - 1) / 4) for part in range(5)})


def normed(vectors: np.ndarray, norm: str) -> np.ndarray:
    """The rows (n, d) as they are, each over its root mean square, or without the `OUTLIERS` widest dimensions.

    Raises `InputError` for another name.
    """
    if norm not in NORMS:
        raise InputError(f"the norm {norm!r} was given; allowed are {', '.join(NORMS)}.")
    if norm == "rms":
        return vectors / np.sqrt((vectors**2).mean(1, keepdims=True))
    if norm == "without outlier dimensions":
        return np.delete(vectors, np.argsort(vectors.var(0))[-OUTLIERS:], axis=1)
    return vectors


def drawn(vectors: np.ndarray, *, size: int, draws: int, seed: int = 0, estimator: str = "TwoNN", norm: str = "raw"):
    """The dimension of `draws` random subsets of `size` rows at each depth of (depths, n, d): (depths, draws).

    Raises `InputError` for an unknown estimator and for more rows than there are.
    """
    if estimator not in ESTIMATORS:
        raise InputError(f"the estimator {estimator!r} was given; allowed are {', '.join(ESTIMATORS)}.")
    if size > vectors.shape[1]:
        raise InputError(f"{size} rows were asked of {vectors.shape[1]}; allowed is at most that many.")
    rng = np.random.default_rng(seed)
    subsets = [rng.permutation(vectors.shape[1])[:size] for _ in range(draws)]
    # the widest dimensions are those of all words, not of the few of one draw
    prepared = [normed(one, norm) for one in vectors]
    return np.array([[ESTIMATORS[estimator](one[rows]) for rows in subsets] for one in prepared])


@dataclass(frozen=True, slots=True)
class Profile:
    """The dimension by depth: draws (depths, draws), and the two ratios that make a highway of it."""

    draws: np.ndarray
    fall: Measurement  # smallest inner over first
    rise: Measurement  # smallest inner over last

    @property
    def means(self) -> np.ndarray:
        """The mean over draws at each depth."""
        return self.draws.mean(1)

    @property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """The 2.5 % and 97.5 % quantiles of the draws at each depth."""
        low, high = np.percentile(self.draws, [2.5, 97.5], axis=1)
        return low, high


def profile(draws: np.ndarray, *, resamples: int = 2000, seed: int = 0) -> Profile:
    """The ratios of means with the smallest inner depth found anew in each resample of the draws."""

    def ratios(table: np.ndarray) -> tuple[float, float]:
        means = table.mean(1)
        inner = means[1:-1].min()
        return inner / means[0], inner / means[-1]

    rng = np.random.default_rng(seed)
    found = np.array(
        [ratios(draws[:, rng.integers(draws.shape[1], size=draws.shape[1])]) for _ in range(resamples)]
    )  # fmt: skip
    measured = [
        Measurement(
            value=float(value),
            interval=(float(low), float(high)),
            n=draws.shape[1],
            null=1.0,
            unit="",
            operator=f"smallest inner mean TwoNN over that of the {name} depth, bootstrap over draws of words",
        )
        for name, value, (low, high) in zip(
            ("first", "last"), ratios(draws), np.percentile(found, [2.5, 97.5], axis=0).T, strict=True
        )
    ]
    return Profile(draws, *measured)


def ratio(
    above: Sequence[float], below: Sequence[float], *, operator: str, resamples: int = 2000, seed: int = 0
) -> Measurement:
    """mean(above) / mean(below), with a bootstrap of both samples on their own.

    >>> ratio([2.0, 2.0], [1.0, 1.0], operator="").value
    2.0
    """
    first, second = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    rng = np.random.default_rng(seed)
    found = (
        rng.choice(first, (resamples, len(first))).mean(1) / rng.choice(second, (resamples, len(second))).mean(1)
    )  # fmt: skip
    low, high = np.percentile(found, [2.5, 97.5])
    return Measurement(
        value=float(first.mean() / second.mean()),
        interval=(float(low), float(high)),
        n=len(first),
        null=1.0,
        unit="",
        operator=operator,
    )


def ray(n: int, *, seed: int, width: int = 576, length: float = 1000.0, spread: float = 20.0, noise: float = 0.05):
    """Points (n, width) along one direction, as a massive activation makes them: effective rank one, and thin noise."""
    rng = np.random.default_rng(seed)
    points = rng.normal(0, noise, (n, width))
    points[:, 0] += rng.normal(length, spread, n)
    return points


def flat(n: int, *, seed: int, dimension: int = 5, width: int = 576):
    """Points (n, width) of a cube of `dimension` dimensions, turned into `width`."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((width, dimension)))[0]
    return rng.random((n, dimension)) @ turn.T
