"""LoRAs into the coordinate model: each becomes a coordinate, exactly while there are at most 2m and their spaces fit the rank.

Of K changes dW_k = B_k A_k of one matrix: U and V are the leading left and right directions of all of them together (SVD of the
stacked, equally weighted factors), M_k = U^T dW_k V, and the cores solve phi(a_k) G = M_k for every k with the orthogonal
phases a_k of `orthogonal_phases`: G = Phi^+ M, of least norm. Theta is the shortest with C theta = a_k in all layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geonb.coordinates.configuration import TARGETS
from geonb.coordinates.export import _PLACES
from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.modulated_linear import SharedFactors
from geonb.coordinates.phases import orthogonal_phases, theta_for, weights_of
from geonb.errors import InputError
from geonb.records import Record

Change = Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedStyles(Record):
    """What came of an import; errors are relative Frobenius norms of dW_k - U M_k V^T, the largest over the adapters."""

    styles: int
    limit: int  # 2 m
    largest_error: float
    errors: dict[str, float]  # by module name
    over_budget: tuple[str, ...]  # matrices of which a change is scaled down at run time

    @property
    def is_exact(self) -> bool:
        """Whether every adapter is what it was, to the rounding of float32, and none is scaled."""
        return self.largest_error < 1e-5 and not self.over_budget

    def summary(self) -> str:
        told = "exact" if self.is_exact else f"largest relative error {self.largest_error:.2g}"
        scaled = f"; {len(self.over_budget)} matrices over the budget" if self.over_budget else ""
        return f"ImportedStyles({self.styles} of at most {self.limit}: {told}{scaled})"


@torch.no_grad()
def import_styles(model: CoordinateModel, adapters: Sequence[Change]) -> tuple[Tensor, ImportedStyles]:
    """Give each adapter (module name -> (B, A), scale in B) a coordinate: (K, coordinates), and what was lost.

    The modulation that the model had is replaced. A matrix that an adapter leaves out keeps its base weights under it. Raises
    `InputError` for more adapters than 2m, a matrix that the model does not modulate, other shapes, and literal factors.
    """
    sizes = model.sizes
    limit = 2 * sizes.pairs
    if not 1 <= len(adapters) <= limit:
        raise InputError(f"{len(adapters)} adapters were given; {sizes.pairs} pairs hold 1 to {limit}.")
    if sizes.factors != "shared":
        raise InputError(f"{sizes.name} has literal factors; adapters are imported into shared ones.")
    places = {
        f"model.layers.{number}.{_PLACES[name]}": layer.changes[name]
        for number, layer in enumerate(model.uses)
        for name in TARGETS
    }
    _check(adapters, places)
    phases = orthogonal_phases(sizes.pairs, len(adapters))
    weights = weights_of(torch.tensor(phases))
    solve = torch.linalg.pinv(weights)  # (2m, K); exact because the rows are orthogonal
    errors, over = {}, []
    for path, linear in places.items():
        factors = linear.factors
        assert isinstance(factors, SharedFactors)
        given = [tuple(one.double() for one in adapter[path]) if path in adapter else None for adapter in adapters]
        left, right = _bases([one for one in given if one is not None], factors)
        small = torch.zeros(len(adapters), sizes.rank, sizes.rank, dtype=torch.float64)
        for k, one in enumerate(given):
            if one is not None:
                small[k] = (left.T @ one[0]) @ (one[1] @ right)
        factors.left.copy_(left)
        factors.right.copy_(right)
        factors.cores.copy_(torch.einsum("jk,kab->jab", solve, small))
        errors[path] = max(
            (_error(one, left, small[k], right) for k, one in enumerate(given) if one is not None), default=0.0
        )
        largest = max(float(torch.linalg.matrix_norm(one, ord=2)) for one in small)
        if largest > linear.allowed() * (1 + 1e-6):
            over.append(path)
    directions = np.concatenate([layer.directions.directions.double().numpy() for layer in model.uses])
    theta = theta_for(np.tile(phases, (1, sizes.layers)), directions)
    found = ImportedStyles(
        styles=len(adapters), limit=limit, largest_error=max(errors.values()), errors=errors, over_budget=tuple(over)
    )
    return torch.tensor(theta, dtype=torch.float32), found


def _bases(given: list, factors: SharedFactors) -> tuple[Tensor, Tensor]:
    """Orthonormal (out, r) and (in, r) that hold the most of all changes together."""
    rank = factors.cores.shape[1]
    lefts = [one[0] @ torch.linalg.qr(one[1].T).R.T for one in given]  # dW dW^T = (B R^T)(B R^T)^T with A^T = Q R
    rights = [one[1].T @ torch.linalg.qr(one[0]).R.T for one in given]
    return _leading(lefts, factors.left.shape[0], rank), _leading(rights, factors.right.shape[0], rank)


def _leading(columns: list[Tensor], size: int, rank: int) -> Tensor:
    # the tiny identity fills the basis up where the changes have fewer directions than it has room for
    stacked = torch.cat([*columns, 1e-30 * torch.eye(size, rank, dtype=torch.float64)], dim=1)
    return torch.linalg.svd(stacked, full_matrices=False).U[:, :rank]


def _error(one, left: Tensor, small: Tensor, right: Tensor) -> float:
    change = one[0] @ one[1]
    norm = float(change.norm())
    return float((change - left @ small @ right.T).norm()) / norm if norm > 0 else 0.0


def _check(adapters: Sequence[Change], places: Mapping) -> None:
    for number, adapter in enumerate(adapters, 1):
        if not adapter:
            raise InputError(f"adapter {number} changes no matrix; allowed is at least one.")
        for path, (left, right) in adapter.items():
            if path not in places:
                raise InputError(
                    f"adapter {number} changes {path}; the model modulates q, k, v and gate of its layers alone."
                )
            base = places[path].base
            if (
                left.shape[0] != base.out_features
                or right.shape[1] != base.in_features
                or left.shape[1] != right.shape[0]
            ):
                raise InputError(
                    f"adapter {number}: {path} is {tuple(left.shape)} x {tuple(right.shape)}; the matrix is "
                    f"{base.out_features} x {base.in_features}: give an adapter that was made for this base."
                )
