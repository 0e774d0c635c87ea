"""Loops in a point cloud: first homology of its Vietoris-Rips filtration, over the field of two elements."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from geonb.errors import InputError
from geonb.geometry.inference import permutation_p
from geonb.geometry.measurement import Measurement

_MOST = 120  # points: the triangles grow with their cube


def h1_intervals(points: np.ndarray) -> np.ndarray:
    """Birth and death (loops, 2) of every class of loops of `points` (n, d), n from 4 to 120; diameters, ascending births.

    The boundary of each triangle, in the order of its longest edge, is reduced over Z/2 (Edelsbrunner, Letscher & Zomorodian
    2002). A loop is born with the edge that closes it and dies with the triangle that fills it; those that live for no
    length are left out. Every loop dies, because at the largest distance the complex is a full simplex. Raises `InputError`
    for a cloud of another size, and for values that are not finite.

    >>> h1_intervals(np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])).round(3).tolist()
    [[1.0, 1.414]]
    """
    cloud = np.asarray(points, dtype=np.float64)
    if cloud.ndim != 2 or not 4 <= len(cloud) <= _MOST or not np.isfinite(cloud).all():
        raise InputError(
            f"a cloud of shape {cloud.shape} was given; allowed are 4 to {_MOST} points (rows) of finite numbers."
        )
    n = len(cloud)
    first, second = np.triu_indices(n, 1)
    lengths = np.linalg.norm(cloud[first] - cloud[second], axis=1)
    order = np.argsort(lengths, kind="stable")
    rank = np.empty((n, n), dtype=np.int64)
    rank[first[order], second[order]] = np.arange(len(order))
    triples = np.array(list(combinations(range(n), 3)))
    edges = np.stack([rank[triples[:, a], triples[:, b]] for a, b in ((0, 1), (0, 2), (1, 2))], axis=1)
    edges.sort(axis=1)
    # a triangle enters with its longest edge
    by_longest = np.lexsort((edges[:, 0], edges[:, 1], edges[:, 2]))
    lengths = lengths[order]
    closing = _closing_up_to(first[order], second[order])
    filled: dict[int, int] = {}  # longest edge of a reduced boundary -> that boundary, one bit an edge
    found = []
    for low, middle, high in edges[by_longest].tolist():
        if len(filled) == closing[high]:
            continue  # every loop that these edges can close is filled already: the boundary would reduce to nothing
        boundary = (1 << low) ^ (1 << middle) ^ (1 << high)
        while boundary:
            last = boundary.bit_length() - 1
            other = filled.get(last)
            if other is None:
                filled[last] = boundary
                if lengths[high] > lengths[last]:
                    found.append((lengths[last], lengths[high]))
                break
            boundary ^= other
    return np.array(sorted(found)).reshape(-1, 2)


def _closing_up_to(first: np.ndarray, second: np.ndarray) -> list[int]:
    """How many of the edges up to each join what was joined before, and so close a loop."""
    parent = list(range(int(second.max()) + 1))

    def root(point: int) -> int:
        while parent[point] != point:
            parent[point] = parent[parent[point]]
            point = parent[point]
        return point

    count, found = 0, []
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        one, other = root(one), root(other)
        count += one == other
        parent[one] = other
        found.append(count)
    return found


def total_loop_persistence(points: np.ndarray) -> float:
    """The summed lifetimes of all loops of `points`, scaled to mean pairwise distance 1; 0 where all points coincide."""
    from scipy.spatial.distance import pdist

    cloud = np.unique(np.asarray(points, dtype=np.float64), axis=0)
    if len(cloud) < 4:
        return 0.0
    intervals = h1_intervals(cloud / pdist(cloud).mean())
    return float((intervals[:, 1] - intervals[:, 0]).sum())


def effect_size(first: np.ndarray, second: np.ndarray) -> float:
    """Cohen's d: (mean of first - mean of second) / pooled standard deviation; nan where nothing varies."""
    n, m = len(first), len(second)
    pooled = ((n - 1) * np.var(first, ddof=1) + (m - 1) * np.var(second, ddof=1)) / (n + m - 2)
    return float((np.mean(first) - np.mean(second)) / np.sqrt(pooled)) if pooled > 0 else float("nan")


def difference(first: np.ndarray, second: np.ndarray, *, resamples: int = 2000, seed: int = 0) -> Measurement:
    """`effect_size` with a bootstrap within each side."""
    rng = np.random.default_rng(seed)
    drawn = [effect_size(rng.choice(first, len(first)), rng.choice(second, len(second))) for _ in range(resamples)]
    return _found(effect_size(first, second), drawn, len(first) + len(second), "Cohen's d, bootstrap within kinds")


def difference_beyond(
    pair: tuple[np.ndarray, np.ndarray],
    control: tuple[np.ndarray, np.ndarray],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Measurement:
    """`effect_size` of `pair` less that of `control`, whose figures are of the same prompts: both are resampled alike."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        rows = [rng.integers(0, len(side), len(side)) for side in pair]
        each = [effect_size(*(side[row] for side, row in zip(one, rows, strict=True))) for one in (pair, control)]
        drawn.append(each[0] - each[1])
    said = "Cohen's d less that of the control, the same prompts resampled"
    return _found(effect_size(*pair) - effect_size(*control), drawn, sum(map(len, pair)), said)


def permuted_p(first: np.ndarray, second: np.ndarray, *, permutations: int = 2000, seed: int = 0) -> float:
    """The one-sided p, by permuted labels, that `first` is not larger than `second`."""
    rng = np.random.default_rng(seed)
    both, n = np.concatenate([first, second]), len(first)
    shuffled = (rng.permutation(both) for _ in range(permutations))
    return permutation_p(effect_size(first, second), [effect_size(one[:n], one[n:]) for one in shuffled])


def _found(value: float, drawn: list[float], n: int, operator: str) -> Measurement:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Measurement(
        value=value, interval=(float(low), float(high)), n=n, null=0.0, unit="pooled deviations", operator=operator
    )
