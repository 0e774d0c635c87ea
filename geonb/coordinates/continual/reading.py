"""How a network is read as one of its tasks: which factors and linear maps stand in it, and which weights its cores have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from geonb.coordinates.continual.arms import Arm, Rates
from geonb.coordinates.continual.learner import Network, TaskFactors, core_weights, cores, sides, task_phases
from geonb.coordinates.continual.task_linears import (
    FilmLinear,
    MixtureFactors,
    StackedFactors,
    SuperposedLinear,
    contexts,
)
from geonb.coordinates.modulated_linear import ModulatedLinear, SharedFactors, constant_weights
from geonb.coordinates.phases import weights_of

_NO_BUDGET = 1e6
Group = tuple[list[nn.Parameter], float]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the arms are: pairs of the cores, the rank of a task's LoRA, those of the shared LoRA, and experts."""

    pairs: int
    lora: int
    shared: int
    experts: int


def equal_sizes(
    maps: Sequence[ModulatedLinear], tasks: int, *, pairs: int | None = None, lora: int | None = None
) -> Sizes:
    """Sizes that train about as many numbers in every arm whose form leaves a choice.

    `pairs` is the least power of two with 2m >= tasks, so that every task has r x r numbers of its own in each matrix; the LoRA
    of a task has the rank whose r (in + out) is the nearest to them. A shared LoRA and the experts get as many ranks as all
    tasks together; a LoRA no more than a matrix has.
    """
    pairs = pairs or max(1, 1 << max(0, (tasks - 1).bit_length() - 1))
    each = sum(one.shape[-1] ** 2 for one in cores(maps))
    a_rank = sum(one.base.in_features + one.base.out_features for one in maps)
    whole = 2 * pairs * each
    routed = a_rank + sum(one.base.in_features for one in maps)
    return Sizes(
        pairs=pairs,
        lora=lora or max(1, round(each / a_rank)),
        shared=max(1, round(whole / a_rank)),
        experts=max(1, round(whole / routed)),
    )


class Reading:
    """The arm's parameters on a network, and the network read as a task.

    Raises nothing: what was asked for is checked by `train`.
    """

    def __init__(self, arm: Arm, network: Network, tasks: int, sizes: Sizes, seed: int) -> None:
        self.arm, self.network, self.tasks = arm, network, tasks
        for parameter in network.base_parameters() + sides(network.maps):
            parameter.requires_grad_(False)
        _resize(network, sizes.pairs)
        self.own: list[SharedFactors] = [one.factors for one in network.maps]  # type: ignore[misc]
        self.banks = _banks(arm, network, tasks, sizes, seed)
        self.added = _added(arm, network, tasks, seed)
        superposed = self.added[0] if arm.adds == "superposition" else []
        self.shared: list[nn.Parameter] = [one.shared for one in superposed]  # type: ignore[union-attr]
        self.phases, self.weights = _weights(arm, tasks, sizes.pairs, seed)

    def read_as(self, task: int) -> Tensor | None:
        """Set the network up for a task, and give the weights of its cores."""
        for place, one in enumerate(self.network.maps):
            if self.banks:
                one.factors = self.banks[min(task, len(self.banks) - 1)][place]
            if self.added:
                one.base = self.added[task][place]  # type: ignore[assignment]
        return weights_of(self.phases[task])[None, None] if self.phases else self.weights[task]

    def groups(self, rates: Rates, task: int | None = None) -> list[Group]:
        """What moves while `task` is learned (None: while all are), and how fast.

        A step at one core moves the effective matrix by phi_i of it, m of them by m: cores step at rate / m, so that the
        matrix under a coordinate moves as one trained alone at `rate` would.
        """
        maps = self.network.maps
        for one in self.stacked:
            one.learning = task or 0
        places = range(self.tasks) if task is None else [task]
        found: dict[str, Group] = {
            # the maps that stood in the network at the start: what is added stands before them
            "base": (self.network.base_parameters(), rates.base),
            "sides": ([side for one in self.own for side in (one.left, one.right)], rates.base),
            "cores": ([one.cores for one in self.own], rates.cores / (len(cores(maps)[0]) / 2)),
            "lora": (self._lora(places), rates.lora),
            "film": (self._film(places), rates.film),
            "superposed": (self.shared, rates.base),
            "theta": ([self.phases[place] for place in places] if self.phases else [], rates.theta),
        }
        groups = [found[name] for name in self.arm.trains]
        for parameters, _ in groups:
            for parameter in parameters:
                parameter.requires_grad_(True)
        return groups

    def trained(self, rates: Rates) -> int:
        """How many numbers are trained over all tasks."""
        return sum(p.numel() for found, _ in self.groups(rates) for p in found)

    def read_for_one(self, rates: Rates) -> int:
        """How many of them are read when one task is asked."""
        return sum(p.numel() for found, _ in self.groups(rates, 0) for p in found)

    @property
    def stacked(self) -> list[StackedFactors]:
        """The factors that add up the LoRAs of all tasks; none in other arms."""
        return [one for bank in self.banks for one in bank if isinstance(one, StackedFactors)]

    def _film(self, places: Sequence[int]) -> list[nn.Parameter]:
        if self.arm.adds != "film":
            return []
        return [p for place in places for one in self.added[place] for p in (one.scale, one.shift)]  # type: ignore[union-attr]

    def _lora(self, places: Sequence[int]) -> list[nn.Parameter]:
        if not self.banks:
            return []
        banks = [self.banks[place] for place in places] if self.arm.adapters == "each" else self.banks
        found = [p for bank in banks for one in bank for p in (one.left, one.right)]
        return found + [one.router for bank in banks for one in bank if isinstance(one, MixtureFactors)]


