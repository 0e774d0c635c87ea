"""How alike two representations of the same inputs are: raw, aligned on the same rows, and aligned on held-out rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from geonb.analysis.measured import Measured, assemble, check_draws, finite_matrix
from geonb.errors import InputError
from geonb.geometry.cka import debiased_linear_cka, procrustes
from geonb.geometry.jackknife import jackknife_groups, jackknife_interval

_OPERATORS = {
    "cka": "linear CKA, centred, biased (Kornblith et al. 2019)",
    "debiased_cka": "debiased linear CKA (Song et al. 2012; Murphy et al. 2024)",
    "aligned_cka": "linear CKA of X pinv(X) Y and Y, fitted on the rows that it is computed on: 1 where n <= d + 1 by algebra",
    "aligned_r2": "R^2 of X pinv(X) Y on the rows that it was fitted on",
    "held_out_cka": "debiased linear CKA of X and Y on held-out rows, no alignment",
    "held_out_aligned_cka": "debiased linear CKA of the ridge prediction and Y on held-out rows",
    "held_out_r2": "R^2 of the ridge prediction of Y from X on held-out rows, against the training mean",
    "held_out_procrustes": "||c (X - m) R - (Y - m')||_F / ||Y - m'||_F on held-out rows, R orthogonal and c fitted on the rest",
}
# shares of s_1^2 that the ridge may add, chosen by leave-one-out error inside each training part
_PENALTIES = 10.0 ** np.arange(-8, 3)
_IN_SAMPLE = ("cka", "debiased_cka", "aligned_cka", "aligned_r2")


def linear_cka(first: Any, second: Any) -> float:
    """<K~, L~> / (||K~|| ||L~||), K~ = H X X^T H (Kornblith et al. 2019); near 1 for independent data where n is small.

    X: (n, d1), Y: (n, d2); nan where one does not vary.
    """
    x, y = (one - one.mean(0) for one in (np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)))
    if min(x.shape[1], y.shape[1]) > len(x):
        k, el = x @ x.T, y @ y.T
        scale, cross = np.linalg.norm(k) * np.linalg.norm(el), (k * el).sum()
    else:
        scale, cross = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y), np.linalg.norm(x.T @ y) ** 2
    return float(cross / scale) if scale > 0 else math.nan


def compare(
    X: Any, Y: Any, *, folds: int = 5, draws: int = 10, groups: int = 20, seed: int = 0, name: str = "X and Y"
) -> Measured:
    """CKA raw, debiased, after in-sample least squares and after held-out ridge; held-out R^2 and Procrustes residual.

    X: (n, d1), Y: (n, d2), row i of both from input i; X predicts Y. `aligned_cka` repeats the operator that is often
    published: it fits and scores on the same rows and is 1 for n <= d1 + 1 whatever Y is. Held-out figures are means over
    `folds` parts of the rows, with the interval t_(folds - 1) sd sqrt(1/folds + 1/(folds - 1)) (Nadeau & Bengio 2003); the
    others have a grouped jackknife over rows. The null is X beside the shuffled rows of Y, `draws` times. Procrustes of
    unequal widths pads the narrower with zeros. Raises `InputError` for unequal rows and fewer than 4 rows a fold.

    >>> rng = np.random.default_rng(0)
    >>> found = compare(rng.standard_normal((40, 60)), rng.standard_normal((40, 60)), draws=2)
    >>> round(found["aligned_cka"].value, 6), found["held_out_r2"].value < 0.1
    (1.0, True)
    """
    check_draws(draws)
    x, y = finite_matrix(X, name="X", rows=8), finite_matrix(Y, name="Y", rows=8)
    if len(x) != len(y):
        raise InputError(
            f"X has {len(x)} rows and Y {len(y)}; allowed are equal numbers: one row an input, in one order."
        )
    if isinstance(folds, bool) or not 2 <= folds <= len(x) // 4:
        raise InputError(
            f"{folds} folds were asked of {len(x)} rows; allowed are 2 to {len(x) // 4}, 4 rows a fold or more."
        )
    for what, one in (("X", x), ("Y", y)):
        if not one.std(0).any():
            raise InputError(
                f"{what} does not vary over its rows, so nothing can be compared: check how it was collected."
            )
    rows = np.random.default_rng(seed).permutation(len(x))
    parts = [_Fold.of(x, np.sort(held)) for held in np.array_split(rows, folds)]
    values = {**_in_sample(x, y), **_held_out(x, y, parts)}
    leave = [np.setdiff1d(np.arange(len(x)), part) for part in jackknife_groups(len(x), groups=groups, seed=seed)]
    left_out = [_in_sample(x[kept], y[kept]) for kept in leave]
    figures: dict[str, tuple[float, tuple[float, float] | None]] = {}
    for one, value in values.items():
        if one in _IN_SAMPLE:
            figures[one] = float(value), jackknife_interval(float(value), [each[one] for each in left_out])
        else:
            figures[one] = float(np.mean(value)), _fold_interval(value)
    nulls: dict[str, list[float]] = {one: [] for one in figures}
    for draw in range(draws):
        shuffled = y[np.random.default_rng((seed, draw)).permutation(len(y))]
        for one, value in {**_in_sample(x, shuffled), **_held_out(x, shuffled, parts)}.items():
            nulls[one].append(float(np.mean(value)))
    said = (
        f"centred, float64, n = {len(x)}, d = {x.shape[1]} and {y.shape[1]}, {folds} folds, seed {seed}; null: mean of "
        f"{draws} shuffles of Y's rows"
    )
    units = {"held_out_procrustes": "of ||Y||_F", "held_out_r2": "of variance", "aligned_r2": "of variance"}
    measured, kept = assemble(figures, nulls, n=len(x), units=units, operators=_OPERATORS, said=said)
    return Measured(subject=name, measured=measured, nulls=kept)


def _in_sample(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    x, y = x - x.mean(0), y - y.mean(0)
    u, values, _ = np.linalg.svd(x, full_matrices=False)
    # X pinv(X) is the projection on X's column space
    space = u[:, values > max(x.shape) * np.finfo(np.float64).eps * values[0]]
    fitted = space @ (space.T @ y)
    return {
        "cka": linear_cka(x, y),
        "debiased_cka": debiased_linear_cka(x, y),
        "aligned_cka": linear_cka(fitted, y),
        "aligned_r2": 1 - float(((y - fitted) ** 2).sum() / (y**2).sum()),
    }


@dataclass(frozen=True, slots=True)
class _Fold:
    """One split of X's rows, with the decomposition of its training part: it serves every shuffle of Y."""

    train: np.ndarray
    held: np.ndarray
    mean: np.ndarray
    u: np.ndarray
    values: np.ndarray
    vt: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, held: np.ndarray) -> _Fold:
        train = np.setdiff1d(np.arange(len(x)), held)
        mean = x[train].mean(0)
        return cls(train, held, mean, *np.linalg.svd(x[train] - mean, full_matrices=False))

    def ridge(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The prediction of Y's held-out rows, the penalty chosen by the exact leave-one-out error of the training rows."""
        centre = y[self.train].mean(0)
        target = y[self.train] - centre
        coordinates = self.u.T @ target
        best, chosen = math.inf, None
        for penalty in _PENALTIES * self.values[0] ** 2:
            shrink = self.values**2 / (self.values**2 + penalty)
            leverage = (self.u**2) @ shrink + 1 / len(self.train)
            residual = (target - (self.u * shrink) @ coordinates) / np.maximum(1 - leverage, 1e-12)[:, None]
            error = float((residual**2).sum())
            if error < best:
                best, chosen = error, self.values / (self.values**2 + penalty)
        return centre + ((x[self.held] - self.mean) @ self.vt.T * chosen) @ coordinates

    def procrustes(self, x: np.ndarray, y: np.ndarray) -> float:
        """The residual on held-out rows of a rotation with one scale, fitted on the training rows."""
        centre = y[self.train].mean(0)
        first, second = x[self.train] - self.mean, y[self.train] - centre
        test, goal = x[self.held] - self.mean, y[self.held] - centre
        # in the span of the training rows the rotation is smaller, and outside it nothing would be fitted
        first, into = _reduced(first)
        second, onto = _reduced(second)
        width = max(first.shape[1], second.shape[1])
        pad = [np.pad(one, ((0, 0), (0, width - one.shape[1]))) for one in (first, second)]
        rotation = procrustes(*pad)[0]
        turned = pad[0] @ rotation
        size = float((turned**2).sum())
        scale = float((turned * pad[1]).sum()) / size if size > 0 else 0.0
        coordinates = np.pad(test @ into, ((0, 0), (0, width - into.shape[1])))
        predicted = (scale * coordinates @ rotation)[:, : onto.shape[1]] @ onto.T
        return float(np.linalg.norm(predicted - goal) / max(float(np.linalg.norm(goal)), 1e-300))


def _reduced(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centred `rows` (n, d) in coordinates (n, r) of an orthonormal basis (d, r) of their span; themselves where n > d."""
    if len(rows) > rows.shape[1]:
        return rows, np.eye(rows.shape[1])
    basis = np.linalg.qr(rows.T)[0]
    return rows @ basis, basis


def _held_out(x: np.ndarray, y: np.ndarray, folds: list[_Fold]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in _OPERATORS if name not in _IN_SAMPLE}
    for fold in folds:
        predicted, goal = fold.ridge(x, y), y[fold.held]
        centre = y[fold.train].mean(0)
        found["held_out_cka"].append(_finite(debiased_linear_cka(x[fold.held], goal)))
        found["held_out_aligned_cka"].append(_finite(debiased_linear_cka(predicted, goal)))
        found["held_out_r2"].append(1 - float(((predicted - goal) ** 2).sum() / ((goal - centre) ** 2).sum()))
        found["held_out_procrustes"].append(fold.procrustes(x, y))
    return found


def _finite(value: float) -> float:
    # a prediction that does not vary over the held-out rows shares nothing with them
    return value if math.isfinite(value) else 0.0


def _fold_interval(values: Any) -> tuple[float, float]:
    from scipy.stats import t

    count, mean = len(values), float(np.mean(values))
    half = float(t.ppf(0.975, count - 1)) * float(np.std(values, ddof=1)) * math.sqrt(1 / count + 1 / (count - 1))
    return mean - half, mean + half
