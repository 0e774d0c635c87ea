"""Spectral norms of very many small matrices, fast and certified: what keeps every token's change inside its budget.

A singular value decomposition of each 12 x 12 core costs more than the layer that it belongs to. Instead, with G = M^T M,
P = G^p by repeated squaring, a unit vector v close to its leading eigenvector, rho = v^T P v and s = ||P v - rho v||: in the
basis of v and its complement P = [[rho, s^T], [s, H]] with ||H||_2 <= h = sqrt(||P||_F^2 - rho^2 - 2 s^2), so that where rho > h

    rho <= lambda_1(P) <= rho + s^2 / (rho - h),   ||M||_2 = lambda_1(P)^(1 / 2p)

from the Schur complement. The gap is quadratic in s and is divided by 2p: a few products decide the norm to 2e-6. Matrices whose
two leading singular values nearly agree go on to a higher p, and the last of them to a decomposition.
"""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = 2e-6  # relative, of a norm: upwards alone
# inside by more than the rounding of float32: 3.8e-6
MARGIN = 2.0**-18
_SQUARINGS, _ROUNDS = 3, 4  # p = 8, 16, 32, 64
_TURNS = 2  # products with P before the vector is used


@torch.no_grad()
def scale_within(matrices: Tensor, beta: Tensor | float) -> Tensor:
    """min(1, beta / ||M||_2) of matrices (..., r, r), beta as broadcasts with (...): never too large, at most 6e-6 too small.

    >>> scale_within(torch.diag(torch.tensor([3.0, 1.0])), 6.0)
    tensor(1.)
    """
    flat = matrices.detach().reshape(-1, *matrices.shape[-2:]).float()
    shape = matrices.shape[:-2]
    limits = torch.as_tensor(beta, dtype=torch.float32, device=flat.device).expand(shape).reshape(-1) * (1 - MARGIN)
    scale = torch.ones_like(limits)
    # ||M||_2 <= ||M||_F: most tokens need no more
    suspects = torch.nonzero(torch.linalg.vector_norm(flat.flatten(1), dim=1) > limits).flatten()
    if len(suspects):
        every = len(suspects) == len(flat)
        picked, allowed = (flat, limits) if every else (flat[suspects], limits[suspects])
        scale[suspects] = (allowed / spectral_norms(picked, allowed)).clamp_max(1.0)
    return scale.reshape(shape)


@torch.no_grad()
def spectral_norms(matrices: Tensor, enough: Tensor | None = None) -> Tensor:
    """||M||_2 of float32 matrices (count, r, r), from above, to `TOLERANCE`; of one below its `enough` any bound below that."""
    size = torch.linalg.vector_norm(matrices.flatten(1), dim=1)
    found = size.clone()
    left = torch.nonzero(size > 0).flatten()
    given = matrices if len(left) == len(size) else matrices[left]
    # in place: the memory of large temporaries costs as much as the products
    power = (given.mT @ given).div_(size[left].square()[:, None, None])
    logs, exponent = torch.zeros(len(left), dtype=torch.float64, device=size.device), 1
    for round_number in range(_ROUNDS):
        for _ in range(_SQUARINGS if round_number == 0 else 1):
            power = power @ power
            logs, exponent = 2 * logs, 2 * exponent
        # a trace of 1 is at least 12^-7 after three squarings: far from the smallest float32
        trace = power.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
        power.div_(trace[:, None, None])
        logs = logs + trace.double().log()
        top, certified = _leading(power, 2 * exponent * TOLERANCE)
        if enough is not None:
            # the trace of P, 1 here, is at least its norm
            bound = size[left] * (logs / (2 * exponent)).exp().float()
            few = bound <= enough[left]
            top, certified = torch.where(few, 1.0, top), certified | few
        norms = size[left] * ((logs + top.double().log()) / (2 * exponent)).exp().float()
        found[left[certified]] = norms[certified]
        rest = ~certified
        if not bool(rest.any()):
            return found
        left, power, logs = left[rest], power[rest], logs[rest]
    # in float64: where two values nearly agree, the float32 decomposition was seen to be 4e-6 too small
    found[left] = torch.linalg.matrix_norm(matrices[left].double(), ord=2).float()
    return found


def _leading(power: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """An upper bound of lambda_1(P), and whether it is within `tolerance` of it, relative."""
    # any vector will do that is not orthogonal to the leading one; if it is, nothing is certified
    places = torch.arange(power.shape[1], device=power.device, dtype=power.dtype)
    vector = (power @ (1 + places.square().cos() / 2)).unsqueeze(-1)
    for _ in range(_TURNS):
        vector = power @ vector
    vector = vector / torch.linalg.vector_norm(vector, dim=1, keepdim=True)
    image = power @ vector
    rho = (vector * image).sum(dim=(1, 2))
    residual = (image - rho[:, None, None] * vector).square().sum(dim=(1, 2))
    # upwards by the rounding of the difference
    others = (torch.linalg.vector_norm(power.flatten(1), dim=1).square() - rho.square() - 2 * residual).clamp_min(
        0
    ) + 1e-6 * rho.square()
    gap = rho - others.sqrt()
    excess = residual / gap.clamp_min(1e-30)
    return rho + excess, (gap > 0.05 * rho) & (excess <= tolerance * rho)
