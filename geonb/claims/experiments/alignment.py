"""W4 and W5: linear maps between two sets of activations, fitted on some inputs and judged on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geonb.errors import InputError
from geonb.geometry.cka import debiased_linear_cka


def linear_cka(first, second) -> float:
    """The biased linear CKA of Kornblith et al. 2019, ||X^T Y||_F^2 / (||X^T X||_F ||Y^T Y||_F), columns centred.

    The form in which the claims were published; with more columns than rows it is near 1 for noise too.
    """
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    x, y = x - x.mean(0), y - y.mean(0)
    k, el = x @ x.T, y @ y.T
    return float((k * el).sum() / np.sqrt((k * k).sum() * (el * el).sum()))


def least_map(source, target, *, cut: float = 1e-10) -> np.ndarray:
    """F = pinv(S) T: the smallest map among those that fit best; singular values of S below `cut` s_1 count as 0."""
    return np.linalg.pinv(np.asarray(source, dtype=np.float64), rcond=cut) @ np.asarray(target, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """How well a map does on inputs it was not fitted on."""

    aligned: float  # debiased CKA of S F and T
    raw: float  # of S and T
    explained: float  # R^2 of T from S F, which sees scale


def judged(map_, source, target, mean) -> HeldOut:
    """The figures of `map_` on held-out rows; `mean` is that of the targets it was fitted on (R^2's rival)."""
    guess = np.asarray(source) @ map_
    target = np.asarray(target, dtype=np.float64)
    left = ((guess - target) ** 2).sum() / ((target - mean) ** 2).sum()
    return HeldOut(debiased_linear_cka(guess, target), debiased_linear_cka(source, target), float(1 - left))


def ridge_path(source, target, penalties: Sequence[float]):
    """Maps of centred data, one a penalty l: (S^T S + l s_1^2 I)^-1 S^T T by one SVD; yields arrays (d1, d2)."""
    left, values, right = np.linalg.svd(source, full_matrices=False)
    inside = left.T @ target
    for penalty in penalties:
        yield (right.T * (values / (values**2 + penalty * values[0] ** 2))) @ inside


def cross_validated(
    source, target, *, folds: int = 5, seed: int = 0, penalties: Sequence[float] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
) -> tuple[np.ndarray, float]:
    """Predictions of every row from a ridge map that did not see it, (n, d2), and held-out R^2.

    The penalty of each fold is the best of `penalties` on a fifth of the rows that it may see. Raises `InputError` for
    fewer than 5 rows a fold.
    """
    x, y = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if len(x) != len(y) or len(x) < 5 * folds:
        raise InputError(
            f"{len(x)} and {len(y)} rows were given for {folds} folds; allowed are as many, 5 a fold or more."
        )
    order = np.random.default_rng(seed).permutation(len(x))
    guesses, left = np.empty_like(y), 0.0
    for fold in np.array_split(order, folds):
        seen = np.setdiff1d(order, fold, assume_unique=True)
        inner, fit = seen[: len(seen) // 5], seen[len(seen) // 5 :]
        errors = [
            ((x[inner] - x[fit].mean(0)) @ one + y[fit].mean(0) - y[inner])
            for one in ridge_path(x[fit] - x[fit].mean(0), y[fit] - y[fit].mean(0), penalties)
        ]
        best = penalties[int(np.argmin([(one**2).sum() for one in errors]))]
        (one,) = ridge_path(x[seen] - x[seen].mean(0), y[seen] - y[seen].mean(0), [best])
        guesses[fold] = (x[fold] - x[seen].mean(0)) @ one + y[seen].mean(0)
        left += ((y[fold] - y[seen].mean(0)) ** 2).sum()
    return guesses, float(1 - ((guesses - y) ** 2).sum() / left)
