"""What a matrix of pure noise would show: its singular values drawn exactly, and the distance to the limit law."""

from __future__ import annotations

import math

import numpy as np

from geonb.errors import InputError


def gaussian_singular_values(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """The singular values, descending, of one m x n matrix of standard normal entries, without drawing it.

    They are those of a q x q bidiagonal matrix with independent chi entries: chi_p .. chi_(p-q+1) on the diagonal and
    chi_(q-1) .. chi_1 below it, p = max(m, n), q = min(m, n) (Silverstein 1985; Dumitriu & Edelman 2002, beta = 1).

    >>> len(gaussian_singular_values((30, 20), np.random.default_rng(0)))
    20
    """
    from scipy.linalg import eigvalsh_tridiagonal

    q, p = sorted(shape)
    if q < 1:
        raise InputError(f"singular values of the shape {shape} were asked for; allowed are sizes of 1 and more.")
    diagonal = np.sqrt(rng.chisquare(p - np.arange(q)))
    below = np.sqrt(rng.chisquare(np.arange(q - 1, 0, -1))) if q > 1 else np.zeros(0)
    squares = diagonal**2
    squares[1:] += below**2
    return np.sqrt(np.maximum(eigvalsh_tridiagonal(squares, diagonal[:-1] * below), 0.0))[::-1]


def marchenko_pastur_cdf(points, ratio: float) -> np.ndarray:
    """The share of eigenvalues below each of `points`, for unit variance and aspect ratio q / p in (0, 1].

    >>> marchenko_pastur_cdf([0.0, 4.0], 1.0).tolist()
    [0.0, 1.0]
    """
    if not 0 < ratio <= 1:
        raise InputError(f"the aspect ratio {ratio} was given; allowed is 0 to 1, the smaller side over the larger.")
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
    # x = low + (high - low) sin^2(t) makes the density smooth at both edges; the mass is summed by the midpoint rule
    edges = np.linspace(0.0, math.pi / 2, 8001)
    middle = (edges[1:] + edges[:-1]) / 2
    sine, cosine = np.sin(middle), np.cos(middle)
    mass = np.concatenate([[0.0], np.cumsum((sine * cosine) ** 2 / (low + (high - low) * sine**2))])
    return np.interp(np.asarray(points, dtype=np.float64), low + (high - low) * np.sin(edges) ** 2, mass / mass[-1])


def marchenko_pastur_distance(values, shape: tuple[int, int]) -> float:
    """Kolmogorov distance of s^2 / (p v) to the Marchenko-Pastur law, v = ||W||_F^2 / (m n) the variance of an entry.

    `values`: the min(m, n) singular values of an m x n matrix. 0 for noise of infinite size, 1 at most; nan for W = 0.
    """
    q, p = sorted(shape)
    squares = np.sort(np.asarray(values, dtype=np.float64)) ** 2
    if len(squares) != q:
        raise InputError(f"{len(squares)} singular values were given for the shape {shape}; allowed are {q}: give all.")
    total = float(squares.sum())
    if total == 0:
        return math.nan
    law = marchenko_pastur_cdf(squares * q / total, q / p)
    steps = np.arange(q + 1) / q
    return float(max(np.abs(law - steps[1:]).max(), np.abs(law - steps[:-1]).max()))
