"""`mass`: the documented controller, literally: one global rate, the gradient over all parameters, Cayley factors.

    eta_ceiling = sigma_k_min / sigma_max / sqrt(N)      N = batches per epoch (random-walk correction)
    eta_sps     = max(0, loss - f*) / ||d||^2            f* = 0
    eta_weyl    = sigma_k_min / ||d||
    eta_margin  = remaining / (||d|| sqrt(steps left))   remaining = min over layers of sigma_k - ||dW||_2
    eta_step    = min of these;  theta <- theta - eta_step d

Kept for reproduction. The ceiling is a pure number where a length^2 per loss is needed, so rescaling the loss changes
the effect of a step and not the step; measured, it binds on every step (MATH.md section 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from geonb.adapters.factors import CayleyFactors
from geonb.errors import DerivationError
from geonb.geometry.spectrum import EPS
from geonb.train.controllers.base import StepReport, TrainedMatrix, leaves


@dataclass(frozen=True, slots=True)
class MassRates:
    """The documented rates of one step; `margin` is None where no remaining budget was given."""

    ceiling: float
    sps: float
    weyl: float
    margin: float | None
    step: float

    @property
    def binding(self) -> str:
        """The name of the smallest rate."""
        named = {"ceiling": self.ceiling, "sps": self.sps, "weyl": self.weyl}
        if self.margin is not None:
            named["margin"] = self.margin
        return min(named, key=named.__getitem__)


def mass_ceiling(sigma_k_min: float, sigma_max: float, batches: int = 1) -> float:
    """eta_ceiling = sigma_k_min / sigma_max / sqrt(N).

    >>> mass_ceiling(0.1, 10.0), mass_ceiling(0.1, 10.0, 100)
    (0.01, 0.001)
    """
    if not (0 < sigma_k_min < float("inf") and 0 < sigma_max < float("inf")):
        raise DerivationError(
            f"sigma_k_min = {sigma_k_min} and sigma_max = {sigma_max} were given; MASS needs both positive and finite."
        )
    return sigma_k_min / sigma_max / max(1, batches) ** 0.5


def mass_rates(
    loss: float,
    norm: float,
    sigma_k_min: float,
    ceiling: float,
    *,
    floor: float = 0.0,
    remaining: float | None = None,
    steps_left: int = 1,
) -> MassRates:
    """All rates of one step from the loss, ||d|| and the spectral scalars; ||d|| = 0 gives the ceiling and no motion.

    >>> mass_rates(10.0, 100.0, 0.01, 1.0).step
    0.0001
    """
    if norm == 0:
        return MassRates(ceiling, ceiling, ceiling, None, ceiling)
    sps = max(0.0, loss - floor) / norm**2
    weyl = sigma_k_min / norm
    margin = None
    if remaining is not None:
        margin = max(0.0, remaining) / (norm * max(1, steps_left) ** 0.5)
    return MassRates(ceiling, sps, weyl, margin, min(ceiling, sps, weyl, *([] if margin is None else [margin])))


def back_off(ceiling: float, before: float, now: float) -> float:
    """The documented validation back-off: a rise of the loss shrinks the ceiling for good, by at least sqrt(eps).

    >>> back_off(0.01, 1.0, 2.0), back_off(0.01, 2.0, 1.0)
    (0.005, 0.01)
    """
    return ceiling if now <= before or now <= 0 else ceiling * max(before / now, EPS**0.5)


class Mass:
    """Documented MASS on `CayleyFactors`; one instance moves all matrices with one rate."""

    name = "mass"
    within_ball = False

    def __init__(self, matrices: tuple[TrainedMatrix, ...], *, horizon: int, batches_per_epoch: int = 1) -> None:
        for matrix in matrices:
            if not isinstance(matrix.factors, CayleyFactors):
                raise TypeError(f"mass moves a Cayley chart; {type(matrix.factors).__name__} has none")
        self.matrices, self.horizon = matrices, horizon
        self.sigma_k_min = min(matrix.sigma_k for matrix in matrices)
        sigma_max = max(matrix.sigma_max for matrix in matrices)
        self.ceiling = mass_ceiling(self.sigma_k_min, sigma_max, batches_per_epoch)
        self.rates: MassRates | None = None
        self._last_validation: float | None = None

    def _remaining(self) -> float:
        return min(matrix.sigma_k - matrix.factors.product_norm() for matrix in self.matrices)

    @torch.no_grad()
    def step(self, loss: float, step: int) -> StepReport:
        """theta <- theta - eta_step d with one eta for everything, then S back into [0, b]."""
        parameters = leaves(self.matrices)
        gradients = {name: leaf.grad for name, leaf in parameters.items() if leaf.grad is not None}
        norm = sum(float(gradient.double().square().sum()) for gradient in gradients.values()) ** 0.5
        self.rates = mass_rates(
            loss,
            norm,
            self.sigma_k_min,
            self.ceiling,
            remaining=self._remaining(),
            steps_left=self.horizon - step,
        )
        for name, gradient in gradients.items():
            parameters[name].add_(gradient, alpha=-self.rates.step)
        for matrix in self.matrices:
            matrix.factors.clip()  # type: ignore[operator]
        # the trace has three bounds; the margin is Weyl's bound again, held against what is left of it
        weyl = self.rates.weyl if self.rates.margin is None else min(self.rates.weyl, self.rates.margin)
        count = len(self.matrices)
        # rate x ||d||: the length of the step in parameter space, which the documents hold against sigma_k
        return StepReport(
            eta_ceiling=(self.rates.ceiling * norm,) * count,
            eta_sps=(self.rates.sps * norm,) * count,
            eta_weyl=(weyl * norm,) * count,
            eta_step=(self.rates.step * norm,) * count,
            gap=norm,
            gradient_norm=norm,
            unit="length of the step in parameter space",
        )

    def direction(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Minus the gradient."""
        return {name: -gradient for name, gradient in gradients.items()}

    def observe_validation(self, loss: float) -> None:
        """Shrink the ceiling when the validation loss rose."""
        if self._last_validation is not None:
            self.ceiling = back_off(self.ceiling, self._last_validation, loss)
        self._last_validation = loss

    def state(self) -> dict[str, Tensor]:
        last = float("nan") if self._last_validation is None else self._last_validation
        return {"ceiling": torch.tensor([self.ceiling, last], dtype=torch.float64)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        ceiling, last = state["ceiling"].tolist()
        self.ceiling, self._last_validation = ceiling, None if last != last else last
