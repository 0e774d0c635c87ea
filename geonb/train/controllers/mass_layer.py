"""`mass-layer`: MASS in consistent spaces: a Wen-Yin step per matrix, each bounded by its own Weyl margin.

A_s   = G Q^T - Q G^T,   Q(t) = (I + t/2 A_s)^-1 (I - t/2 A_s) Q          (MATH.md section 3)
weyl  : t <= delta / (2 sqrt2 S_max ||A_s||_2),  delta = min(sigma_k - ||dW||_2, gap_boundary / 2)
sps   : t <= (loss - f*) / sum over layers (1/2 ||A_s||_F^2 + ||g_S||^2)
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from geonb.adapters.factors import SAFE, StiefelFactors
from geonb.train.controllers.base import StepReport, TrainedMatrix

_REORTHONORMALISE = 200  # float32 drifts by 6e-5 in 2000 steps


class MassLayer:
    """MASS per layer on `StiefelFactors`; eta is reported as the bound on the weight change that the step may cause."""

    name = "mass-layer"
    within_ball = False

    def __init__(self, matrices: tuple[TrainedMatrix, ...], *, horizon: int, loss_floor: float = 0.0) -> None:
        for matrix in matrices:
            if not isinstance(matrix.factors, StiefelFactors):
                raise TypeError(f"mass-layer moves Stiefel points; {type(matrix.factors).__name__} has none")
        self.matrices, self.horizon, self.loss_floor = matrices, horizon, loss_floor
        self._steps = 0

    @torch.no_grad()
    def step(self, loss: float, step: int) -> StepReport:
        """One Wen-Yin step and one projected step of S for every matrix, each with its own t."""
        measured, slope, square = [], 0.0, 0.0
        for matrix in self.matrices:
            factors = matrix.factors
            assert isinstance(factors, StiefelFactors)
            gradient = _gradient(factors.Q)
            gradient_s = _gradient(factors.S)
            frobenius, spectral = _skew_norms(factors.Q.double(), gradient.double())
            slope += 0.5 * frobenius**2 + float(gradient_s.double().square().sum())
            square += float(gradient.square().sum() + gradient_s.square().sum())
            measured.append((gradient, gradient_s, spectral))
        polyak = max(0.0, loss - self.loss_floor) / slope if slope > 0 else float("inf")
        ceilings, spss, weyls, taken = [], [], [], []
        for matrix, (gradient, gradient_s, spectral) in zip(self.matrices, measured, strict=True):
            factors = matrix.factors
            assert isinstance(factors, StiefelFactors)
            largest = float(factors.S.max())
            # ||d(dW)||_2 <= (2 sqrt2 S_max ||A_s||_2 + 2 ||g_S||_inf) t: the change of S may have either sign, and
            # with mixed signs the frame's 2 B^T diag A attains twice the largest entry
            speed = 2 * 2**0.5 * largest * spectral + 2 * float(gradient_s.abs().max())
            delta = max(0.0, min(matrix.sigma_k - factors.product_norm(), matrix.gap_boundary / 2))
            weyl = delta / speed if speed > 0 else 0.0
            # S alone may cross its whole interval once: no step may be longer than the ball
            ceiling = matrix.budget / speed if speed > 0 else 0.0
            t = min(ceiling, polyak, weyl)
            factors.Q.copy_(_wen_yin(factors.Q.double(), gradient.double(), t).float())
            factors.S.sub_(t * gradient_s)
            factors.clip()
            for group, value in ((ceilings, ceiling), (spss, polyak), (weyls, weyl), (taken, t)):
                group.append(value * speed if speed > 0 else 0.0)
        self._steps += 1
        if self._steps % _REORTHONORMALISE == 0:
            self._orthonormalise()
        for matrix in self.matrices:
            _keep_inside(matrix)
        return StepReport(
            eta_ceiling=tuple(ceilings),
            eta_sps=tuple(spss),
            eta_weyl=tuple(weyls),
            eta_step=tuple(taken),
            gap=slope**0.5,
            gradient_norm=square**0.5,
        )

    def _orthonormalise(self) -> None:
        for matrix in self.matrices:
            factors = matrix.factors
            assert isinstance(factors, StiefelFactors)
            point = factors.Q.data
            left, _, right = torch.linalg.svd(point.double(), full_matrices=False)
            point.copy_((left @ right).float())

    def direction(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Minus the Riemannian gradient: -(G - Q G^T Q) for Q, -g for S."""
        found = {}
        for matrix in self.matrices:
            for name, leaf in matrix.factors.trained().items():
                gradient = gradients[f"{matrix.name}/{name}"]
                if name == "Q":
                    gradient = gradient - leaf.detach() @ (gradient.mT @ leaf.detach())
                found[f"{matrix.name}/{name}"] = -gradient
        return found

    def observe_validation(self, loss: float) -> None:
        """Validation plays no part in this controller."""

    def state(self) -> dict[str, Tensor]:
        return {"steps": torch.tensor(self._steps)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self._steps = int(state["steps"])


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.detach()


def _keep_inside(matrix: TrainedMatrix) -> None:
    """Float32 leaves Q orthonormal to about 1e-6; the promise is kept by the same share of S."""
    norm = matrix.factors.product_norm()
    if norm > matrix.budget * SAFE:
        matrix.factors.S.data.mul_(matrix.budget * SAFE / norm)  # type: ignore[union-attr]


def _wen_yin(point: Tensor, gradient: Tensor, t: float) -> Tensor:
    """Q(t) by Sherman-Morrison-Woodbury, or by the full form where the 2p core would be the larger system."""
    size, columns = point.shape
    if 2 * columns >= size:
        half = 0.5 * t * (gradient @ point.mT - point @ gradient.mT)
        eye = torch.eye(size, dtype=point.dtype, device=point.device)
        return torch.linalg.solve(eye + half, (eye - half) @ point)
    left, right = torch.cat([gradient, point], 1), torch.cat([point, -gradient], 1)
    core = torch.eye(2 * columns, dtype=point.dtype, device=point.device) + 0.5 * t * (right.mT @ left)
    return point - t * left @ torch.linalg.solve(core, right.mT @ point)


def _skew_norms(point: Tensor, gradient: Tensor) -> tuple[float, float]:
    """(||A_s||_F, ||A_s||_2) of G Q^T - Q G^T from its 2p x 2p core."""
    first = torch.linalg.qr(torch.cat([gradient, point], 1), mode="r")[1]
    second = torch.linalg.qr(torch.cat([point, -gradient], 1), mode="r")[1]
    values = torch.linalg.svdvals(first @ second.mT)
    return float(values.norm()), float(values[0])
