"""The polar factor of a gradient: the linear minimiser over the spectral ball, up to its sign and radius."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# odd quintic iterations whose composition sends (1e-3, 1] towards 1 fastest (Polar Express, Amsel et al. 2025, eq. 9);
# the last line is the Newton-Schulz step that converges cubically once every singular value is near 1
_QUINTIC = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.875, -1.25, 0.375),
    (1.875, -1.25, 0.375),
    (1.875, -1.25, 0.375),
)
# a direction whose singular value is below this fraction of the largest is round-off, not gradient
_DROPPED = 1e-7
# ||P^T P - I||_2 on the kept directions stays below this much over lambda_min / lambda_max of the Gram matrix: its
# rounding, squared condition and all. The largest seen was 30 eps (1024 x 1024, 4096 x 512), on real moments 4 eps
_ROUNDING = 64 * 2.0**-52
# what ||P^T P - I||_2 may be in a result that leaves as float32
_TOLERANCE = 1e-7
_MOST_POLISHES = 8
# what the rounding of float32 iterations added to a singular value of 1 was at most 3.6e-7
_INSIDE = 1.0 - 2.0**-21


class Workspace:
    """Float64 buffers for one matrix after the other, so that a step allocates nothing: large blocks come as new pages.

    Each buffer is as large as the largest matrix that was asked for. One thread at a time may use a workspace.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def room(self, name: str, *shape: int) -> Tensor:
        """The buffer `name` in this shape, with whatever the last user left in it."""
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size:
            buffer = self._buffers[name] = torch.empty(size, dtype=torch.float64)
        return buffer[:size].view(shape)


@torch.no_grad()
def polar_factor(moment: Tensor, workspace: Workspace | None = None) -> Tensor:
    """U V^T of the thin SVD of `moment`, with ||result||_2 <= 1; zero and non-finite matrices give zero (MATH.md section 4).

    On a CPU through the eigenvectors of the smaller Gram matrix in float64: singular values of the result are 1 within
    1e-6 for directions above 2e-7 of the largest, 0 for those below 5e-8 of it (in between either), and never above
    1 + 1e-7. On accelerators, where symmetric eigensolvers are slow, through nine quintic matrix iterations in float32:
    1 within 1e-6 for directions above 1e-3 of the Frobenius norm, less for the rest, and never above 1 + 1e-7.

    `moment`: (m, r) float32. Returns the same shape, float32. `workspace` keeps the buffers between calls.

    >>> polar_factor(torch.tensor([[3.0, 0.0], [0.0, -2.0], [0.0, 0.0]]))
    tensor([[ 1.,  0.],
            [ 0., -1.],
            [ 0.,  0.]])
    """
    tall = moment if moment.shape[0] >= moment.shape[1] else moment.mT
    if moment.device.type == "cpu":
        result = _by_gram(tall, workspace or Workspace())
    else:
        scale = moment.abs().amax()
        result = _by_iteration(tall / scale) if torch.isfinite(scale) and scale > 0 else None
    if result is None:
        return torch.zeros_like(moment)
    # a copy in any case: the next call overwrites the buffer
    return (result if tall is moment else result.mT).to(moment.dtype, copy=True).contiguous()


def _by_gram(tall: Tensor, workspace: Workspace) -> Tensor | None:
    """The polar factor in a buffer of `workspace`, which the next call overwrites; None for zero and non-finite matrices."""
    rows, columns = tall.shape
    wide, polar = (workspace.room(name, rows, columns) for name in ("wide", "polar"))
    gram, root, vectors = (workspace.room(name, columns, columns) for name in ("gram", "root", "vectors"))
    values = workspace.room("values", columns)
    wide.copy_(tall)
    # not through NumPy's syrk, half of the work: its threads beside torch's make all of this 15 times slower on two cores
    torch.mm(wide.mT, wide, out=gram)
    # float64 holds the square of every float32, so that this sum is finite and above 0 exactly where the matrix is
    if not 0 < float(gram.trace()) < math.inf:
        return None
    torch.linalg.eigh(gram, out=(values, vectors))
    kept = values > _DROPPED**2 * values[-1]
    vectors.mul_(torch.where(kept, values, 1).pow(-0.25) * kept)
    torch.mm(vectors, vectors.mT, out=root)
    torch.mm(wide, root, out=polar)
    smallest = float(values[kept][0] / values[-1])
    return polar if smallest * _TOLERANCE >= _ROUNDING else _polish(polar, wide, gram)


def _polish(before: Tensor, after: Tensor, gram: Tensor) -> Tensor:
    """Newton-Schulz steps P <- P (3 I - P^T P) / 2 from `before` until its singular values are 0 or 1.

    Directions near the cut come out up to a tenth too long or too short, since a Gram matrix squares the condition. A
    step maps every singular value of [0, sqrt 3] into [0, 1], squares its distance from 1, and leaves dropped directions
    at 0, so that what it moved bounds what is left: an error e of P^T P moves P by e / 2 and becomes 3/4 e^2.
    `after` and `gram` are buffers.
    """
    for _ in range(_MOST_POLISHES):
        torch.mm(before.mT, before, out=gram)
        gram.mul_(-0.5).diagonal().add_(1.5)
        torch.mm(before, gram, out=after)
        moved = float(torch.dist(before, after))
        before, after = after, before
        if 3 * moved**2 <= _TOLERANCE:
            break
    return before


def _by_iteration(tall: Tensor) -> Tensor:
    current = tall / (torch.linalg.matrix_norm(tall) * 1.01)
    for first, third, fifth in _QUINTIC:
        gram = current.mT @ current
        current = first * current + current @ (third * gram + fifth * (gram @ gram))
    return current * _INSIDE
