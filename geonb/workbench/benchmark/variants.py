"""Forms of `frank-wolfe` that the product does not use: ablations of its vertex, its pace, its memory and its iterate.

Each changes one thing of FrankWolfe and keeps its invariant: every vertex lies in the unit ball of the spectral norm, so
every iterate, and every average of iterates, stays in the ball that the plan derived. What each is worth stands in
papers/zero-knob/ablations.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from geonb.train.controllers.base import StepReport, TrainedMatrix
from geonb.train.controllers.frank_wolfe import FrankWolfe

# a singular value below this share of the largest is round-off in the Gram matrix
_DROPPED = 1e-5
# the share of the average in the point where gradients are taken: beta of schedule-free (Defazio et al. 2024)
_INTERPOLATION = 0.9


def singular(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values, descending, and the singular vectors of the shorter side of `matrix`, in float64.

    Through the smaller Gram matrix, because a step needs one for every factor: values below 1e-5 of the largest are
    round-off. (m, n) gives (k,) and (k, k), k = min(m, n).

    >>> singular(torch.tensor([[0.0, 2.0], [3.0, 0.0], [0.0, 0.0]]))[0]
    tensor([3., 2.], dtype=torch.float64)
    """
    tall = _tall(matrix.double())
    values, vectors = torch.linalg.eigh(tall.mT @ tall)
    return values.flip(0).clamp(min=0).sqrt(), vectors.flip(1)


def weighted_vertex(matrix: Tensor, values: Tensor, vectors: Tensor, weights: Tensor) -> Tensor:
    """U diag(weights) V^T in the singular basis of `matrix`; ||result||_2 <= 1 for weights in [0, 1].

    `values` and `vectors` are those of `singular`; directions below 1e-5 of the largest are left out. Returns the shape
    and the dtype of `matrix`.
    """
    tall = _tall(matrix.double())
    kept = values > _DROPPED * values[0]
    share = torch.where(kept, weights.double() / torch.where(kept, values, 1.0), 0.0)
    vertex = ((tall @ vectors) * share) @ vectors.mT
    return (vertex if tall.shape == matrix.shape else vertex.mT).to(matrix.dtype).contiguous()


def confirmed(own: Tensor, fresh: Tensor) -> Tensor:
    """fresh / own in [0, 1]: 1 where an independent look sees the whole singular value, 0 where it sees nothing of it."""
    return torch.where(own > 0, fresh / own.clamp(min=1e-300), 0.0).clamp(0.0, 1.0)


def top_outputs(weight: Tensor, rank: int) -> Tensor:
    """The first `rank` left singular vectors of `weight` (out, in) as columns, (out, rank), float32.

    A change dW with dW V_k = 0 and U_k^T dW = 0 leaves the first k singular values and vectors of W as they are, to the
    last one: W + dW is block diagonal in the singular basis of W. The tail's basis gives the first condition, and a B
    orthogonal to these columns the second.

    >>> top_outputs(torch.diag(torch.tensor([3.0, 2.0, 1.0])), 1).abs().flatten().tolist()
    [1.0, 0.0, 0.0]
    """
    return torch.linalg.svd(weight.double(), full_matrices=False).U[:, :rank].float().contiguous()


def _tall(matrix: Tensor) -> Tensor:
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT


