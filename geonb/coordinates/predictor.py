"""From a prefix to its coordinate: theta_t = sqrt(d) f(h_t)/||f(h_t)||, h_t the mean embedding of the tokens up to t.

Causal by construction: theta_t sees tokens <= t, so an answer's coordinate never depends on what comes after it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class Predictor(nn.Module):
    """f: (..., width) -> (..., coordinates), two residual layers of `hidden` units; 255,184 parameters at 448, 144, 1024."""

    def __init__(self, width: int, hidden: int, coordinates: int, generator: torch.Generator) -> None:
        super().__init__()
        self.enter = nn.Linear(width, hidden)
        layers = [nn.Linear(hidden, hidden) for _ in range(2)]
        self.residual = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(hidden)
        self.leave = nn.Linear(hidden, coordinates)
        for layer in (self.enter, *layers, self.leave):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, state: Tensor) -> Tensor:
        """theta of norm sqrt(coordinates) for each state."""
        return on_sphere(self.leave(self.units(state)))

    def units(self, state: Tensor) -> Tensor:
        """The last hidden units h: (..., hidden), of which theta is W h + b brought to its length."""
        # an embedding's size says how common its token is, not what the text is about
        hidden = self.enter(functional.normalize(state, dim=-1) * math.sqrt(state.shape[-1]))
        for layer in self.residual:
            hidden = hidden + functional.gelu(layer(hidden))
        return self.norm(hidden)

    def folded(self, directions: Tensor) -> tuple[Tensor, Tensor]:
        """C W and C b of directions C (phases, coordinates): the phases C theta from `units`, without a product of C's size."""
        wide = directions.double()
        return (wide @ self.leave.weight.double()).float(), (wide @ self.leave.bias.double()).float()


def on_sphere(values: Tensor) -> Tensor:
    """`values` scaled to norm sqrt(d); a zero stays zero."""
    return functional.normalize(values, dim=-1, eps=1e-20) * math.sqrt(values.shape[-1])


def running_mean(values: Tensor, total: Tensor | None = None, count: int = 0) -> tuple[Tensor, Tensor]:
    """The mean of (batch, tokens, width) over all tokens so far, and the new total; `total`, `count` of what came before."""
    sums = values.cumsum(dim=1)
    if total is not None:
        sums = sums + total.unsqueeze(1)
    counts = torch.arange(1, values.shape[1] + 1, device=values.device, dtype=values.dtype) + count
    return sums / counts[None, :, None], sums[:, -1]
