"""Intrinsic dimension from tables of nearest distances: GRIDE over scales, TwoNN and MLE with rows left out.

A table of neighbours is made once, and every estimate with a group of rows left out is read from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geonb.errors import InputError

_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The k nearest others of each of n points: ascending distances (n, k) and their row numbers (n, k)."""

    distances: np.ndarray
    rows: np.ndarray

    def without(self, left_out: np.ndarray) -> Neighbours:
        """The table without the rows numbered `left_out`; where too few neighbours are known the distance is infinite."""
        gone = np.zeros(len(self.rows), dtype=bool)
        gone[left_out] = True
        distances = np.where(gone[self.rows], np.inf, self.distances)[~gone]
        order = np.argsort(distances, axis=1, kind="stable")
        return Neighbours(
            np.take_along_axis(distances, order, axis=1), np.take_along_axis(self.rows[~gone], order, axis=1)
        )


def nearest_neighbours(points, k: int) -> Neighbours:
    """The table of `points` (n, d), n >= 4, with min(k, n - 1) neighbours; distances are exact differences of rows.

    Raises `InputError` for fewer than four points, for k < 2 and for values that are not finite.
    """
    cloud = np.asarray(points, dtype=np.float64)
    if cloud.ndim != 2 or len(cloud) < 4 or k < 2:
        raise InputError(
            f"{k} neighbours were asked of a cloud of shape {cloud.shape}; at least 2 of at least 4 points (rows) are needed."
        )
    if not np.isfinite(cloud).all():
        raise InputError(f"a cloud of shape {cloud.shape} holds NaN or infinity: check how it was collected.")
    # a large common mean would eat the digits of the expanded square
    centred = cloud - cloud.mean(0)
    k = min(k, len(cloud) - 1)
    distances, rows = np.empty((len(cloud), k)), np.empty((len(cloud), k), dtype=np.int64)
    squares = (centred**2).sum(1)
    block = max(1, 4_000_000 // len(cloud))
    for start in range(0, len(cloud), block):
        stop = min(start + block, len(cloud))
        found = squares[start:stop, None] + squares - 2 * centred[start:stop] @ centred.T
        found[np.arange(stop - start), np.arange(start, stop)] = np.inf
        # the expanded square only proposes candidates; a few more than k, because its round-off can swap near ties
        wide = min(k + 4, len(cloud) - 1)
        chosen = np.argpartition(found, wide - 1, axis=1)[:, :wide]
        for row in range(start, stop):
            near = chosen[row - start]
            exact = np.sqrt(((centred[near] - centred[row]) ** 2).sum(1))
            order = np.argsort(exact, kind="stable")[:k]
            distances[row], rows[row] = exact[order], near[order]
    return Neighbours(distances, rows)


def _ratios(table: Neighbours, first: int, second: int) -> np.ndarray:
    """ln(r_second / r_first) of the points for which both are known and r_first > 0."""
    if not 1 <= first < second <= table.distances.shape[1]:
        raise InputError(
            f"the neighbours {first} and {second} were asked of a table of {table.distances.shape[1]}; allowed are "
            "1 <= first < second <= that number."
        )
    near, far = table.distances[:, first - 1], table.distances[:, second - 1]
    usable = (near > 0) & np.isfinite(far)
    return np.log(far[usable] / near[usable])


def two_nn_of(table: Neighbours) -> float:
    """TwoNN, (n - 1) / sum ln(r2 / r1) (Facco et al. 2017), as `two_nn`, from a table of neighbours."""
    logs = _ratios(table, 1, 2)
    total = float(logs.sum())
    return (len(logs) - 1) / total if total > 0 else float("nan")


def mle_of(table: Neighbours, *, neighbours: int = 10) -> float:
    """Levina-Bickel with MacKay & Ghahramani's average of inverses, as `mle_dimension`, from a table of neighbours."""
    near = table.distances[:, : min(neighbours, table.distances.shape[1])]
    near = near[(near[:, 0] > 0) & np.isfinite(near[:, -1])]
    if near.shape[1] < 3 or len(near) == 0:
        return float("nan")
    inverse = np.log(near[:, -1:] / near[:, :-1]).sum(1).mean() / (near.shape[1] - 2)
    return float(1.0 / inverse) if inverse > 0 else float("nan")


@dataclass(frozen=True, slots=True)
class Gride:
    """A GRIDE estimate: dimension, its interval from the likelihood's curvature, the ratios used and the scale.

    The interval takes the ratios as independent, which overlapping neighbourhoods are not: at larger scales it is narrow.
    """

    dimension: float
    interval: tuple[float, float]
    n: int
    first: int
    second: int
    scale: float  # median distance to the second neighbour of the pair


def gride(points, *, first: int = 1, second: int | None = None) -> Gride:
    """The dimension at one scale: maximum likelihood of mu = r_n2 / r_n1 (Denti et al. 2022, generalised ratios).

    f(mu) = d (mu^d - 1)^(n2 - n1 - 1) / (mu^((n2 - 1) d + 1) B(n2 - n1, n1)), mu > 1; n1 = `first`, n2 = `second`,
    twice n1 where not given. With n1, n2 = 1, 2 it is TwoNN (n in place of n - 1). `points`: (n, d) or `Neighbours`.

    >>> round(gride(np.random.default_rng(0).random((500, 2)), first=4).dimension, 1)
    2.0
    """
    second = 2 * first if second is None else second
    table = points if isinstance(points, Neighbours) else nearest_neighbours(points, max(second, 2))
    logs = _ratios(table, first, second)
    between = second - first - 1
    nan = float("nan")
    if between > 0:
        logs = logs[logs > 0]  # equal distances have likelihood 0 there; with no neighbour between they carry ln mu = 0
    total = float(logs.sum())
    far = table.distances[:, second - 1]
    scale = float(np.median(far[np.isfinite(far)])) if np.isfinite(far).any() else nan
    if len(logs) < 2 or total <= 0:
        return Gride(nan, (nan, nan), len(logs), first, second, scale)
    dimension = _root(logs, between, second)
    spread = np.exp(-dimension * logs)
    information = len(logs) / dimension**2
    if between > 0:
        information += between * float((logs**2 * spread / (1 - spread) ** 2).sum())
    half = _Z95 / float(np.sqrt(information))
    return Gride(dimension, (dimension - half, dimension + half), len(logs), first, second, scale)


def _root(logs: np.ndarray, between: int, second: int) -> float:
    """Where the derivative of the log-likelihood, which falls everywhere, crosses zero."""
    from scipy.optimize import root_scalar

    total = float(logs.sum())
    if between == 0:
        return len(logs) / ((second - 1) * total)

    def slope(dimension: float) -> float:
        return (
            len(logs) / dimension + between * float((logs / -np.expm1(-dimension * logs)).sum()) - (second - 1) * total
        )

    low = high = len(logs) / total
    while slope(low) < 0:
        low /= 2
    while slope(high) > 0:
        high *= 2
    return low if low == high else float(root_scalar(slope, bracket=(low, high), method="brentq").root)
