"""The figures of one layer: intrinsic dimensions, ranks, turning and lens entropy, with half-sample intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from geonb.errors import InputError
from geonb.geometry.intrinsic_dimension import Neighbours, gride, mle_of, nearest_neighbours, two_nn_of
from geonb.geometry.jackknife import half_sample_interval, half_samples
from geonb.geometry.point_cloud import covariance_spectrum, geodesic_distortion, row_angles

OPERATORS = {
    "two_nn": "TwoNN, (n - 1) / sum ln(r2 / r1) (Facco et al. 2017)",
    "mle": "Levina-Bickel with averaged inverses",
    "participation_ratio": "(sum l)^2 / sum l^2, l the eigenvalues of the covariance",
    "effective_rank": "exp(-sum p ln p), p = l / sum l of the covariance",
    "mean_norm": "mean Euclidean norm of a row",
    "mean_cosine": "mean cosine of two different rows, not centred",
    "turning_angle": "mean angle of a row before and after the block",
    "turning_attention": "mean angle of a row before and after the block's mixer",
    "turning_mlp": "mean angle of a row before and after the block's feed-forward map",
    "attention_share": "turning_attention / (turning_attention + turning_mlp)",
    "lens_entropy": "mean entropy of softmax(head(norm(h))), rows never normalised",
}
UNITS = {
    **dict.fromkeys(("two_nn", "mle", "participation_ratio", "effective_rank"), "dimensions"),
    **{f"gride_{first}": "dimensions" for first in range(1, 4097)},
    **dict.fromkeys(("turning_angle", "turning_attention", "turning_mlp"), "rad"),
    "mean_norm": "activation units",
    "lens_entropy": "nats",
}
_SLACK = 24  # neighbours more than twice the largest scale, so that a half can be left out
Figure = tuple[float, tuple[float, float] | None]


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured, and how its rows are halved."""

    scales: tuple[int, ...]
    neighbours: int
    distortion: tuple[int, ...]
    halves: int
    seed: int


@dataclass(frozen=True, slots=True)
class Clouds:
    """Matrices (n, d) of one run by (state, layer), and the text of each row."""

    source: str
    pool: str
    layers: tuple[int, ...]
    states: dict[tuple[str, int], np.ndarray]
    texts: np.ndarray

    @property
    def n(self) -> int:
        return len(self.texts)

    @property
    def width(self) -> int:
        return next(iter(self.states.values())).shape[1]

    def checked(self) -> Self:
        """Itself; raises `InputError` for unequal numbers of rows, fewer than 8, and values that are not finite."""
        for (state, layer), one in self.states.items():
            if len(one) != self.n or self.n < 8 or not np.isfinite(one).all():
                raise InputError(
                    f"{state} {layer} is a matrix of {one.shape}; allowed are finite numbers in equally many rows at every "
                    "layer, 8 or more: give more texts."
                )
        return self

    def mapped(self, change: Callable[[np.ndarray], np.ndarray]) -> Clouds:
        return Clouds(
            self.source, self.pool, self.layers, {place: change(one) for place, one in self.states.items()}, self.texts
        )

    def taken(self, rows: np.ndarray) -> Clouds:
        found = {place: one[rows] for place, one in self.states.items()}
        return Clouds(self.source, self.pool, self.layers, found, self.texts[rows])

    def outliers(self, ratio: float) -> np.ndarray:
        """The dimensions whose root mean square over rows is above `ratio` times the median dimension's, at any place."""
        if len({one.shape[1] for one in self.states.values()}) > 1:
            raise InputError("outlier dimensions were asked of layers of unequal width: give layers of one width.")
        found = np.zeros(self.width, dtype=bool)
        for one in self.states.values():
            size = np.sqrt((one**2).mean(0))
            found |= size > ratio * np.median(size)
        if found.all():
            raise InputError("every dimension is an outlier at some layer: give a larger outlier_ratio.")
        return np.flatnonzero(found)

    def normalised(self, how: str, dropped: Any) -> Clouds:
        """The rows as `how` has them; `dropped` are the dimensions that "drop-outliers" leaves out."""
        if how == "drop-outliers":
            return self.mapped(lambda one: np.delete(one, dropped, axis=1))
        if how == "rms":
            return self.mapped(_unit_rms)
        return self

    def halves(self, options: Options) -> list[np.ndarray]:
        """The rows that each half sample leaves out; the rows of one text stay together."""
        names, index = np.unique(self.texts, return_inverse=True)
        if len(names) < 4:  # nearly one text: its tokens are all there is
            return half_samples(self.n, count=options.halves, seed=options.seed)
        dealt = half_samples(len(names), count=options.halves, seed=options.seed)
        return [np.flatnonzero(np.isin(index, part)) for part in dealt]


