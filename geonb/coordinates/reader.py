"""Reading token by token with a cache, and following the coordinate: how it surprises, how far it goes, what is reused."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from geonb.coordinates.cache import KeyValueCache
from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.phases import kernel
from geonb.coordinates.quantise import quantise_phases, restore_phases
from geonb.coordinates.reuse import Reuse
from geonb.coordinates.uncertainty import RunningContext
from geonb.errors import InputError

PHASES = ("float32", "int8")


@dataclass(slots=True)
class Reader:
    """A text that is being read; the weights follow the tokens' own coordinates, or stand still at `theta` (coordinates,).

    The coordinate that is followed is always the predicted one, so that a style, under which the weights stand still, has an
    uncertainty too. `phases` int8 rounds every phase to 256 levels before it is used; `reuse` computes a layer's cores anew only
    where its tolerance asks for it. Raises `InputError` for other phases and another theta.
    """

    model: CoordinateModel
    theta: Tensor | None = None
    phases: str = "float32"
    reuse: Reuse | None = None
    uncertainty: float = 0.0  # u of the last token read
    angle: float = 0.0  # radians on the sphere, from the coordinate before it to its own
    cache: KeyValueCache = field(init=False)
    context: RunningContext = field(default_factory=RunningContext)
    last: Tensor | None = None  # the last token's own coordinate (coordinates,)

    def __post_init__(self) -> None:
        width = self.model.sizes.coordinates
        if self.theta is not None and self.theta.shape != (width,):
            raise InputError(f"a theta of shape {tuple(self.theta.shape)} was given; allowed is ({width},).")
        if self.phases not in PHASES:
            raise InputError(f"phases {self.phases!r} were asked for; allowed are {' and '.join(PHASES)}.")
        self.cache = KeyValueCache(mode="token" if self.theta is None else "sequence")

    @property
    def tokens(self) -> int:
        """How many were read."""
        return self.cache.tokens

    @torch.no_grad()
    def read(self, tokens: list[int]) -> Tensor:
        """Read on; the logits (vocabulary,) of what follows. Raises `InputError` beyond the context or the vocabulary."""
        sizes = self.model.sizes
        if self.tokens + len(tokens) > sizes.context:
            raise InputError(
                f"{self.tokens + len(tokens)} tokens were given; the context of {sizes.name} is {sizes.context}: cut the text."
            )
        if not tokens or not 0 <= min(tokens) <= max(tokens) < sizes.vocabulary:
            raise InputError(
                f"allowed are one token or more, each from 0 to {sizes.vocabulary - 1}; given were {tokens[:8]}."
            )
        ids = torch.tensor([tokens])
        own = self.model.predict(self.model.embedding(ids), "token", self.cache)
        used = own if self.theta is None else self.theta.reshape(1, 1, -1)
        every = [layer.directions.phases(used) for layer in self.model.uses]
        if self.phases == "int8":
            every = [restore_phases(quantise_phases(one)) for one in every]
        if self.reuse is not None and len(tokens) == 1:
            every = self.reuse.phases(every)
        reading = self.model(ids, phases=every, mode=self.cache.mode, cache=self.cache)
        for one in own[0]:
            self.uncertainty = float(self.context.innovation(one[None])[0])
            self.angle = 0.0 if self.last is None else angle(self.last, one)
            self.last = one
        return reading.logits[0, -1]

    def kernel_with(self, theta: Tensor) -> float:
        """k of the last token's coordinate and another one, the mean over all layers."""
        assert self.last is not None
        both = [(layer.directions.phases(self.last), layer.directions.phases(theta)) for layer in self.model.uses]
        return float(torch.stack([kernel(one, other) for one, other in both]).mean())


def angle(first: Tensor, second: Tensor) -> float:
    """Radians between two coordinates, exact for small ones too: 2 atan2(||a - b||, ||a + b||) of unit vectors (Kahan).

    >>> round(angle(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])), 6)
    1.570796
    """
    a, b = (one.double() / one.double().norm() for one in (first, second))
    return 2 * math.atan2(float((a - b).norm()), float((a + b).norm()))
