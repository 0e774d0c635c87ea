"""Orthonormal bases of input directions: where an adapter may act (MATH.md section 3).

Every function returns A: (r, in), float64 with orthonormal rows.
"""

from __future__ import annotations

import numpy as np

from geonb.errors import InputError


def _checked(weight, rank: int) -> np.ndarray:
    matrix = np.asarray(weight, dtype=np.float64)
    if matrix.ndim != 2 or not 1 <= rank <= matrix.shape[1]:
        raise InputError(
            f"a basis of {rank} directions was asked of a matrix of shape {matrix.shape}; "
            f"allowed are 1 to {matrix.shape[-1] if matrix.ndim else 0}."
        )
    return matrix


def _right_vectors(matrix: np.ndarray) -> np.ndarray:
    """Right singular vectors, descending, as rows: (q, in) for a wide matrix, (in, in) for a tall one.

    From the eigenvectors of the smaller Gram matrix: for a wide matrix V^T = S^-1 U^T W would lose the small end, so
    its rows come from a thin SVD instead, which costs no n x n problem either.
    """
    from scipy.linalg import eigh, svd

    rows, columns = matrix.shape
    if rows >= columns:
        return eigh(matrix.T @ matrix, check_finite=False, driver="evd")[1][:, ::-1].T
    return svd(matrix, full_matrices=False, check_finite=False)[2]


def top_basis(weight, rank: int) -> np.ndarray:
    """The first `rank` right singular vectors of `weight`: the input directions that it uses most."""
    matrix = _checked(weight, rank)
    vectors = _right_vectors(matrix)
    if rank > len(vectors):
        raise InputError(
            f"the top basis of a {matrix.shape} matrix has {len(vectors)} directions, {rank} were asked: lower the rank."
        )
    return np.ascontiguousarray(vectors[:rank])


def tail_basis(weight, rank: int, *, seed: int) -> np.ndarray:
    """The last `rank` right singular vectors of `weight`, its null space first: the directions that it uses least.

    A wide matrix (in > out) has a null space of in - out dimensions in which no direction is preferred; if it holds
    `rank` directions, they are drawn from it with `seed`, by projecting Gaussian rows off the row space: no
    in x in eigenproblem is ever solved. Otherwise the null space is taken whole, with the last singular directions.

    >>> tail_basis(np.diag([3.0, 2.0, 1.0]), 1, seed=0).round(6).tolist()[0] in ([0.0, 0.0, 1.0], [0.0, 0.0, -1.0])
    True
    """
    matrix = _checked(weight, rank)
    out_features, in_features = matrix.shape
    null = in_features - out_features
    if null <= 0:
        return np.ascontiguousarray(_right_vectors(matrix)[in_features - rank :])
    if rank <= null:
        # the row space's orthonormal basis by QR is stable for any rank of W
        occupied = np.linalg.qr(matrix.T)[0]
        return _complement(occupied, rank, seed)
    kept = in_features - rank
    return _complement(_right_vectors(matrix)[:kept].T, rank, seed)


def _complement(occupied: np.ndarray, rank: int, seed: int) -> np.ndarray:
    """`rank` orthonormal rows orthogonal to the columns of `occupied`, drawn with `seed`."""
    rows = np.random.default_rng(seed).standard_normal((occupied.shape[0], rank))
    # twice is enough for orthogonality to round-off (Giraud, Langou & Rozloznik 2005)
    for _ in range(2):
        rows -= occupied @ (occupied.T @ rows)
        rows = np.linalg.qr(rows)[0]
    return np.ascontiguousarray(rows.T)


def full_basis(in_features: int) -> np.ndarray:
    """All input directions: the identity, so that the adapter is a full-rank bounded change."""
    return np.eye(in_features)


def random_basis(in_features: int, rank: int, *, seed: int) -> np.ndarray:
    """`rank` directions drawn uniformly (Haar) with `seed`."""
    if not 1 <= rank <= in_features:
        raise InputError(f"a random basis of {rank} directions was asked; allowed are 1 to {in_features}.")
    rows = np.random.default_rng(seed).standard_normal((in_features, rank))
    orthogonal, upper = np.linalg.qr(rows)
    return np.ascontiguousarray((orthogonal * np.sign(np.diag(upper))).T)


def completed_basis(rows: np.ndarray, rank: int, *, seed: int) -> np.ndarray:
    """`rows` (orthonormal, at most `rank`) completed to `rank` orthonormal rows by random directions orthogonal to them."""
    if len(rows) >= rank:
        return np.ascontiguousarray(rows[:rank])
    return np.concatenate([rows, _complement(rows.T, rank - len(rows), seed)])
