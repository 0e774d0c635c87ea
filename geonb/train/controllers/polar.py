"""The polar factor of a gradient: the linear minimiser over the spectral ball, up to its sign and radius."""

from __future__ import annotations

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


class Workspace:
    """The float64 buffers of one shape, so that a step allocates nothing: large blocks come as new pages each time.

    One thread at a time may use one.
    """

    def __init__(self, rows: int, columns: int) -> None:
        def room(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=torch.float64)

        self.wide, self.polar = room(rows, columns), room(rows, columns)
        self.gram, self.root, self.vectors = (room(columns, columns) for _ in range(3))
        self.values = room(columns)


@torch.no_grad()
def polar_factor(moment: Tensor, workspaces: dict[tuple[int, int], Workspace] | None = None) -> Tensor:
    """U V^T of the thin SVD of `moment`, with ||result||_2 <= 1; the zero matrix gives zero (MATH.md section 4).

    On a CPU through the eigenvectors of the smaller Gram matrix in float64 (error 1e-8 above 1e-7 of the largest
    singular value; directions below are dropped); on accelerators, where symmetric eigensolvers are slow, through nine
    quintic matrix iterations in float32.

    `moment`: (m, r) float32. Returns the same shape, float32. `workspaces` keeps the buffers of each shape between calls.
    """
    scale = moment.abs().amax()
    if not torch.isfinite(scale) or scale == 0:
        return torch.zeros_like(moment)
    tall = moment if moment.shape[0] >= moment.shape[1] else moment.mT
    if moment.device.type == "cpu":
        shape = (int(tall.shape[0]), int(tall.shape[1]))
        kept = {} if workspaces is None else workspaces
        if shape not in kept:
            kept[shape] = Workspace(*shape)
        result = _by_gram(tall, float(scale), kept[shape])
    else:
        result = _by_iteration(tall / scale)
    # a copy in any case: the next call overwrites the buffer
    return (result if tall is moment else result.mT).to(moment.dtype, copy=True).contiguous()


def _by_gram(tall: Tensor, scale: float, room: Workspace) -> Tensor:
    """The polar factor in `room.wide`, which the next call overwrites."""
    room.wide.copy_(tall).div_(scale)
    torch.mm(room.wide.mT, room.wide, out=room.gram)
    torch.linalg.eigh(room.gram, out=(room.values, room.vectors))
    kept = room.values > _DROPPED**2 * room.values[-1]
    inverse = torch.where(kept, room.values, 1).rsqrt() * kept
    torch.mm(room.vectors * inverse, room.vectors.mT, out=room.root)
    torch.mm(room.wide, room.root, out=room.polar)
    # directions near the cut come out up to 1 % too long (Gram squares the condition); one Newton-Schulz step, P (3 I -
    # P^T P) / 2, maps every singular value of [0, sqrt 3] into [0, 1] and squares the error, so ||result||_2 <= 1 holds
    torch.mm(room.polar.mT, room.polar, out=room.gram)
    room.gram.mul_(-0.5).diagonal().add_(1.5)
    return torch.mm(room.polar, room.gram, out=room.wide)


def _by_iteration(tall: Tensor) -> Tensor:
    current = tall / (torch.linalg.matrix_norm(tall) * 1.01)
    for first, third, fifth in _QUINTIC:
        gram = current.mT @ current
        current = first * current + current @ (third * gram + fifth * (gram @ gram))
    return current
