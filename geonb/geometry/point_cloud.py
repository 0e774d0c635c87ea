"""How many directions a cloud of points fills, and how far its neighbour graph bends away from straight lines."""

from __future__ import annotations

import numpy as np

from geonb.errors import InputError
from geonb.geometry.spectrum import Spectrum


def _cloud(points, least: int) -> np.ndarray:
    cloud = np.asarray(points, dtype=np.float64)
    if cloud.ndim != 2 or len(cloud) < least or not np.isfinite(cloud).all():
        raise InputError(
            f"a cloud of shape {cloud.shape} was given; at least {least} points (rows) of finite numbers are needed."
        )
    return cloud


def covariance_spectrum(points) -> Spectrum:
    """The singular values of the centred cloud (n, d), n >= 2, from the smaller of its two Gram matrices."""
    cloud = _cloud(points, 2)
    cloud = cloud - cloud.mean(0)
    gram = cloud.T @ cloud if cloud.shape[0] >= cloud.shape[1] else cloud @ cloud.T
    values = np.linalg.eigvalsh(gram)
    # what lies below the eigensolver's round-off is no direction of its own
    values[values < len(values) * np.finfo(np.float64).eps * max(values[-1], 0.0)] = 0.0
    return Spectrum.of(np.sqrt(values), shape=cloud.shape)


def participation_ratio(points) -> float:
    """(sum l)^2 / sum l^2 over the eigenvalues l of the covariance of `points` (n, d), in [1, min(n - 1, d)]; 0 for one point.

    >>> participation_ratio([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    2.0
    """
    return covariance_spectrum(points).participation_ratio


def shannon_rank(points) -> float:
    """exp(-sum p ln p), p = l / sum l over the eigenvalues l of the covariance of `points` (n, d): weights are energies."""
    return covariance_spectrum(points).effective_rank


def geodesic_distortion(points, *, neighbours: int = 10) -> tuple[float, float]:
    """D(k) = mean(d_geo / d_euc) - 1 over the pairs that the k-neighbour graph joins, and the share of pairs that it joins.

    d_geo is the shortest path along Euclidean edges of the symmetrised graph (Tenenbaum et al. 2000). D is above 0 for
    every finite sample, flat ones too: only a control of equal size and covariance says what it means. `points`: (n, d).
    Raises `InputError` for fewer than four points and for fewer than one neighbour.

    >>> line = np.linspace(0, 1, 20)[:, None]
    >>> abs(geodesic_distortion(line, neighbours=2)[0]) < 1e-12
    True
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import shortest_path
    from scipy.spatial.distance import cdist

    cloud = _cloud(points, 4)
    if neighbours < 1:
        raise InputError(f"{neighbours} neighbours were asked for; allowed are 1 and more.")
    # coincident points are one point: the graph would read their distance 0 as no edge
    cloud = np.unique(cloud, axis=0)
    if len(cloud) < 2:
        return float("nan"), float("nan")
    straight = cdist(cloud, cloud)
    k = min(neighbours, len(cloud) - 1)
    near = np.argpartition(straight + np.diag(np.full(len(cloud), np.inf)), k - 1, axis=1)[:, :k]
    rows = np.repeat(np.arange(len(cloud)), k)
    graph = csr_matrix((straight[rows, near.ravel()], (rows, near.ravel())), shape=straight.shape)
    paths = shortest_path(graph.maximum(graph.T), method="D", directed=False)
    pairs = np.triu_indices(len(cloud), 1)
    along, across = paths[pairs], straight[pairs]
    joined = np.isfinite(along)
    if not joined.any():
        return float("nan"), 0.0
    return float((along[joined] / across[joined]).mean() - 1.0), float(joined.mean())


def gaussian_twin(points, mixing) -> np.ndarray:
    """A sample of the normal law with the mean and covariance of `points` (n, d): mean + G (X - mean) / sqrt(n - 1).

    `mixing` is G: (m, n) of standard normal entries. One G for the clouds of several layers keeps their cross-covariance.
    """
    cloud = _cloud(points, 2)
    mean = cloud.mean(0)
    return mean + np.asarray(mixing, dtype=np.float64) @ (cloud - mean) / np.sqrt(len(cloud) - 1)


def row_angles(first, second) -> np.ndarray:
    """arccos of the cosine of each pair of rows, radians (n,); nan where a row is zero. Both: (n, d).

    From the half angle, 2 atan2(||u - v||, ||u + v||) of unit rows, which keeps its digits where arccos loses half.
    """
    one, other = (np.asarray(each, dtype=np.float64) for each in (first, second))
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (one, other))
    return 2 * np.arctan2(np.linalg.norm(one - other, axis=1), np.linalg.norm(one + other, axis=1))