def _unit_rms(rows: np.ndarray) -> np.ndarray:
    size = np.sqrt((rows**2).mean(1, keepdims=True))
    return rows / np.where(size > 0, size, 1.0)


def figures_of(
    raw: Clouds, given: Clouds, layer: int, options: Options, lens: Any, *, intervals: bool
) -> dict[str, Figure]:
    """Every figure of one layer of `given`; the lens reads `raw`, the rows as the model has them."""
    parts = given.halves(options) if intervals else []
    found = _dimensions(given.states["out", layer], parts, options)
    found |= _turning(given, layer, parts)
    if lens is not None:
        found["lens_entropy"] = _mean(lens.entropy(raw.states["out", layer]), parts)
    return found


def _dimensions(cloud: np.ndarray, parts: list[np.ndarray], options: Options) -> dict[str, Figure]:
    n = len(cloud)
    widest = max([options.neighbours, *(2 * first for first in options.scales)])
    table = nearest_neighbours(cloud, min(n - 1, 2 * widest + _SLACK))
    tables = [table.without(part) for part in parts]
    estimators: dict[str, Callable[[Neighbours], float]] = {
        "two_nn": two_nn_of,
        "mle": lambda one: mle_of(one, neighbours=min(options.neighbours, n - 1)),
    }
    # a scale that reaches a third of the cloud sees its edge, not its dimension
    for first in (one for one in options.scales if 2 * one <= n // 3):
        estimators[f"gride_{first}"] = lambda one, first=first: gride(one, first=first).dimension
    found: dict[str, Figure] = {}
    for name, estimate in estimators.items():
        value = estimate(table)
        found[name] = value, _interval(value, [estimate(one) for one in tables])
    found |= _clouds_figures(cloud, parts, options)
    return found


def _clouds_figures(cloud: np.ndarray, parts: list[np.ndarray], options: Options) -> dict[str, Figure]:
    kept = [np.delete(cloud, part, axis=0) for part in parts]
    whole, rest = covariance_spectrum(cloud), [covariance_spectrum(one) for one in kept]
    found = {
        name: (value := getattr(whole, name), _interval(value, [getattr(one, name) for one in rest]))
        for name in ("participation_ratio", "effective_rank")
    }
    found["mean_norm"] = _mean(np.linalg.norm(cloud, axis=1), parts)
    found["mean_cosine"] = (value := _mean_cosine(cloud)), _interval(value, [_mean_cosine(one) for one in kept])
    for k in options.distortion:
        value = geodesic_distortion(cloud, neighbours=k)[0]
        found[f"distortion_{k}"] = value, _interval(value, [geodesic_distortion(one, neighbours=k)[0] for one in kept])
    return found


def _mean_cosine(cloud: np.ndarray) -> float:
    size = np.linalg.norm(cloud, axis=1, keepdims=True)
    unit = cloud[size[:, 0] > 0] / size[size[:, 0] > 0]
    count = len(unit)
    return float((unit.sum(0) ** 2).sum() - count) / (count * (count - 1)) if count > 1 else math.nan


def _turning(given: Clouds, layer: int, parts: list[np.ndarray]) -> dict[str, Figure]:
    before, after = given.states.get(("out", layer - 1)), given.states["out", layer]
    if before is None or before.shape != after.shape:
        return {}
    found = {"turning_angle": _mean(row_angles(before, after), parts)}
    middle = given.states.get(("mid", layer))
    if middle is not None:
        first, second = row_angles(before, middle), row_angles(middle, after)
        found["turning_attention"], found["turning_mlp"] = _mean(first, parts), _mean(second, parts)
        value = _share(first, second)
        left_out = [_share(np.delete(first, part), np.delete(second, part)) for part in parts]
        found["attention_share"] = value, _interval(value, left_out)
    return found


def _share(first: np.ndarray, second: np.ndarray) -> float:
    one, other = float(np.nanmean(first)), float(np.nanmean(second))
    return one / (one + other) if one + other > 0 else math.nan


def _mean(values: np.ndarray, parts: list[np.ndarray]) -> Figure:
    usable = np.isfinite(values)
    if not usable.any():
        return math.nan, None
    value = float(values[usable].mean())
    kept = [np.delete(values, part) for part in parts]
    return value, _interval(value, [float(np.nanmean(one)) if np.isfinite(one).any() else math.nan for one in kept])


def _interval(value: float, left_out: list[float]) -> tuple[float, float] | None:
    return half_sample_interval(value, left_out) if left_out else None
