"""How far a token's coordinate is from what came before: the innovation against a running context.

    ctx_t = c_t / (1 - 0.95^t),  c_t = 0.95 c_(t-1) + 0.05 theta_t      (free of bias: a constant theta has ctx = theta at once)
    u_t   = var_j(theta_t - ctx_(t-1)),  u_1 = 0

The published form starts c at zero and uses it as it is: there u of a constant theta is 0.95^(2n) var(theta), a clock that falls
below its threshold 0.5 at the seventh token whatever the text says.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DECAY = 0.95  # half-life 13.5 tokens, 39 effective samples
THRESHOLD = 0.5


@dataclass(slots=True)
class RunningContext:
    """The bias-free running mean of a text's coordinates, a row of the batch by itself."""

    decay: float = DECAY
    total: Tensor | None = None
    count: int = 0

    def value(self) -> Tensor | None:
        """ctx_t (batch, coordinates); None before the first token."""
        return None if self.total is None else self.total / (1 - self.decay**self.count)

    def innovation(self, theta: Tensor) -> Tensor:
        """u (batch,) of the next coordinate (batch, coordinates), which is then taken in."""
        before = self.value()
        found = torch.zeros(len(theta)) if before is None else (theta - before).var(dim=-1, correction=0)
        part = (1 - self.decay) * theta
        self.total = part if self.total is None else self.decay * self.total + part
        self.count += 1
        return found


def innovations(theta: Tensor, *, decay: float = DECAY) -> Tensor:
    """u of every token: (batch, tokens, coordinates) -> (batch, tokens)."""
    context = RunningContext(decay)
    return torch.stack([context.innovation(one) for one in theta.unbind(dim=1)], dim=1)


def calibrated(values: Tensor, *, share: float = 0.25) -> float:
    """The threshold that a `share` of held-out tokens lies above: the published 0.5 says nothing of another model.

    >>> calibrated(torch.arange(101.0), share=0.25)
    75.0
    """
    return float(torch.quantile(values.flatten().float(), 1 - share))
