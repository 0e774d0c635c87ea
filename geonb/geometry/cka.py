"""Similarity of two sets of representations of the same inputs: debiased linear CKA and Procrustes."""

from __future__ import annotations

import numpy as np

from geonb.errors import InputError


def _paired(first, second, least: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < least:
        raise InputError(
            f"a comparison of shapes {x.shape} and {y.shape} was asked; it needs the same {least} or more rows (inputs) "
            "in both."
        )
    return x, y


def _unbiased_hsic(k: np.ndarray, el: np.ndarray) -> float:
    """The U-statistic of Song et al. 2012 (eq. 4) for two Gram matrices, whose mean is 0 for independent data."""
    n = len(k)
    k, el = k.copy(), el.copy()
    np.fill_diagonal(k, 0.0)
    np.fill_diagonal(el, 0.0)
    cross = (k * el).sum()
    sums = k.sum() * el.sum() / ((n - 1) * (n - 2))
    rows = 2.0 * (k.sum(0) @ el.sum(0)) / (n - 2)
    return float((cross + sums - rows) / (n * (n - 3)))


def debiased_linear_cka(first, second) -> float:
    """Debiased linear CKA of X: (n, d1) and Y: (n, d2), n >= 4; about 0 for independent data, 1 for X = c Y R.

    HSIC_u(K, L) / sqrt(HSIC_u(K, K) HSIC_u(L, L)) with the U-statistic of Song et al. (Murphy et al. 2024). The biased
    form reads independent Gaussian data as 0.98 at n = 5, d = 512. nan where a set does not vary.
    """
    x, y = _paired(first, second, 4)
    # centring changes nothing in exact arithmetic, and everything in floating point when the mean is large
    x, y = x - x.mean(0), y - y.mean(0)
    k, el = x @ x.T, y @ y.T
    scale = _unbiased_hsic(k, k) * _unbiased_hsic(el, el)
    return _unbiased_hsic(k, el) / np.sqrt(scale) if scale > 0 else float("nan")


def procrustes(first, second) -> tuple[np.ndarray, float]:
    """The rotation R that minimises ||X R - Y||_F, and that residual over ||Y||_F; X, Y: (n, d), centred here."""
    x, y = _paired(first, second, 2)
    if x.shape != y.shape:
        raise InputError(
            f"Procrustes needs equal shapes, {x.shape} and {y.shape} were given: project to one width first."
        )
    x, y = x - x.mean(0), y - y.mean(0)
    left, _, right = np.linalg.svd(x.T @ y)
    rotation = left @ right
    return rotation, float(np.linalg.norm(x @ rotation - y) / max(np.linalg.norm(y), 1e-300))
