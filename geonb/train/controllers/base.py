"""What every controller offers to the loop, so that the loop knows none of them by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from geonb.adapters.factors import Factors


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedMatrix:
    """One targeted matrix as a controller sees it: its factors and the two scalars that bound them."""

    name: str
    factors: Factors
    budget: float  # R
    sigma_k: float
    sigma_max: float
    gap_boundary: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What a controller did: the bounds and the step of each matrix, as spectral norms of its weight change."""

    eta_ceiling: tuple[float, ...]
    eta_sps: tuple[float, ...]
    eta_weyl: tuple[float, ...]
    eta_step: tuple[float, ...]
    gap: float | None  # stationarity measure: duality gap, or the Riemannian gradient norm
    gradient_norm: float
    unit: str = "spectral norm of the weight change"

    def binding(self) -> tuple[str, ...]:
        """The name of the smallest bound of each matrix; where two are equal the first of ceiling, sps, weyl."""
        names = ("ceiling", "sps", "weyl")
        return tuple(
            names[min(range(3), key=lambda index: bounds[index])]
            for bounds in zip(self.eta_ceiling, self.eta_sps, self.eta_weyl, strict=True)
        )


class Controller(Protocol):
    """A rule that moves the factors once a gradient is there; deterministic, and resumable from its tensors.

    A controller keeps every promise it makes about ||dW||_2 after each `step`, reads gradients from `.grad` of the
    leaves that `Factors.trained()` names, and leaves clearing them to the loop.
    """

    name: str
    within_ball: bool  # whether `direction` leads to a point that is allowed, so that no step is longer than 1

    def step(self, loss: float, step: int) -> StepReport:
        """Make update number `step` (0..T-1) given the batch's mean loss in nats."""
        ...

    def direction(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Where this controller would go from here on `gradients` ("matrix name/leaf"), for the certificate."""
        ...

    def observe_validation(self, loss: float) -> None:
        """Take note of a validation loss; most controllers need none."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Every tensor that a resumed run needs beyond the factors themselves."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up the state that `state` returned."""
        ...


def leaves(matrices: tuple[TrainedMatrix, ...]) -> dict[str, torch.nn.Parameter]:
    """All trained leaves by their full name "matrix name/leaf", in the plan's order."""
    return {
        f"{matrix.name}/{leaf}": parameter
        for matrix in matrices
        for leaf, parameter in matrix.factors.trained().items()
    }
