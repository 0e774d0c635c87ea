"""Linear maps between two sets of vectors of the same words: what they reach where they were fitted, and elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geonb.errors import InputError
from geonb.geometry.cka import debiased_linear_cka
from geonb.geometry.measurement import Measurement

# ridge strengths, relative to the largest squared singular value
STRENGTHS = (1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def linear_cka(first, second, *, centre: bool = True) -> float:
    """Plain linear CKA ||X'Y||_F^2 / (||X'X||_F ||Y'Y||_F) of centred X, Y (Kornblith et al. 2019), with its bias.

    >>> round(linear_cka([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [[2.0, 0.0], [0.0, 2.0], [2.0, 2.0]]), 12)
    1.0
    """
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if centre:
        x, y = x - x.mean(0), y - y.mean(0)
    k, el = x @ x.T, y @ y.T
    return float((k * el).sum() / np.sqrt((k * k).sum() * (el * el).sum()))


def cosine_cka(first, second) -> float:
    """CKA of the tables of cosines without centring: near 1 for anything whose vectors share a direction."""
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    return linear_cka(
        x / np.linalg.norm(x, axis=1, keepdims=True), y / np.linalg.norm(y, axis=1, keepdims=True), centre=False
    )


@dataclass(frozen=True, slots=True)
class Fit:
    """A map y ~ (x - x_mean) F + y_mean, and where it came from."""

    matrix: np.ndarray
    x_mean: np.ndarray
    y_mean: np.ndarray
    strength: float  # of the ridge; 0 for the pseudo-inverse

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return (x - self.x_mean) @ self.matrix + self.y_mean


def fit_map(x: np.ndarray, y: np.ndarray, *, strength: float = 0.0) -> Fit:
    """Least squares F of the centred rows; 0 is the pseudo-inverse, else (X'X + strength s_1^2 I)^-1 X'Y."""
    return _fits(x, y, (strength,))[0]


def _fits(x: np.ndarray, y: np.ndarray, strengths: Sequence[float]) -> list[Fit]:
    """One fit a strength, from one decomposition."""
    x_mean, y_mean = x.mean(0), y.mean(0)
    u, s, vt = np.linalg.svd(x - x_mean, full_matrices=False)
    turned = u.T @ (y - y_mean)
    found = []
    for strength in strengths:
        if strength == 0:
            inverse = np.where(s > s[0] * 1e-12, 1 / np.maximum(s, 1e-300), 0.0)
        else:
            inverse = s / (s**2 + strength * s[0] ** 2)
        found.append(Fit((vt.T * inverse) @ turned, x_mean, y_mean, strength))
    return found


def fit_ridge(x: np.ndarray, y: np.ndarray, *, folds: int = 5, seed: int = 0) -> Fit:
    """`fit_map` at the strength of `STRENGTHS` with the least squared error over inner folds."""
    order = np.random.default_rng(seed).permutation(len(x))
    errors = np.zeros(len(STRENGTHS))
    for part in np.array_split(order, folds):
        kept = np.setdiff1d(order, part)
        errors += [((fit(x[part]) - y[part]) ** 2).sum() for fit in _fits(x[kept], y[kept], STRENGTHS)]
    return fit_map(x, y, strength=STRENGTHS[int(errors.argmin())])


def r_squared(found: np.ndarray, wanted: np.ndarray, fit: Fit) -> float:
    """1 - ||found - wanted||^2 / ||wanted - mean of the fitted rows||^2: 0 for a map that knows the mean alone."""
    return float(1 - ((found - wanted) ** 2).sum() / ((wanted - fit.y_mean) ** 2).sum())


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One split: debiased CKA of raw and aligned held-out rows, plain CKA of the fitted rows, and the held-out R^2."""

    raw: float
    aligned: float
    in_sample: float
    r2: float


def held_out(x: np.ndarray, y: np.ndarray, *, train: int, test: int, seed: int, ridge: bool = False) -> HeldOut:
    """Fit on `train` random rows and judge on `test` others.

    Raises `InputError` where there are fewer rows than both together.
    """
    if train + test > len(x):
        raise InputError(f"{train} and {test} rows were asked of {len(x)}; allowed is at most that many together.")
    order = np.random.default_rng(seed).permutation(len(x))
    fitted, others = order[:train], order[train : train + test]
    fit = fit_ridge(x[fitted], y[fitted], seed=seed) if ridge else fit_map(x[fitted], y[fitted])
    return HeldOut(
        raw=debiased_linear_cka(x[others], y[others]),
        aligned=debiased_linear_cka(fit(x[others]), y[others]),
        in_sample=linear_cka(fit(x[fitted]), y[fitted]),
        r2=r_squared(fit(x[others]), y[others], fit),
    )


def monte_carlo_p(observed: float, null: Sequence[float], *, operator: str) -> Measurement:
    """The one-sided p = (1 + #{null >= observed}) / (1 + n) with the Clopper-Pearson interval of # / n.

    The interval says whether more draws could carry p over a line.
    """
    from geonb.geometry.inference import permutation_p
    from geonb.geometry.statistics import clopper_pearson

    values = np.asarray(null, dtype=np.float64)
    value = permutation_p(observed, values.tolist())
    low, high = clopper_pearson(int((values >= observed).sum()), len(values))
    return Measurement(
        value=value,
        interval=(min(low, value), max(high, value)),
        n=len(values),
        null=None,
        unit="",
        operator=operator,
    )


def set_draws(x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The debiased CKA of each set of rows in `rows` (draws, size)."""
    return np.array([debiased_linear_cka(x[one], y[one]) for one in rows])
