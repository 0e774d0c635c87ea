"""Where a weight change lies in its matrix's singular basis, beside random changes of its rank and size."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from geonb.adapters.baseline import random_factors
from geonb.analysis.measured import Measured, assemble, check_draws, finite_matrix
from geonb.errors import InputError
from geonb.geometry.low_rank import product_singular_values
from geonb.geometry.spectrum import Spectrum

_OPERATORS = {
    "norm": "||dW||_2, from the r x r core",
    "frobenius": "||dW||_F",
    "over_sigma_k": "||dW||_2 / sigma_k(W)",
    "over_sigma_max": "||dW||_2 / sigma_1(W)",
    "over_radius": "||dW||_2 / R",
    "relative_change": "||dW||_F / ||W||_F",
    "stable_rank": "||dW||_F^2 / ||dW||_2^2",
    "rank_used": "exp(-sum p ln p), p = s^2 / sum s^2 of dW",
    "scale_bound": "sigma_k(W) / ||dW||_2: the factor at which dW would reach sigma_k",
    "head_energy_out": "||U_k^T dW||_F^2 / ||dW||_F^2, U_k the top k left singular vectors of W",
    "head_energy_in": "||dW V_k||_F^2 / ||dW||_F^2, V_k the top k right singular vectors of W",
    "head_energy_both": "||U_k^T dW V_k||_F^2 / ||dW||_F^2",
    "tail_energy_out": "share of ||dW||_F^2 written into the left singular vectors k+1 .. q of W",
    "tail_energy_in": "share of ||dW||_F^2 read from the right singular vectors k+1 .. q of W",
    "null_energy_out": "share of ||dW||_F^2 written outside the column space's q directions",
    "null_energy_in": "share of ||dW||_F^2 read outside the row space's q directions",
    "overlap_out": "mean squared cosine of the principal angles of dW's column space and U_k",
    "overlap_in": "mean squared cosine of the principal angles of dW's row space and V_k",
}
_UNITS = {"norm": "weight units", "frobenius": "weight units", "stable_rank": "dimensions", "rank_used": "dimensions"}
# singular values of a dense dW below this share of the first are its storage's round-off, not its rank
_ROUND_OFF = 2.0**-20


def adapter_geometry(
    W: Any,
    dW: Any,
    *,
    scale: float = 1.0,
    k: int | None = None,
    radius: float | None = None,
    draws: int = 20,
    seed: int = 0,
    name: str = "dW",
) -> Measured:
    """How large dW is for W and where it lies: norms, energies in W's head and tail, overlap with W's top k.

    W: (out, in), dW: (out, in) dense or a pair (B, A) with B: (out, r), A: (r, in), multiplied by `scale`. k is W's
    structural rank and the `radius` R is sigma_1(W) where not given. Figures of one dW are exact (no interval, n = 1); each
    null is the mean over random B A (Gaussian factors) of equal rank and ||dW||_F, whose draws are in `nulls`. For one
    full SVD of W. Raises `InputError` for shapes that do not fit, for dW = 0 and for a zero W.

    >>> found = adapter_geometry(np.diag([4.0, 3.0, 2.0, 1.0]), (np.eye(4)[:, :1], np.eye(4)[:1]))
    >>> found["head_energy_out"].value, found["over_sigma_max"].value
    (1.0, 0.25)
    """
    check_draws(draws, 2)
    weight = finite_matrix(W, name="W")
    left, right = _factors(dW, weight.shape, scale)
    if not weight.any():
        raise InputError("W is zero, so it has no singular basis: give the base matrix that dW changes.")
    if radius is not None and not (math.isfinite(radius) and radius > 0):
        raise InputError(f"the radius {radius} was given; allowed is any positive number.")
    u, values, vt = np.linalg.svd(weight, full_matrices=False)
    spectrum = Spectrum.of(values, shape=(weight.shape[0], weight.shape[1]))
    k = spectrum.structural_rank if k is None else k
    if not 1 <= k <= len(values):
        raise InputError(
            f"k = {k} was given for a matrix of {len(values)} singular values; allowed are 1 to {len(values)}."
        )
    radius = float(values[0]) if radius is None else radius
    basis = u, values, vt, k, radius
    found = _figures(left, right, basis)
    nulls: dict[str, list[float]] = {one: [] for one in found if one != "frobenius"}
    rank = _rank(left, right)
    shape = weight.shape[0], weight.shape[1]
    for pair in random_factors(shape, rank, frobenius=found["frobenius"], draws=draws, seed=seed, name=name):
        drawn = _figures(*pair, basis)
        for one in nulls:
            nulls[one].append(drawn[one])
    figures = {one: (value, None) for one, value in found.items()}
    said = (
        f"float64, k = {k}, R = {radius:.6g}, rank {rank}; null: mean of {draws} random B A of equal rank and ||dW||_F, seed "
        f"{seed}"
    )
    measured, kept = assemble(figures, nulls, n=1, units=_UNITS, operators=_OPERATORS, said=said)
    return Measured(subject=name, measured=measured, nulls=kept)


def _factors(change: Any, shape: tuple[int, ...], scale: float) -> tuple[np.ndarray, np.ndarray]:
    """dW as a pair (B, A), the scale in B; a dense one by its SVD, cut where its storage's round-off begins."""
    if not math.isfinite(scale) or scale == 0:
        raise InputError(f"the scale {scale} was given; allowed is any finite number but 0.")
    if isinstance(change, tuple | list) and len(change) == 2 and all(np.ndim(_plain(one)) == 2 for one in change):
        left, right = finite_matrix(change[0], name="B"), finite_matrix(change[1], name="A")
        if left.shape[1] != right.shape[0] or (left.shape[0], right.shape[1]) != shape:
            raise InputError(
                f"the factors B {left.shape} and A {right.shape} were given for a matrix of {shape}; allowed are (out, r) "
                "and (r, in): give them in this order."
            )
    else:
        dense = finite_matrix(change, name="dW")
        if dense.shape != shape:
            raise InputError(
                f"dW has the shape {dense.shape} and W {shape}; allowed are equal shapes: transpose one of them?"
            )
        u, values, vt = np.linalg.svd(dense, full_matrices=False)
        kept = max(1, int((values > _ROUND_OFF * values[0]).sum()))
        left, right = u[:, :kept] * values[:kept], vt[:kept]
    if not (product_singular_values(left, right) > 0).any():
        raise InputError("dW is zero: it lies nowhere, so give a change that moved.")
    return left * scale, right