def _resize(network: Network, pairs: int) -> None:
    """Cores of `pairs` pairs, all zero, in place of the network's own, and no bound."""
    for one in network.maps:
        factors = one.factors
        assert isinstance(factors, SharedFactors)
        factors.cores = nn.Parameter(torch.zeros(2 * pairs, *factors.cores.shape[1:]), requires_grad=False)
        # a bound would bind some arms before others; the base keeps the one that it was trained under
        one.budget = _NO_BUDGET


def _banks(arm: Arm, network: Network, tasks: int, sizes: Sizes, seed: int) -> list[list[SharedFactors]]:
    """LoRA factors as `SharedFactors` of one core, the identity: B = U = 0 and A = V^T random, as in Hu et al. 2021."""
    if not arm.adapters:
        return []
    generator = torch.Generator().manual_seed(seed)
    banks = []
    for _ in range(tasks if arm.adapters == "each" else 1):
        bank = []
        for one in network.maps:
            inputs, outputs = one.base.in_features, one.base.out_features
            if arm.adapters == "mixture":
                factors = MixtureFactors(inputs, outputs, sizes.experts, generator)
            elif arm.adapters == "stacked":
                factors = StackedFactors(inputs, outputs, tasks, min(sizes.lora, inputs, outputs), generator)
            else:
                rank = sizes.lora if arm.adapters == "each" else sizes.shared
                factors = TaskFactors(inputs, outputs, 1, min(rank, inputs, outputs), generator)
            with torch.no_grad():
                factors.left.zero_()
                factors.cores.copy_(torch.eye(factors.cores.shape[-1])[None])
            factors.cores.requires_grad_(False)
            bank.append(factors)
        banks.append(bank)
    return banks


def _added(arm: Arm, network: Network, tasks: int, seed: int) -> list[list[FilmLinear]] | list[list[SuperposedLinear]]:
    linears = [one.base for one in network.maps]
    if arm.adds == "film":
        return [[FilmLinear(one) for one in linears] for _ in range(tasks)]
    if arm.adds == "superposition":
        generator = torch.Generator().manual_seed(seed)
        signs = [contexts(tasks, one.in_features, generator) for one in linears]
        shared = [nn.Parameter(torch.zeros_like(one.weight)) for one in linears]
        return [
            [SuperposedLinear(*parts) for parts in zip(linears, shared, (one[task] for one in signs), strict=True)]
            for task in range(tasks)
        ]
    return []


def _weights(arm: Arm, tasks: int, pairs: int, seed: int) -> tuple[list[nn.Parameter], list[Tensor | None]]:
    """Phases that are trained, or the weights of the cores of each task."""
    if arm.adapters:
        return [], [constant_weights(1)] * tasks
    if not arm.phases:
        return [], [None] * tasks
    phases = task_phases("random" if arm.phases == "learned" else arm.phases, pairs, tasks, seed)
    if arm.phases == "learned":
        return [nn.Parameter(torch.from_numpy(np.remainder(one, 2 * np.pi)).float()) for one in phases], []
    return [], list(core_weights(phases))
