"""One linear map whose change is a weighted sum of small cores between shared factors: LoRA, mixtures of them, coordinates.

    y = W x + U M (V^T x),   M = sum_j w_j G_j in R^{r x r}

With one core and weight 1 it is a LoRA (B = U G, A = V^T), with weights of a softmax a mixture of LoRAs, with
w = (cos C theta, sin C theta) the published W_eff(theta) = W + sum_i cos(c_i theta) U_i V_i^T + sin(c_i theta) P_i Q_i^T with
U_i = U G_i, V_i = Q_i = V, P_i = U G_(m+i). The literal form with factors of their own for every i is `IndependentFactors`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from geonb.coordinates.known import Known
from geonb.coordinates.spectral_budget import MARGIN, scale_within


class SharedFactors(nn.Module):
    """U (out, r), V (in, r) and the cores G (weights, r, r); G starts at zero, so the change is zero at step 0."""

    def __init__(self, inputs: int, outputs: int, weights: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.left = nn.Parameter(_orthonormal(outputs, rank, generator))
        self.right = nn.Parameter(_orthonormal(inputs, rank, generator))
        self.cores = nn.Parameter(torch.zeros(weights, rank, rank))

    def core(self, weights: Tensor) -> Tensor:
        """M(w): (..., weights) -> (..., r, r)."""
        count, rank, _ = self.cores.shape
        return (weights @ self.cores.reshape(count, -1)).unflatten(-1, (rank, rank))

    def triangles(self) -> tuple[Tensor, Tensor]:
        """R_u and R_v (r, r) of U = Q_u R_u and V = Q_v R_v: U M V^T has the singular values of R_u M R_v^T."""
        return torch.linalg.qr(self.left).R, torch.linalg.qr(self.right).R

    def small(self, core: Tensor) -> Tensor:
        """R_u M R_v^T: (..., r, r) of the same singular values as U M V^T."""
        left, right = self.triangles()
        return left @ core @ right.mT

    def change(self, x: Tensor, core: Tensor) -> Tensor:
        """U M V^T x; `core` is (batch, 1 or tokens, r, r)."""
        inner = x @ self.right
        # one core for all tokens: one product instead of one a token
        inner = inner @ core[:, 0].mT if core.shape[1] == 1 else (core @ inner.unsqueeze(-1)).squeeze(-1)
        return inner @ self.left.T

    def dense(self, weights: Tensor) -> Tensor:
        """dW for weights (...,): (..., out, in); for tests, export and small models."""
        return self.left @ self.core(weights) @ self.right.T


class IndependentFactors(nn.Module):
    """U_j (out, r) and V_j (in, r) for every weight: the published form, exact without ever forming a weight matrix."""

    def __init__(self, inputs: int, outputs: int, weights: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.rank = rank
        self.left = nn.Parameter(torch.zeros(outputs, weights * rank))
        self.right = nn.Parameter(torch.randn(inputs, weights * rank, generator=generator) / inputs**0.5)

    def change(self, x: Tensor, weights: Tensor) -> Tensor:
        """U_cat (w repeated r times x V_cat^T x); `weights` is (batch, 1 or tokens, weights)."""
        spread = weights.repeat_interleave(self.rank, dim=-1)
        return (spread * (x @ self.right)) @ self.left.T

    def dense(self, weights: Tensor) -> Tensor:
        """dW for weights (...,): (..., out, in)."""
        spread = weights.repeat_interleave(self.rank, dim=-1)
        return (self.left * spread.unsqueeze(-2)) @ self.right.T


class ModulatedLinear(nn.Module):
    """y = W x + dW(w) x with ||dW(w)||_2 <= budget ||W||_2 for every w.

    The bound is kept at run time: M is scaled by min(1, beta/||U M V^T||_2), exactly, through the r x r core. A
    cheap bound for all w (`certified_bound`) says when no scaling can be needed, and one for each w (a Schatten norm) which of
    them need the exact norm. Literal factors have no small core: theirs is bounded by norms of the stacked factors.
    """

    base: nn.Linear
    factors: SharedFactors | IndependentFactors

    def __init__(
        self,
        base: nn.Linear,
        weights: int,
        rank: int,
        *,
        budget: float,
        factors: str = "shared",
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.base = base
        kind = SharedFactors if factors == "shared" else IndependentFactors
        self.factors = kind(base.in_features, base.out_features, weights, rank, generator)
        self.budget = budget
        self._known = Known()

    def forward(self, x: Tensor, weights: Tensor | None, slots: Tensor | None = None) -> Tensor:
        """(batch, tokens, in) -> (batch, tokens, out) under weights (batch, slots, count); `slots` (batch, tokens) says which.

        Without `slots` there is one slot for the sequence, or one a token; without `weights` the change is left out.
        """
        y = self.base(x)
        if weights is None:
            return y
        if isinstance(self.factors, IndependentFactors):
            return y + self.factors.change(x, placed(weights * self._static_scale(), slots))
        core = self.bounded_core(weights)
        return y + self.factors.change(x, placed(core, slots))

    def bounded_core(self, weights: Tensor) -> Tensor:
        """M(w) within the budget: (..., count) -> (..., r, r)."""
        assert isinstance(self.factors, SharedFactors)
        with torch.autocast(weights.device.type, enabled=False):  # what is bounded is not rounded
            core = self.factors.core(weights)
            if self.always_within():
                return core
            with torch.no_grad():
                left, right = self._known.once(
                    "triangles", (self.factors.left, self.factors.right), self.factors.triangles
                )
                scale = scale_within(left @ core @ right.mT, self.allowed())
            return core * scale[..., None, None].to(core.dtype)

    def always_within(self) -> bool:
        """Whether the certified bound says that no weights reach the budget, so that nothing need be looked at."""
        return self.certified_bound() <= self.allowed() * (1 - MARGIN)

    def own_tensors(self) -> tuple[Tensor, ...]:
        """What the base's matrix is made of: the weight itself, or the buffers that it is computed from."""
        weight = self.base.weight
        return (weight,) if isinstance(weight, nn.Parameter) else (*self.base.parameters(), *self.base.buffers())

    def allowed(self) -> float:
        """beta = budget x ||W||_2."""
        return self.budget * self.base_values()[0]

    def base_values(self) -> list[float]:
        """The singular values of W, the largest first, by the smaller Gram matrix in float64."""
        return self._known.once("base values", self.own_tensors(), self._base_values)

    def certified_bound(self) -> float:
        """An upper bound of ||dW(w)||_2 over all w of norm sqrt(count / 2), which trigonometric weights have.

        sqrt(m) min(||[M_1 ... M_2m]||_2, ||[M_1; ...; M_2m]||_2) of the small cores; for literal factors the product
        ||U_cat||_2 ||V_cat||_2, whose weights are at most 1.
        """
        return self._known.once("bound", tuple(self.factors.parameters()), self._certified_bound)

    @torch.no_grad()
    def _base_values(self) -> list[float]:
        weight = self.base.weight.double()
        gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
        return torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().flip(0).tolist()

    @torch.no_grad()
    def _certified_bound(self) -> float:
        if isinstance(self.factors, IndependentFactors):
            left, right = self.factors.left.float(), self.factors.right.float()
            return float(torch.linalg.matrix_norm(left, ord=2) * torch.linalg.matrix_norm(right, ord=2))
        small = self.factors.small(self.factors.cores).float()
        wide = torch.einsum("jab,jcb->ac", small, small)
        tall = torch.einsum("jab,jac->bc", small, small)
        least = min(float(torch.linalg.eigvalsh(gram)[-1].clamp_min(0)) for gram in (wide, tall))
        # the Gram's rounding, upwards
        return (least * (len(small) / 2)) ** 0.5 * (1 + 1e-5)

    def _static_scale(self) -> float:
        bound = self.certified_bound()
        return min(1.0, self.allowed() / bound) if bound > 0 else 1.0

    def dense_change(self, weights: Tensor) -> Tensor:
        """dW(w) as the forward pass applies it: (..., count) -> (..., out, in)."""
        if isinstance(self.factors, IndependentFactors):
            return self.factors.dense(weights) * self._static_scale()
        return self.factors.left @ self.bounded_core(weights) @ self.factors.right.T


def constant_weights(batch: int, device: torch.device | None = None) -> Tensor:
    """The weights of a plain LoRA: one core, weight 1."""
    return torch.ones(batch, 1, 1, device=device)


def soft_weights(scores: Tensor) -> Tensor:
    """The weights of a mixture of LoRAs: softmax over cores of scores (batch, slots, count)."""
    return functional.softmax(scores, dim=-1)


def placed(values: Tensor, slots: Tensor | None) -> Tensor:
    """The values of each token's slot; a sequence's one slot, or one a token, needs no copy."""
    if slots is None:
        return values
    index = slots.reshape(*slots.shape, *(1,) * (values.dim() - 2)).expand(*slots.shape, *values.shape[2:])
    return values.gather(1, index)


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(rows, columns, generator=generator)).Q.contiguous()