class Variant(FrankWolfe):
    """FrankWolfe with one or more of its choices exchanged; with every argument at its default it is FrankWolfe.

    `power` is q of the vertex U (s/s_1)^q V^T, 0 the polar factor and 1 the gradient. `confirm="agreement"` weighs each
    direction of the moment by the share of it that the next gradient confirms. `decay` is the pace: "linear", "constant",
    "cosine", or "anytime" without a horizon. `memory` says where the momentum comes from: "horizon", "anytime" (the steps
    so far) or "noise" (measured). `average="schedule-free"` evaluates an average of the iterates. `polyak` multiplies the
    Polyak bound. `held` names factors B and the output directions that each stays orthogonal to, as orthonormal columns
    (out, k).
    """

    def __init__(
        self,
        matrices: tuple[TrainedMatrix, ...],
        *,
        horizon: int,
        unit: float = 1.0,
        momentum: float = 0.5,
        power: float = 0.0,
        confirm: str = "none",
        decay: str = "linear",
        memory: str = "horizon",
        average: str = "none",
        polyak: float = 1.0,
        held: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(matrices, horizon=horizon, unit=unit, momentum=momentum)
        self.exponent, self.power, self.confirm = momentum, power, confirm
        self.decay, self.memory, self.average = decay, memory, average
        self.polyak, self.held = polyak, dict(held or {})
        self.weights: dict[str, Tensor] = {}  # of the last step, by factor: for looking at, not for going on from
        self._kept: dict[str, Tensor] = {}
        self._factors = dict(self._leaves())

    def _gradient(self, name: str) -> Tensor:
        parameter = self._factors[name]
        return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad

    # -- the pace and the memory ---------------------------------------------------------------------------------------

    def _fraction(self, step: int) -> float:
        match self.decay:
            case "constant":
                return self.unit / self.horizon**0.5
            case "cosine":
                return self.unit * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.horizon))) / self.horizon**0.5
            case "anytime":
                # what the linear decay makes halfway through a run of 2 (t + 1) steps
                return self.unit * 0.5 / (2.0 * (step + 1)) ** 0.5
        return super()._fraction(step)

    def _remember(self) -> None:
        """Set beta for this step."""
        count = self._updates + 1
        if self.memory == "anytime":
            self.beta = 1.0 - count**-self.exponent
        elif self.memory == "noise":
            # no average can be longer than the run so far
            self.beta = 1.0 - max(self._noise_share(count), 1.0 / count)

    def _noise_share(self, count: int) -> float:
        """2 / (2 + N), N the noise over the signal of one batch's gradient: the moment then has equal parts of both.

        E <g_t, g_(t-1)> is the signal, because their noises are independent, and E ||g_t - g_(t-1)||^2 / 2 the noise.
        """
        noise = signal = 0.0
        for name in self._factors:
            gradient = self._gradient(name)
            before = self._kept.get(f"before/{name}")
            if before is not None:
                noise += 0.5 * float((gradient - before).double().square().sum())
                signal += float((gradient * before).double().sum())
            self._kept[f"before/{name}"] = gradient.detach().clone()
        kept = self._kept.setdefault("noise", torch.zeros(2, dtype=torch.float64))
        if count > 1:
            # weights that grow like t, so that the beginning is forgotten without a constant
            kept.lerp_(torch.tensor([noise, signal], dtype=torch.float64), 2.0 / count)
        noise, signal = kept.tolist()
        return 2.0 * signal / (2.0 * signal + noise) if signal > 0 else 0.0

    def _polyak_share(self, loss: float, gap: float) -> float:
        return self.polyak * super()._polyak_share(loss, gap)

    # -- the vertex ----------------------------------------------------------------------------------------------------

    def _vertex(self, name: str, moment: Tensor) -> Tensor:
        columns = self.held.get(name)
        if columns is None:
            return self._free_vertex(name, moment)
        # a polar factor has the range of its matrix; where that is nearly singular rounding leaves it, so it is cut again
        vertex = self._free_vertex(name, moment - columns @ (columns.mT @ moment))
        return vertex - columns @ (columns.mT @ vertex)

    def _free_vertex(self, name: str, moment: Tensor) -> Tensor:
        if self.power == 0 and self.confirm == "none":
            return super()._vertex(name, moment)
        if not 0 < float(moment.abs().amax()) < math.inf:
            return torch.zeros_like(moment)
        values, vectors = singular(moment)
        weights = (values / values[0]) ** self.power
        if self.confirm == "agreement":
            weights = weights * self._agreement(name, moment, values, vectors)
        self.weights[name] = weights
        return weighted_vertex(moment, values, vectors, weights)

    def _agreement(self, name: str, moment: Tensor, values: Tensor, vectors: Tensor) -> Tensor:
        """How much of each singular value of the moment the next gradient has in the same direction, in [0, 1].

        The gradient of this step was drawn after the moment of the last one, so <u_i, g_t v_i> of that moment's vectors
        is an unbiased look at the signal under s_i (cross-validated shrinkage); both are averaged at equal rank i.
        """
        if f"vectors/{name}" in self._kept:
            gradient = _tall(self._gradient(name).double())
            fresh = ((gradient @ self._kept[f"vectors/{name}"]) * self._kept[f"left/{name}"]).sum(0)
            look = torch.stack((self._kept[f"values/{name}"], fresh))
            looks = self._kept.setdefault(f"looks/{name}", torch.zeros_like(look))
            looks.mul_(self.beta).add_(look, alpha=1.0 - self.beta)
        self._kept[f"vectors/{name}"] = vectors
        self._kept[f"left/{name}"] = (_tall(moment.double()) @ vectors) / values.clamp(min=_DROPPED * float(values[0]))
        # without its bias: the moment after n steps is 1 - beta^n of a mean
        self._kept[f"values/{name}"] = values / (1.0 - self.beta**self._updates)
        looks = self._kept.get(f"looks/{name}")
        return torch.ones_like(values) if looks is None else confirmed(looks[0], looks[1])

    # -- the step ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, loss: float, step: int) -> StepReport:
        """Move every factor once; with an average, the factors are left where the next gradient is to be taken."""
        self._remember()
        if self.average == "none":
            return super().step(loss, step)
        for name, parameter in self._factors.items():
            point = self._kept.setdefault(f"point/{name}", parameter.detach().clone())
            self._kept.setdefault(f"average/{name}", parameter.detach().clone())
            parameter.copy_(point)
        report = super().step(loss, step)
        for name, parameter in self._factors.items():
            self._kept[f"point/{name}"].copy_(parameter)
            average = self._kept[f"average/{name}"].lerp_(parameter, 2.0 / (self._updates + 1))
            parameter.lerp_(average, _INTERPOLATION)
        return report

    @torch.no_grad()
    def evaluating(self, on: bool) -> None:
        """Put the average of the iterates in the place of the point where gradients are taken, or that point back."""
        for name, parameter in self._factors.items():
            average = self._kept.get(f"average/{name}")
            if average is None:
                continue
            if on:
                parameter.copy_(average)
            else:
                parameter.copy_(self._kept[f"point/{name}"]).lerp_(average, _INTERPOLATION)

    # -- going on ------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), **{f"kept/{name}": tensor for name, tensor in self._kept.items()}}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        kept = (name for name in state if name.startswith("kept/"))
        self._kept = {name.removeprefix("kept/"): state[name].clone() for name in kept}
