"""`frank-wolfe`: conditional gradient on the spectral ball of each trained factor (MATH.md section 4), the default.

    m_t   = beta m_{t-1} + (1 - beta) g_t,  beta = 1 - 1/sqrt(T)
    u_t   = polar(m_t)
    eta_t = min(eta_ceiling, eta_sps, eta_weyl),  gamma_t = eta_t / R
    X    <- (1 - gamma_t) X - gamma_t D u_t

Every factor X lives in {||X||_2 <= D}. A convex combination of two points of the ball is in the ball, so there is
nothing to clip, project or decay, and the step does not change when the loss is scaled.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from geonb.adapters.factors import SAFE, OneSidedFactors, TwoSidedFactors
from geonb.train.controllers.base import StepReport, TrainedMatrix
from geonb.train.controllers.polar import Workspace, polar_factor


class FrankWolfe:
    """Conditional gradient with averaged gradients; one instance moves all factors of a run.

    `matrices` have one- or two-sided factors; `horizon` is T, the number of steps that the plan derived; `loss_floor`
    is f* of the Polyak bound in nats (0 unless a bound was measured). `unit` multiplies the Weyl bound and `momentum` is
    the exponent in beta = 1 - T^-momentum: conventions, which only the benchmark's ablations change.
    """

    name = "frank-wolfe"
    within_ball = True

    def __init__(
        self,
        matrices: tuple[TrainedMatrix, ...],
        *,
        horizon: int,
        loss_floor: float = 0.0,
        unit: float = 1.0,
        momentum: float = 0.5,
    ) -> None:
        for matrix in matrices:
            if not isinstance(matrix.factors, OneSidedFactors | TwoSidedFactors):
                raise TypeError(f"frank-wolfe moves points of a ball; {type(matrix.factors).__name__} has none")
        self.matrices = matrices
        self.horizon = horizon
        self.loss_floor = loss_floor
        self.unit = unit
        self.beta = 1.0 - horizon**-momentum
        self._updates = 0
        self._workspace = Workspace()
        # asked once: walking the modules takes longer than moving a small factor
        self._trained = {
            matrix.name: [(f"{matrix.name}/{leaf}", leaf, kept) for leaf, kept in matrix.factors.trained().items()]
            for matrix in matrices
        }
        self._moments = {name: torch.zeros_like(parameter) for name, parameter in self._leaves()}

    def _leaves(self):
        for trained in self._trained.values():
            for name, _, parameter in trained:
                yield name, parameter

    def _radius(self, matrix: TrainedMatrix, leaf: str) -> float:
        assert isinstance(matrix.factors, OneSidedFactors | TwoSidedFactors)
        return matrix.factors.radius(leaf)

    def _vertex(self, name: str, moment: Tensor) -> Tensor:
        """The point of the unit ball that the step of the factor `name` moves away from."""
        return polar_factor(moment, self._workspace)

    def _fraction(self, step: int) -> float:
        """How much of sigma_k the step with the number `step`, from 0, may move: (1 - t/T) / sqrt(T)."""
        return self.unit * max(0.0, 1.0 - step / self.horizon) / self.horizon**0.5

    def _polyak_share(self, loss: float, gap: float) -> float:
        """The largest fraction of the ball by Polyak: the linear model reaches f* after this share of its gap."""
        return max(0.0, loss - self.loss_floor) / gap if gap > 0 else float("inf")

    @torch.no_grad()
    def step(self, loss: float, step: int) -> StepReport:
        """Move every factor once; `step` counts from 0 and `loss` is the batch's mean in nats."""
        self._updates += 1
        correction = 1.0 - self.beta**self._updates
        gap, square = 0.0, 0.0
        vertices: dict[str, Tensor] = {}
        for matrix in self.matrices:
            for name, leaf, parameter in self._trained[matrix.name]:
                gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
                square += float(torch.dot(gradient.flatten(), gradient.flatten()))
                moment = self._moments[name].lerp_(gradient, 1.0 - self.beta)
                vertices[name] = self._vertex(name, moment)
                # <m, X + D u> without a matrix in between
                flat = moment.flatten()
                along = float(torch.dot(flat, parameter.flatten()))
                largest = float(torch.dot(flat, vertices[name].flatten()))
                gap += (along + self._radius(matrix, leaf) * largest) / correction

        fraction = self._fraction(step)
        ceiling, polyak, weyl, taken = [], [], [], []
        share = self._polyak_share(loss, gap)
        for matrix in self.matrices:
            radius = matrix.budget * SAFE
            ceiling.append(radius)
            polyak.append(radius * share)
            weyl.append(fraction * matrix.sigma_k)
            taken.append(min(ceiling[-1], polyak[-1], weyl[-1]))
            gamma = taken[-1] / radius
            for name, leaf, parameter in self._trained[matrix.name]:
                parameter.mul_(1.0 - gamma).add_(vertices[name], alpha=-gamma * self._radius(matrix, leaf))
        return StepReport(
            eta_ceiling=tuple(ceiling),
            eta_sps=tuple(polyak),
            eta_weyl=tuple(weyl),
            eta_step=tuple(taken),
            gap=max(0.0, gap),
            gradient_norm=square**0.5,
        )

    @torch.no_grad()
    def direction(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """-(X + D polar(g)): the way to the vertex that a whole Frank-Wolfe step on `gradients` would reach."""
        found = {}
        for matrix in self.matrices:
            for name, leaf, parameter in self._trained[matrix.name]:
                found[name] = -(parameter + self._radius(matrix, leaf) * polar_factor(gradients[name], self._workspace))
        return found

    def observe_validation(self, loss: float) -> None:
        """Validation plays no part in this controller."""

    def state(self) -> dict[str, Tensor]:
        return {
            **{f"moment/{name}": moment for name, moment in self._moments.items()},
            "updates": torch.tensor(self._updates),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self._updates = int(state["updates"])
        for name, moment in self._moments.items():
            moment.copy_(state[f"moment/{name}"])
