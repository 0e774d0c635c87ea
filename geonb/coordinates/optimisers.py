"""What moves a coordinate model: AdamW at two rates, and the spectral-ball step for the cores.

The stacked cores X = [G_1 ... G_2m] (r x 2mr) of a matrix live in the ball ||X||_2 <= beta/sqrt(m). Because ||phi|| = sqrt(m) and
U, V are orthonormal, ||dW(theta)||_2 <= sqrt(m) ||X||_2 <= beta for every theta: nothing is scaled at run time.
    X <- (1 - gamma) X - gamma D polar(m_t),  gamma = (1 - t/T)/sqrt(T),  m_t averaged with 1 - 1/sqrt(T)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.modulated_linear import ModulatedLinear, SharedFactors
from geonb.coordinates.recipe import Recipe
from geonb.train.controllers.polar import Workspace, polar_factor


def left_to_others(model: CoordinateModel, recipe: Recipe) -> set[int]:
    """Which parameters AdamW leaves alone: cores and factors that the ball's step moves, or cores that stay zero."""
    linears = [linear for layer in model.uses for linear in layer.changes.values()]
    if recipe.controller == "adamw":
        return set()
    return {id(one) for linear in linears for one in linear.factors.parameters()}


class TwoRates:
    """AdamW with a linear warm-up and one cosine to zero over the whole run; decay on the base's matrices alone."""

    def __init__(self, model: CoordinateModel, recipe: Recipe, leave_out: set[int]) -> None:
        self.recipe = recipe
        inside = {
            id(one) for layer in model.uses for part in (layer.directions, layer.modulated) for one in part.parameters()
        }
        inside |= {id(one) for one in model.predictor.parameters()}
        named = [(name, one) for name, one in model.named_parameters() if id(one) not in leave_out]
        matrices = [
            (name, one) for name, one in named if id(one) not in inside and one.dim() > 1 and "embedding" not in name
        ]
        rest = {id(one) for _, one in matrices} | inside
        groups = [
            (matrices, recipe.base_rate, recipe.decay),
            ([(n, one) for n, one in named if id(one) not in rest], recipe.base_rate, 0.0),
            ([(n, one) for n, one in named if id(one) in inside], recipe.coordinate_rate, 0.0),
        ]
        self.names = {id(one): name for name, one in named}
        self.peaks = [rate for members, rate, _ in groups if members]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": [one for _, one in members], "lr": rate, "weight_decay": decay}
                for members, rate, decay in groups
                if members
            ],
            betas=(0.9, 0.95),
        )

    def share(self, step: int) -> float:
        """The rate of step 0 <= step < T as a share of its peak."""
        ramp = max(1, round(self.recipe.warmup * self.recipe.steps))
        if step < ramp:
            return (step + 1) / ramp
        return 0.5 * (1 + math.cos(math.pi * (step - ramp) / max(1, self.recipe.steps - ramp)))

    def step(self, step: int) -> float:
        """Move; the rate of the coordinates' parameters."""
        for group, peak in zip(self.optimiser.param_groups, self.peaks, strict=True):
            group["lr"] = peak * self.share(step)
        self.optimiser.step()
        return self.recipe.coordinate_rate * self.share(step)

    def state(self) -> dict[str, Tensor]:
        """Moments by parameter name."""
        return {
            f"{self.names[id(one)]}/{key}": value
            for one, moments in self.optimiser.state.items()
            for key, value in moments.items()
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up what `state` gave."""
        for group in self.optimiser.param_groups:
            for one in group["params"]:
                name = self.names[id(one)]
                self.optimiser.state[one] = {
                    key: state[f"{name}/{key}"].clone()
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"{name}/{key}" in state
                }


class BallOfCores:
    """The spectral-ball step on the cores of every modulated matrix."""

    def __init__(self, model: CoordinateModel, recipe: Recipe) -> None:
        self.recipe, self.pairs = recipe, model.sizes.pairs
        self.linears: dict[str, ModulatedLinear] = {
            f"{number}.{name}": linear
            for number, layer in enumerate(model.uses)
            for name, linear in layer.changes.items()
        }
        self.moments = {name: torch.zeros_like(_stacked(one)) for name, one in self.linears.items()}
        self.count = 0
        self.workspace = Workspace()

    @torch.no_grad()
    def step(self, step: int) -> float:
        """Move; gamma, the share of the ball that every core moved by at most twice."""
        horizon = self.recipe.steps
        keep = 1 - 1 / math.sqrt(horizon)
        gamma = (1 - step / horizon) / math.sqrt(horizon)
        self.count += 1
        for name, linear in self.linears.items():
            factors = linear.factors
            assert isinstance(factors, SharedFactors)
            gradient = factors.cores.grad
            if gradient is None:
                continue
            moment = self.moments[name]
            moment.mul_(keep).add_(_flat(gradient), alpha=1 - keep)
            # one rounding inside, so that float32 does not step over the edge
            radius = linear.allowed() / math.sqrt(self.pairs) * (1 - 1e-5)
            stacked = _flat(factors.cores)
            norm = float(torch.linalg.matrix_norm(stacked, ord=2))
            if norm > radius:  # the base shrank, and its budget with it
                stacked = stacked * (radius / norm)
            moved = (1 - gamma) * stacked - gamma * radius * polar_factor(moment, self.workspace)
            factors.cores.copy_(_folded(moved, factors.cores))
        return gamma

    def state(self) -> dict[str, Tensor]:
        """Averages by matrix."""
        return {f"ball/{name}": one for name, one in self.moments.items()} | {"ball/count": torch.tensor(self.count)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up what `state` gave."""
        self.count = int(state["ball/count"])
        for name, moment in self.moments.items():
            moment.copy_(state[f"ball/{name}"])


def _flat(cores: Tensor) -> Tensor:
    """(2m, r, r) -> (r, 2m r): [G_1 ... G_2m]."""
    return cores.permute(1, 0, 2).reshape(cores.shape[1], -1)


def _folded(stacked: Tensor, like: Tensor) -> Tensor:
    return stacked.reshape(like.shape[1], like.shape[0], like.shape[2]).permute(1, 0, 2)


def _stacked(linear: ModulatedLinear) -> Tensor:
    assert isinstance(linear.factors, SharedFactors)
    return _flat(linear.factors.cores.detach())
