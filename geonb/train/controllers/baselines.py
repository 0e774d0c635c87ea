"""Baselines for comparison only, from their own libraries: AdamW, Muon (with or without a cosine); and ScaledGD."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from geonb.errors import InputError
from geonb.geometry.spectrum import EPS
from geonb.train.controllers.base import StepReport, TrainedMatrix, leaves


class _Optimizer:
    """A torch optimiser behind the controllers' interface: 5 % of warm-up, a cosine to zero unless told, clipping at 1."""

    name = ""
    within_ball = False

    def __init__(self, matrices: tuple[TrainedMatrix, ...], *, horizon: int, rate: float, cosine: bool) -> None:
        self.matrices, self.horizon, self.rate, self.cosine = matrices, horizon, rate, cosine
        self.optimizer: Any = self._make(list(leaves(matrices).values()))

    def _make(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        raise RuntimeError(f"{type(self).__name__} does not say which optimiser it is")

    def _share(self, step: int) -> float:
        """The fraction of the rate that update number `step` uses, in (0, 1]."""
        warm = max(1, math.ceil(0.05 * self.horizon))
        if step < warm:
            return (step + 1) / warm
        if not self.cosine:
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.horizon - warm)))

    def step(self, loss: float, step: int) -> StepReport:
        """One step of the optimiser; there are no bounds, so all etas are its scheduled rate."""
        rate = self.rate * self._share(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        norm = float(torch.nn.utils.clip_grad_norm_(list(leaves(self.matrices).values()), 1.0))
        self.optimizer.step()
        rates = (rate,) * len(self.matrices)
        return StepReport(
            eta_ceiling=rates,
            eta_sps=rates,
            eta_weyl=rates,
            eta_step=rates,
            gap=norm,
            gradient_norm=norm,
            unit="learning rate",
        )

    def direction(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Minus the gradient."""
        return {name: -gradient for name, gradient in gradients.items()}

    def observe_validation(self, loss: float) -> None:
        """Validation plays no part."""

    def state(self) -> dict[str, Tensor]:
        """The optimiser's tensors by (index of the parameter, name)."""
        found = {}
        for index, entries in self.optimizer.state_dict()["state"].items():
            for name, value in entries.items():
                found[f"{index}/{name}"] = torch.as_tensor(value)
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        entries: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            index, _, name = key.partition("/")
            entries.setdefault(int(index), {})[name] = value
        packed = self.optimizer.state_dict()
        self.optimizer.load_state_dict({"state": entries, "param_groups": packed["param_groups"]})


class AdamW(_Optimizer):
    """AdamW with betas 0.9 and 0.999 and no decay, the customary LoRA setting."""

    name = "adamw"
    within_ball = False

    def __init__(
        self, matrices: tuple[TrainedMatrix, ...], *, horizon: int, rate: float = 3e-3, cosine: bool = True
    ) -> None:
        super().__init__(matrices, horizon=horizon, rate=rate, cosine=cosine)

    def _make(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=self.rate, weight_decay=0.0)


class Muon(_Optimizer):
    """torch.optim.Muon without decay."""

    name = "muon"
    within_ball = False

    def __init__(
        self, matrices: tuple[TrainedMatrix, ...], *, horizon: int, rate: float = 1e-2, cosine: bool = True
    ) -> None:
        super().__init__(matrices, horizon=horizon, rate=rate, cosine=cosine)

    def _make(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        if not hasattr(torch.optim, "Muon"):
            raise InputError(
                f"the controller 'muon' needs torch 2.9 or newer, this is torch {torch.__version__}: "
                "upgrade torch, or choose another controller."
            )
        return torch.optim.Muon(parameters, lr=self.rate, weight_decay=0.0)


class ScaledGD:
    """ScaledGD (Tong, Ma & Chi 2021): each factor's gradient preconditioned by the other factor's Gram matrix.

    g_B (A A^T + e I)^-1 and (B^T B + e I)^-1 g_A, with the documented ridge e = max(sigma_k^2, sqrt(eps) sigma_max^2)
    and the documented decay sigma_k / sigma_max, decoupled and times the step. The rate is a baseline's knob.
    """

    name = "scaled-gd"
    within_ball = False

    def __init__(self, matrices: tuple[TrainedMatrix, ...], *, horizon: int, rate: float = 0.1) -> None:
        self.matrices, self.horizon, self.rate = matrices, horizon, rate

    @torch.no_grad()
    def step(self, loss: float, step: int) -> StepReport:
        """One preconditioned step of every matrix, with a linear decay of the rate."""
        square, rate = 0.0, self.rate * (1 - step / self.horizon)
        for matrix in self.matrices:
            trained = matrix.factors.trained()
            left, right = trained["B"], trained["A"]
            ridge = max(matrix.sigma_k**2, EPS**0.5 * matrix.sigma_max**2)
            eye = torch.eye(right.shape[0], device=right.device)
            for_left = torch.linalg.solve(right @ right.mT + ridge * eye, _gradient(left), left=False)
            for_right = torch.linalg.solve(left.mT @ left + ridge * eye, _gradient(right))
            square += float(_gradient(left).square().sum() + _gradient(right).square().sum())
            shrink = 1 - rate * matrix.sigma_k / matrix.sigma_max
            left.mul_(shrink).sub_(rate * for_left)
            right.mul_(shrink).sub_(rate * for_right)
        rates = (rate,) * len(self.matrices)
        return StepReport(
            eta_ceiling=rates,
            eta_sps=rates,
            eta_weyl=rates,
            eta_step=rates,
            gap=square**0.5,
            gradient_norm=square**0.5,
            unit="learning rate",
        )

    def direction(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Minus the gradient."""
        return {name: -gradient for name, gradient in gradients.items()}

    def observe_validation(self, loss: float) -> None:
        """Validation plays no part."""

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """There is nothing beyond the factors."""


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.detach()
