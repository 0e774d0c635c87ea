"""Matrix-based Renyi-2 information, in floating point and in exact fractions, beside Shannon's."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from geonb.errors import InputError


def gaussian_gram(points: np.ndarray, *, width: float = 1.0) -> np.ndarray:
    """exp(-d^2 / (2 s^2)) of all pairs of `points` (n, d); s is `width` times the median distance of two points."""
    from scipy.spatial.distance import pdist, squareform

    distances = pdist(np.asarray(points, dtype=np.float64))
    scale = width * float(np.median(distances))
    if not scale > 0:
        raise InputError(f"a kernel width of {scale} came out of {len(points)} points; allowed are points that differ.")
    return np.exp(-(squareform(distances) ** 2) / (2 * scale**2))


def renyi2_entropy(gram: np.ndarray) -> float:
    """-log2 tr(A^2), A = K / tr K (Sanchez Giraldo, Rao & Principe 2015, order 2), in bits; 0 to log2 n."""
    normalised = gram / np.trace(gram)
    return float(-np.log2((normalised**2).sum()))


def renyi2_information(first: np.ndarray, second: np.ndarray) -> float:
    """S(A) + S(B) - S(A * B / tr) of two Gram matrices of the same rows, in bits, with the elementwise product A * B."""
    return renyi2_entropy(first) + renyi2_entropy(second) - renyi2_entropy(first * second)


def two_point_information(first: Fraction, second: Fraction) -> Fraction:
    """2 to the power of the estimate for two points whose kernels are `first` and `second`, exactly.

    tr(A^2) of [[1, a], [a, 1]] / 2 is (1 + a^2) / 2, so the power is 2 (1 + a^2 b^2) / ((1 + a^2)(1 + b^2)).
    """
    a, b = first**2, second**2
    return 2 * (1 + a * b) / ((1 + a) * (1 + b))


def discrete_renyi2_information(table: Sequence[Sequence[Fraction]]) -> Fraction:
    """2 to the power of H2(X) + H2(Y) - H2(X, Y) of a joint table, exactly; H2 = -log2 sum p^2.

    Raises `InputError` where the table does not sum to 1 or holds a negative number.
    """
    if sum(map(sum, table)) != 1 or any(one < 0 for row in table for one in row):
        raise InputError(
            "a joint table was given that is no distribution; allowed are fractions of at least 0 that sum to 1."
        )
    rows = sum((sum(row) ** 2 for row in table), Fraction(0))
    columns = sum((sum(column) ** 2 for column in zip(*table, strict=True)), Fraction(0))
    return sum((one**2 for row in table for one in row), Fraction(0)) / (rows * columns)


def merged(table: Sequence[Sequence[Fraction]], groups: Sequence[Sequence[int]]) -> list[list[Fraction]]:
    """The joint table of X and f(Y), where f sends all columns of one group to one value."""
    return [[sum((row[column] for column in group), Fraction(0)) for group in groups] for row in table]


def shannon_information(table: Sequence[Sequence[Fraction]]) -> float:
    """The mutual information of a joint table, in bits."""
    p = np.array([[float(one) for one in row] for row in table])
    outer = p.sum(1, keepdims=True) * p.sum(0)
    there = p > 0
    return float((p[there] * np.log2(p[there] / outer[there])).sum())
