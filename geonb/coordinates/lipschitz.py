"""How far a weight can move when its phases do: certified bounds, for reuse of cores, stored phases and caches alike.

With delta = phi(a) - phi(b), chord_i = |2 sin((a_i - b_i) / 2)| and the small cores G_j = R_u G R_v^T the change before the
budget moves by sum_j delta_j G_j, whose spectral norm is at most each of

    pairs      sum_i chord_i w_i,  w_i = min(||[A_i B_i]||_2, ||[A_i; B_i]||_2)
    stack      ||delta|| S,  S = min(||[G_1 ... G_2m]||_2, ||[G_1; ...; G_2m]||_2),  ||delta||^2 = 2m (1 - k(a, b))
    Frobenius  (delta^T Gram delta)^(1/2),  Gram_jl = <G_j, G_l>_F

(cos a - cos b, sin a - sin b) is a chord times the unit vector (-sin, cos) of the mean angle, which gives the first; delta x I
stacked has the norm of delta, which gives the second.

Beyond the budget beta a change is scaled onto its ball. Let x be the change at a, s = ||x|| / beta, and d the least of the three
in budgets. The scaled changes differ by at most d where s + d <= 1, elsewhere by 2 d / max(s, 1): for y outside the ball
|| x/||x|| - y/||y|| || <= 2 ||x - y|| / max(||x||, ||y||) (Massera and Schaffer 1958), for y inside
||x/s - y|| <= ||x - y||/s + (1 - 1/s) beta with (s - 1) beta <= ||x - y||. No two changes are more than two budgets apart.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.modulated_linear import ModulatedLinear, SharedFactors
from geonb.coordinates.phases import weights_of
from geonb.errors import InputError

# upwards by more than the rounding of the float32 cores that are multiplied, and than what the scaling onto a ball may miss it by
_MARGIN, _MISSED = 1 + 1e-5, 2e-5
HALF_STEP = math.pi / 256  # the most that a phase moves when it is rounded to 256 levels


class ChangeBounds:
    """The bounds for every modulated matrix of a model as it is now, in units of the matrix's budget.

    Raises `InputError` for literal factors, which have no small cores.
    """

    @torch.no_grad()
    def __init__(self, model: CoordinateModel) -> None:
        cores, pairs, stacks, caps = [], [], [], []
        for layer in model.uses:
            for linear in layer.changes.values():
                small, beta = small_cores(linear), linear.allowed()
                # a base of zeros allows nothing: every change is scaled to zero
                small = small * (_MARGIN / beta if beta > 0 else 0.0)
                caps.append(2.0 if beta > 0 else 0.0)
                cores.append(small)
                pairs.append(pair_norms(small))
                stacks.append(stack_norm(small))
        shape = (len(model.uses), -1)
        self.cores = torch.stack(cores).unflatten(0, shape)  # (layers, matrices, 2 pairs, r, r), over beta
        self.pairs = torch.stack(pairs).unflatten(0, shape)  # (layers, matrices, pairs)
        self.stacks = torch.stack(stacks).unflatten(0, shape)  # (layers, matrices)
        flat = self.cores.flatten(3)
        self.grams = flat @ flat.mT  # (layers, matrices, 2 pairs, 2 pairs)
        self.caps = torch.tensor(caps, dtype=torch.float64).reshape(shape)
        # no weights can bring a matrix beyond its budget
        self.free = self.stacks * math.sqrt(self.pairs.shape[-1]) <= 1

    @torch.no_grad()
    def norms(self, phases: list[Tensor]) -> Tensor:
        """s = ||dW|| / beta before the budget, (layers, matrices, slots), for phases (..., pairs) of each layer."""
        weights = weights_of(torch.stack([_flat(one) for one in phases]))
        return torch.linalg.matrix_norm(torch.einsum("lsj,lmjab->lmsab", weights, self.cores), ord=2)

    @torch.no_grad()
    def between(self, first: list[Tensor], second: list[Tensor], norms: Tensor | None = None) -> Tensor:
        """Bounds (layers, matrices) of going from phases, a (..., pairs) for each layer, to others; the worst over (...).

        `norms` are those of `first`, where they are known.
        """
        a, b = (torch.stack([_flat(one) for one in side]) for side in (first, second))  # (layers, slots, pairs)
        chords = 2 * ((a - b) / 2).sin().abs()
        delta = weights_of(a) - weights_of(b)
        squares = torch.einsum("lsj,lmjk,lsk->lms", delta, self.grams, delta).clamp_min(0)
        moved = torch.minimum(squares.sqrt(), torch.einsum("lsp,lmp->lms", chords, self.pairs))
        moved = torch.minimum(moved, delta.norm(dim=-1)[:, None] * self.stacks[..., None])
        size = self.norms(first) if norms is None else norms
        # `size` is upwards by the margin too, which the other side of the comparison has to make good
        inside = self.free[..., None] | (size + moved <= 1)
        found = torch.where(inside, moved, moved * 2 * _MARGIN**2 / size.clamp_min(1.0) + _MISSED)
        return torch.minimum(found, self.caps[..., None]).amax(dim=-1)

    def of_rounding(self, half_step: float = HALF_STEP) -> Tensor:
        """Bounds (layers, matrices) for every coordinate, its phases each off by at most `half_step` radians."""
        chord = 2 * math.sin(half_step / 2)
        moved = torch.minimum(self.pairs.sum(dim=-1), self.stacks * math.sqrt(self.pairs.shape[-1])) * chord
        return torch.minimum(torch.where(self.free, moved, 2 * moved + _MISSED), self.caps)


@torch.no_grad()
def small_cores(linear: ModulatedLinear) -> Tensor:
    """R_u G_j R_v^T (2 pairs, r, r) in float64; raises `InputError` for literal factors."""
    if not isinstance(linear.factors, SharedFactors):
        raise InputError("the model has literal factors, which have no small core; use shared factors.")
    left, right = (torch.linalg.qr(one.double()).R for one in (linear.factors.left, linear.factors.right))
    return left @ linear.factors.cores.double() @ right.T


def pair_norms(small: Tensor) -> Tensor:
    """w (pairs,) of small cores (2 pairs, r, r), those of the cosines first."""
    cosine, sine = small.chunk(2)
    wide = torch.linalg.matrix_norm(torch.cat([cosine, sine], dim=2), ord=2)
    tall = torch.linalg.matrix_norm(torch.cat([cosine, sine], dim=1), ord=2)
    return torch.minimum(wide, tall)


def stack_norm(small: Tensor) -> Tensor:
    """S of small cores (2 pairs, r, r): the smaller spectral norm of all of them side by side, or one below the other."""
    wide = torch.einsum("jab,jcb->ac", small, small)
    tall = torch.einsum("jab,jac->bc", small, small)
    return torch.minimum(*(torch.linalg.eigvalsh(one)[-1].clamp_min(0) for one in (wide, tall))).sqrt()


def _flat(phases: Tensor) -> Tensor:
    return phases.detach().double().reshape(-1, phases.shape[-1])