def _plain(one: Any) -> Any:
    return one.detach().cpu() if hasattr(one, "detach") else one


def _rank(left: np.ndarray, right: np.ndarray) -> int:
    """The inner width, or less where out or in is smaller."""
    return min(left.shape[1], left.shape[0], right.shape[1])


def _figures(
    left: np.ndarray, right: np.ndarray, basis: tuple[np.ndarray, np.ndarray, np.ndarray, int, float]
) -> dict[str, float]:
    u, values, vt, k, radius = basis
    own = product_singular_values(left, right)
    norm, frobenius = float(own[0]), float(np.linalg.norm(own))
    total = frobenius**2
    written, read = u.T @ left, right @ vt.T
    energy_out = ((written @ (right @ right.T)) * written).sum(1) / total
    energy_in = ((left.T @ left @ read) * read).sum(0) / total
    both = float(((written[:k] @ read[:, :k]) ** 2).sum()) / total
    return {
        "norm": norm,
        "frobenius": frobenius,
        "over_sigma_k": norm / float(values[k - 1]) if values[k - 1] > 0 else math.inf,
        "over_sigma_max": norm / float(values[0]),
        "over_radius": norm / radius,
        "relative_change": frobenius / float(np.linalg.norm(values)),
        "stable_rank": total / norm**2,
        "rank_used": Spectrum.of(own).effective_rank,
        "scale_bound": float(values[k - 1]) / norm,
        "head_energy_out": float(energy_out[:k].sum()),
        "head_energy_in": float(energy_in[:k].sum()),
        "head_energy_both": both,
        "tail_energy_out": float(energy_out[k:].sum()),
        "tail_energy_in": float(energy_in[k:].sum()),
        "null_energy_out": max(0.0, 1.0 - float(energy_out.sum())),
        "null_energy_in": max(0.0, 1.0 - float(energy_in.sum())),
        "overlap_out": _overlap(left, right, u[:, :k], column_side=True),
        "overlap_in": _overlap(left, right, vt[:k].T, column_side=False),
    }


def _overlap(left: np.ndarray, right: np.ndarray, top: np.ndarray, *, column_side: bool) -> float:
    """Mean cos^2 of the principal angles between dW's column (row) space and the span of `top`."""
    if not column_side:
        left, right = right.T, left.T
    # the column space of B A: of B R^T with A^T = Q R, cut at round-off
    vectors, values, _ = np.linalg.svd(left @ np.transpose(np.linalg.qr(right.T, mode="r")), full_matrices=False)
    space = vectors[:, values > _ROUND_OFF * values[0]]
    return float(((space.T @ top) ** 2).sum()) / min(space.shape[1], top.shape[1])
