"""The spectral ball: its linear minimiser, the Frank-Wolfe step and the duality gap, in float64 NumPy (the reference)."""

from __future__ import annotations

import numpy as np


def polar(matrix) -> np.ndarray:
    """U V^T of the thin SVD; directions below 1e-7 of the largest singular value are dropped; polar(0) = 0.

    >>> polar(np.diag([5.0, 2.0])).round(12).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    values = np.asarray(matrix, dtype=np.float64)
    left, sizes, right = np.linalg.svd(values, full_matrices=False)
    if sizes[0] == 0:
        return np.zeros_like(values)
    return (left * (sizes > 1e-7 * sizes[0])) @ right


def ball_step(point, direction, gamma: float, radius: float) -> np.ndarray:
    """X <- (1 - gamma) X - gamma D u: a convex combination, so ||X||_2 <= D stays true for 0 <= gamma <= 1."""
    return (1.0 - gamma) * np.asarray(point) - gamma * radius * np.asarray(direction)


def duality_gap(moment, point, radius: float) -> float:
    """<M, X + D polar(M)> >= 0: the largest linear improvement left inside the ball (Jaggi 2013, eq. 2)."""
    gradient = np.asarray(moment, dtype=np.float64)
    return float((gradient * (np.asarray(point) + radius * polar(gradient))).sum())
