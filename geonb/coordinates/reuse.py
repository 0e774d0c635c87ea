"""Reuse within a tolerance, off unless asked for: a coordinate that hardly moved, and a cache under a new style.

The tolerance is in units of the budget: at 0.1 no matrix in use is further than a tenth of its beta = rho ||W||_2, in spectral
norm, from the one that its own coordinate has. It is kept against the coordinate that was computed exactly, so that errors do not
add up from one reuse to the next. A cache under a new style saves reading the text again. From token to token it saves nothing
where all layers' cores are computed at once (preset B on one core: 1.4 times the time a token); it shows how much the coordinate
matters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from geonb.coordinates.lipschitz import ChangeBounds
from geonb.coordinates.model import CoordinateModel
from geonb.errors import InputError


@dataclass(slots=True)
class Reuse:
    """A policy with its bounds and what it did; `asked` and `reused` count layers of tokens.

    Raises `InputError` for a tolerance that is not above 0 and at most 1.
    """

    bounds: ChangeBounds
    tolerance: float
    asked: int = 0
    reused: int = 0
    largest: float = 0.0  # the largest certified error that was accepted, in budgets
    held: list[Tensor] = field(default_factory=list)  # phases whose cores were computed last, a layer each
    norms: Tensor | None = None  # of the changes at `held`, in budgets

    def __post_init__(self) -> None:
        if not 0 < self.tolerance <= 1:
            raise InputError(
                f"a tolerance of {self.tolerance} was given; allowed is a share of the budget above 0 and at most 1."
            )

    @classmethod
    def of(cls, model: CoordinateModel, tolerance: float) -> Reuse:
        """The policy for a model as it is now."""
        return cls(ChangeBounds(model), tolerance)

    def error(self, held: list[Tensor], phases: list[Tensor]) -> float:
        """The certified error of using `held` for `phases`, of the worst matrix, in budgets."""
        return float(self.bounds.between(held, phases).max())

    def phases(self, phases: list[Tensor]) -> list[Tensor]:
        """What to use instead: layer by layer the phases held where all of its matrices are within the tolerance."""
        if not self.held or self.held[0].shape != phases[0].shape:
            self.held, self.norms = list(phases), self.bounds.norms(phases)
            self.asked += len(phases)
            return list(phases)
        worst = self.bounds.between(self.held, phases, self.norms).amax(dim=1).tolist()
        fresh = [error > self.tolerance for error in worst]
        for layer, error in enumerate(worst):
            self.asked += 1
            if error <= self.tolerance:
                self.reused += 1
                self.largest = max(self.largest, error)
            else:
                self.held[layer] = phases[layer]
        if any(fresh) and self.norms is not None:
            self.norms = torch.where(torch.tensor(fresh)[:, None, None], self.bounds.norms(phases), self.norms)
        return list(self.held)

    @property
    def share(self) -> float:
        """How often a layer's cores were reused."""
        return self.reused / self.asked if self.asked else 0.0


@contextmanager
def remembered_cores(model: CoordinateModel) -> Iterator[None]:
    """Inside the block a matrix asked for the core of the same weights as the last time hands that core out again.

    For one coordinate for all tokens: preset B then takes 0.8 of the time a token on one core.
    """
    linears = [linear for layer in model.uses for linear in layer.changes.values()]
    for linear in linears:
        setattr(linear, "bounded_core", _remembering(linear.bounded_core))  # noqa: B010 - of this one object
    try:
        yield
    finally:
        for linear in linears:
            delattr(linear, "bounded_core")


def _remembering(compute):
    last: list[tuple[Tensor, Tensor]] = []

    def core(weights: Tensor) -> Tensor:
        # the core of a whole prompt is large and never asked for again
        if weights.numel() != weights.shape[-1]:
            return compute(weights)
        if not last or last[0][0].shape != weights.shape or not torch.equal(last[0][0], weights):
            last[:] = [(weights, compute(weights))]
        return last[0][1]

    return core
