"""Keys and values of tokens that were read, with what they depend on: a cache refuses to be used where it is not valid.

Keys and values are made by modulated matrices, so they depend on theta at every position and layer below. With a theta that
belongs to its token (mode `token`, `segment`) they stay valid whatever comes after. Under one theta for the whole sequence they
are worth nothing as soon as C theta changes modulo 2 pi: the cache then carries the theta's phases, and raises. Two policies say
otherwise, by name: `Reuse` goes on within a certified error, and 8-bit phases are their own fingerprint, 64 bytes a layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from geonb.errors import InputError

if TYPE_CHECKING:
    from geonb.coordinates.reuse import Reuse

# float32 rounds phases of some hundred radians, as long as theta and its directions can make them, by less than this
_SAME = 1e-4


@dataclass(slots=True)
class KeyValueCache:
    """What a model keeps between calls; `tokens` positions are in it.

    With a `policy`, mode `sequence` goes on under another theta as long as every matrix is certified to be within the policy's
    tolerance of the one under which the first tokens were read; without one, never.
    """

    mode: str
    keys: list[Tensor] = field(default_factory=list)  # per layer (batch, kv heads, tokens, head width)
    values: list[Tensor] = field(default_factory=list)
    tokens: int = 0
    total: Tensor | None = None  # the sum of embeddings, for the running mean
    fingerprint: Tensor | None = None  # 8-bit phases of every layer, mode `sequence` alone
    phases: list[Tensor] = field(default_factory=list)  # those of the first tokens, unrounded, mode `sequence` alone
    policy: Reuse | None = None

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of `layer`, the new ones behind the old."""
        if layer < len(self.keys):
            keys = torch.cat([self.keys[layer], keys], dim=2)
            values = torch.cat([self.values[layer], values], dim=2)
            self.keys[layer], self.values[layer] = keys, values
        else:
            self.keys.append(keys)
            self.values.append(values)
        return keys, values

    def check(self, mode: str, phases: list[Tensor] | None) -> None:
        """Raise `InputError` where what is in here was made in another mode or, in mode `sequence`, under another theta."""
        if mode != self.mode:
            raise InputError(f"the cache was filled in mode {self.mode} and used in mode {mode}; read the text again.")
        if mode != "sequence" or phases is None:
            return
        if not self.tokens or not self.phases:
            self.phases, self.fingerprint = [one.detach() for one in phases], fingerprint(phases)
            return
        off = torch.stack([_wrapped(one - held).abs() for one, held in zip(phases, self.phases, strict=True)])
        if float(off.max()) <= _SAME:
            return
        told = "in mode sequence nothing of it is valid"
        if self.policy is not None:
            error = self.policy.error(self.phases, phases)
            if error <= self.policy.tolerance:
                self.policy.largest = max(self.policy.largest, error)
                return
            told = f"weights may differ by {error:.3g} of the budget, allowed is {self.policy.tolerance:g}"
        changed = int((off > _SAME).sum())
        raise InputError(
            f"the cache holds {self.tokens} tokens under another coordinate ({changed} of {off.numel()} phases moved): "
            f"{told}; read the text again under the new one."
        )

    def values_per_token(self) -> int:
        """Numbers kept for each token, all layers together."""
        return sum(keys.shape[1] * keys.shape[3] * 2 for keys in self.keys)


def fingerprint(phases: list[Tensor]) -> Tensor:
    """The phases modulo 2 pi in 8 bits (steps of 0.0245 rad): (batch, layers, pairs) as uint8."""
    stacked = torch.stack([one.detach().float().reshape(one.shape[0], -1) for one in phases], dim=1)
    return ((stacked / (2 * math.pi) * 256).round() % 256).to(torch.uint8)


def _wrapped(angles: Tensor) -> Tensor:
    return (angles + math.pi) % (2 * math.pi) - math.pi
