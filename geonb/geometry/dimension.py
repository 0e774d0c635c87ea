"""Intrinsic dimension and 0-dimensional topology of a point cloud."""

from __future__ import annotations

import numpy as np

from geonb.errors import InputError


def _distances(points) -> np.ndarray:
    from scipy.spatial.distance import cdist

    cloud = np.asarray(points, dtype=np.float64)
    if cloud.ndim != 2 or len(cloud) < 4:
        raise InputError(f"a cloud of shape {cloud.shape} was given; at least four points (rows) are needed.")
    return cdist(cloud, cloud)


def two_nn(points) -> float:
    """TwoNN dimension: (n - 1) / sum ln(r2 / r1) over the points (Facco et al. 2017, maximum likelihood form).

    Points that coincide with their neighbour carry no ratio and are left out; nan where none is left.
    """
    distances = _distances(points)
    np.fill_diagonal(distances, np.inf)
    nearest = np.sort(np.partition(distances, 1, axis=1)[:, :2], axis=1)
    usable = nearest[:, 0] > 0
    ratios = np.log(nearest[usable, 1] / nearest[usable, 0])
    total = float(ratios.sum())
    return float((usable.sum() - 1) / total) if total > 0 else float("nan")


def mle_dimension(points, *, neighbours: int = 10) -> float:
    """Levina-Bickel dimension with MacKay & Ghahramani's average of inverses, over `neighbours` neighbours."""
    distances = np.sort(_distances(points), axis=1)[:, 1:]
    k = min(neighbours, distances.shape[1])
    near = distances[:, :k]
    near = near[near[:, 0] > 0]
    if k < 3 or len(near) == 0:
        return float("nan")
    # k - 2 makes the inverse unbiased
    inverse = np.log(near[:, -1:] / near[:, :-1]).sum(1) / (k - 2)
    return float(1.0 / inverse.mean())


def h0_persistence(points) -> np.ndarray:
    """Death times of the connected components (births are 0), ascending: the edges of the minimum spanning tree."""
    from scipy.sparse.csgraph import minimum_spanning_tree

    cloud = np.asarray(points, dtype=np.float64)
    distances = _distances(cloud)
    # csgraph reads a distance of 0 as "no edge": coincident points die at 0 and are taken out first
    kept = np.unique(cloud, axis=0, return_index=True)[1]
    tree = minimum_spanning_tree(distances[np.ix_(kept, kept)]) if len(kept) > 1 else None
    edges = np.sort(tree.data) if tree is not None else np.zeros(0)
    return np.concatenate([np.zeros(len(cloud) - len(kept)), edges])
