"""int8 weights by output row, and 8-bit phases: preset B of 20 MB instead of 40, a coordinate of 64 bytes a layer.

A weight row is rounded to absmax/127: about 0.74 % of its Frobenius norm for Gaussian entries. Embedding, predictor, factors and
cores keep their 32 bits, 3.3 of preset B's 10 million. A phase is rounded modulo 2 pi to steps of 2 pi/256: off by at most
pi/256 = 0.0123 rad, and dW by what `ChangeBounds.of_rounding` certifies.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from geonb.coordinates.model import CoordinateModel


def quantise_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(int8 codes, scale a row) of a matrix; a row of zeros keeps scale 0."""
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    codes = (weight / scale.clamp_min(1e-30)).round().clamp(-127, 127).to(torch.int8)
    return codes, scale


class QuantisedLinear(nn.Module):
    """A linear map whose weight is stored in int8 and multiplied in the type of its input."""

    codes: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        codes, scale = quantise_rows(linear.weight.detach())
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)
        self.in_features, self.out_features = linear.in_features, linear.out_features

    @property
    def weight(self) -> Tensor:
        """The weight that is multiplied with."""
        return self.codes.to(self.scale.dtype) * self.scale

    def forward(self, x: Tensor) -> Tensor:
        # the scale of a row goes onto the small output instead of the matrix
        return nn.functional.linear(x, self.codes.to(x.dtype)) * self.scale.flatten()


@torch.no_grad()
def quantise_weights(model: CoordinateModel) -> dict[str, float]:
    """Round the matrices of the blocks and the output in place; the relative Frobenius error of each.

    Norms, directions, cores, factors and the embedding stay: small, or read by row. The model can no longer be trained.
    """
    errors = {}
    for place, block in enumerate(model.blocks):
        for name, linear in list(block.named_children()):
            if isinstance(linear, nn.Linear):
                made = QuantisedLinear(linear)
                errors[f"blocks.{place}.{name}"] = _relative(linear.weight, made.weight)
                setattr(block, name, made)
    for layer in model.uses:
        for name, change in layer.changes.items():
            object.__setattr__(change, "base", getattr(layer.block, name))
            change._known.clear()
    if isinstance(model.output, nn.Linear):
        made = QuantisedLinear(model.output)
        errors["output"] = _relative(model.output.weight, made.weight)
        model.output = made
    return errors


def quantise_phases(phases: Tensor) -> Tensor:
    """8-bit codes of phases modulo 2 pi."""
    return ((phases / (2 * math.pi) * 256).round() % 256).to(torch.uint8)


def restore_phases(codes: Tensor) -> Tensor:
    """The phases of 8-bit codes, in [0, 2 pi).

    >>> restore_phases(quantise_phases(torch.tensor([0.0]))).item()
    0.0
    """
    return codes.float() * (2 * math.pi / 256)


def stored_bytes(model: CoordinateModel) -> int:
    """What parameters and buffers take, in bytes."""
    return sum(one.numel() * one.element_size() for one in (*model.parameters(), *model.buffers()))


def _relative(weight: Tensor, rounded: Tensor) -> float:
    norm = float(weight.norm())
    return float((weight - rounded).norm()) / norm if norm > 0 else 0.0
