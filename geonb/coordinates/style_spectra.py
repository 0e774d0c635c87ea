"""The geometry of dW(theta) for every layer through r x r cores: singular values, effective rank, overlap of two coordinates.

With U = Q_u R_u and V = Q_v R_v the singular values of U M V^T are those of R_u M R_v^T; and <dW, dW'>_F = phi^T Gram phi' with
Gram_jl = <R_u G_j R_v^T, R_u G_l R_v^T>_F, so that a 448-wide product is never formed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.modulated_linear import ModulatedLinear, SharedFactors
from geonb.coordinates.phases import weights_of
from geonb.errors import InputError
from geonb.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleSpectrum(Record):
    """One matrix under one coordinate."""

    matrix: str  # "3.q": layer and name
    singular_values: tuple[float, ...]
    relative: float  # ||dW||_2 / ||W||_2
    budget_used: float  # ||dW||_2 / beta, at most 1
    stable_rank: float | None  # ||dW||_F^2 / ||dW||_2^2; None for no change
    effective_rank: float | None  # exp of the entropy of s_i / sum s

    def summary(self) -> str:
        return f"StyleSpectrum({self.matrix}: {self.relative:.3f} of ||W||)"


@torch.no_grad()
def style_spectra(model: CoordinateModel, theta: Tensor) -> tuple[StyleSpectrum, ...]:
    """The spectrum of every modulated matrix's change at `theta` (coordinates,)."""
    found = []
    for number, layer in enumerate(model.uses):
        weights = weights_of(layer.directions.phases(theta))
        for name, linear in layer.changes.items():
            small = _factors(linear).small(linear.bounded_core(weights)).double()
            values = torch.linalg.svdvals(small).numpy()
            found.append(_spectrum(f"{number}.{name}", values, linear))
    return tuple(found)


def _spectrum(matrix: str, values: np.ndarray, linear: ModulatedLinear) -> StyleSpectrum:
    top = float(values[0])
    norm = float(torch.linalg.matrix_norm(linear.base.weight.double(), ord=2))
    share = values[values > 0] / values.sum() if top > 0 else None
    return StyleSpectrum(
        matrix=matrix,
        singular_values=tuple(map(float, values)),
        relative=top / norm if norm > 0 else 0.0,
        budget_used=top / (linear.budget * norm) if norm > 0 else 0.0,
        stable_rank=None if share is None else float((values**2).sum() / top**2),
        effective_rank=None if share is None else float(np.exp(-(share * np.log(share)).sum())),
    )


@torch.no_grad()
def overlap(model: CoordinateModel, thetas: Tensor) -> np.ndarray:
    """Cosines <dW(a), dW(b)>_F / (||dW(a)|| ||dW(b)||) over all matrices: (K, coordinates) -> (K, K), before the budget."""
    total = torch.zeros(len(thetas), len(thetas), dtype=torch.float64)
    for layer in model.uses:
        weights = weights_of(layer.directions.phases(thetas)).double()
        for linear in layer.changes.values():
            small = _factors(linear).small(_factors(linear).cores).double().flatten(1)
            total += weights @ (small @ small.T) @ weights.T
    norms = total.diagonal().clamp_min(1e-300).sqrt()
    return (total / norms[:, None] / norms[None]).numpy()


def _factors(linear: ModulatedLinear) -> SharedFactors:
    if not isinstance(linear.factors, SharedFactors):
        raise InputError("the model has literal factors, which have no small core; use shared factors.")
    return linear.factors
