"""W3: how much longer paths through neighbours are than straight lines, and the flat clouds that this is held against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geonb.errors import InputError


def distortion(points, neighbours: Sequence[int]) -> dict[int, float]:
    """D(k) = mean(d_graph / d_straight) - 1 over the pairs that the smallest graph joins, for each k of `neighbours`.

    `points`: (n, d). The graph joins each point with its k nearest, in both directions, by edges of Euclidean length
    (Tenenbaum et al. 2000). Counting the same pairs at every k makes D fall with k, as each single ratio does. Raises
    `InputError` for fewer points than neighbours, and where two points coincide, whose ratio has no meaning.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import shortest_path
    from scipy.spatial.distance import cdist

    cloud = np.asarray(points, dtype=np.float64)
    if cloud.ndim != 2 or len(cloud) <= max(neighbours) or min(neighbours) < 1:
        raise InputError(
            f"{cloud.shape} points and {list(neighbours)} neighbours were given; allowed are from 1 to n - 1: give more "
            "points or fewer neighbours."
        )
    straight = cdist(cloud, cloud)
    above = np.triu_indices(len(cloud), 1)
    if not straight[above].min() > 0:
        raise InputError(
            "two points of the cloud coincide, so no ratio of distances is defined: leave one of them out."
        )
    order = np.argsort(straight + np.diag(np.full(len(cloud), np.inf)), axis=1)
    found, joined = {}, None
    for k in sorted(neighbours):
        graph = np.zeros_like(straight)
        rows = np.repeat(np.arange(len(cloud)), k)
        columns = order[:, :k].ravel()
        graph[rows, columns] = graph[columns, rows] = straight[rows, columns]
        ratio = shortest_path(csr_array(graph), method="D", directed=False)[above] / straight[above]
        joined = np.isfinite(ratio) if joined is None else joined
        found[k] = float(ratio[joined].mean() - 1)
    return found


def gaussian_like(points, rng: np.random.Generator) -> np.ndarray:
    """As many Gaussian points with exactly the mean and the sample covariance of `points`: (n, d), for any n and d.

    C = U S V^T are the centred points; U is replaced by a random one. The left singular vectors of Gaussian points are
    spread evenly whatever their covariance, so Gaussian points and their control have one distribution. A draw from
    N(mean, sample covariance) has not: its own sample covariance is more uneven, and its paths are straighter.
    """
    cloud = np.asarray(points, dtype=np.float64)
    _, values, right = np.linalg.svd(cloud - cloud.mean(0), full_matrices=False)
    rank = min(len(cloud) - 1, cloud.shape[1])
    noise = rng.standard_normal((len(cloud), rank))
    turned = np.linalg.qr(noise - noise.mean(0))[0]
    return cloud.mean(0) + turned * values[:rank] @ right[:rank]


def unlinked(points, rng: np.random.Generator) -> np.ndarray:
    """The points with each principal component permuted by itself: the marginals stay, what links the components goes.

    The permuted components are made orthogonal again, the largest first, so that the sample covariance stays too.
    """
    cloud = np.asarray(points, dtype=np.float64)
    left, values, right = np.linalg.svd(cloud - cloud.mean(0), full_matrices=False)
    rank = min(len(cloud) - 1, cloud.shape[1])
    mixed = np.stack([rng.permutation(column) for column in left.T[:rank]], axis=1)
    turned, triangle = np.linalg.qr(mixed - mixed.mean(0))
    return cloud.mean(0) + turned * np.sign(np.diag(triangle)) * values[:rank] @ right[:rank]


def swiss_roll(n: int, rng: np.random.Generator) -> np.ndarray:
    """A rolled sheet, (n, 3): what is curved without doubt."""
    angle = 1.5 * np.pi * (1 + 2 * rng.random(n))
    return np.stack([angle * np.cos(angle), 21 * rng.random(n), angle * np.sin(angle)], axis=1)


def excess(points, neighbours: Sequence[int], control, rng: np.random.Generator, draws: int = 1) -> np.ndarray:
    """D(k) of `points` minus the mean of `draws` of `control(points, rng)`, one figure a k in ascending order."""
    own = distortion(points, neighbours)
    against = [distortion(control(points, rng), neighbours) for _ in range(draws)]
    return np.array([own[k] - np.mean([one[k] for one in against]) for k in sorted(neighbours)])
