"""The arms: what each trains, under which coordinates, and the one loop that trains them all for the same number of steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from geonb.coordinates.continual.learner import Network, Task, TaskFactors, core_weights, cores, sides, task_phases
from geonb.coordinates.modulated_linear import SharedFactors, constant_weights
from geonb.errors import InputError


@dataclass(frozen=True, slots=True)
class Arm:
    """`trains` names the groups that move: base, sides (U and V), cores, lora; `phases` how tasks are told apart."""

    name: str
    told: str
    trains: tuple[str, ...]
    phases: str = ""  # "", random, orthogonal
    adapters: str = ""  # "", shared, each
    joint: bool = False


ARMS = {
    arm.name: arm
    for arm in (
        Arm("fine-tuning", "all base weights, task after task", ("base",)),
        Arm("shared-lora", "base frozen, one LoRA for all tasks", ("lora",), adapters="shared"),
        Arm("lora-per-task", "base frozen, a LoRA of its own for each task", ("lora",), adapters="each"),
        Arm("coordinates-random", "base, U, V frozen; cores trained; random theta", ("cores",), phases="random"),
        Arm("coordinates-orthogonal", "base, U, V frozen; cores trained; orthogonal phases", ("cores",), phases="orthogonal"),
        Arm("coordinates-base", "base, U, V and cores trained; random theta", ("base", "sides", "cores"), phases="random"),
        Arm(
            "joint",
            "all tasks mixed, everything trained, id given: an upper bound",
            ("base", "sides", "cores"),
            phases="orthogonal",
            joint=True,
        ),
        Arm("frozen", "nothing trained: a lower bound", ()),
    )
}  # fmt: skip
# of the design's list and not here
LEFT_OUT = ("FiLM", "parameter superposition", "MoLoRA", "EWC", "replay", "learned theta", "projected gradients")
OPTIMISERS = ("sgd", "adam")


@dataclass(frozen=True, slots=True)
class Rates:
    """Learning rates: of the base and U, V; of LoRA factors; of the cores, for one core (see `train`)."""

    base: float
    lora: float
    cores: float


@dataclass(slots=True)
class Learned:
    """What a run left: the matrix of accuracies, and how to read the network as task k."""

    matrix: list[list[float]]  # of exact answers, row k of tasks 0..k
    shares: list[list[float]]  # the same of the shares of answers that are right
    parameters: int
    read_as: Callable[[int], Tensor | None]


def train(
    arm: Arm,
    network: Network,
    tasks: Sequence[Task],
    *,
    steps: int,
    rates: Rates,
    optimiser: str = "adam",
    lora_rank: int = 2,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Learned:
    """Learn the tasks one after the other, `steps` each, testing all tasks so far after each one.

    The optimiser starts anew with every task and nothing decays: momentum or second moments of an earlier task, and decay of
    shared cores, would move what earlier tasks use. A joint arm takes steps x tasks steps on mixed tasks and has one row only.
    Raises `InputError` for an unknown optimiser.
    """
    if optimiser not in OPTIMISERS:
        raise InputError(f"the optimiser {optimiser!r} was given; allowed are {' and '.join(OPTIMISERS)}.")
    for parameter in network.base_parameters() + sides(network.maps) + cores(network.maps):
        parameter.requires_grad_(False)
    banks = _banks(arm, network, len(tasks), lora_rank, seed)
    weights = _weights(arm, network, len(tasks), seed)

    def read_as(task: int) -> Tensor | None:
        for place, one in enumerate(network.maps):
            if banks:
                one.factors = banks[min(task, len(banks) - 1)][place]
        return weights[task]

    groups = _groups(arm, network, banks, rates)
    parameters = sum(p.numel() for found, _ in groups for p in found)
    matrix, shares = [], []
    if arm.joint or not arm.trains:
        if arm.joint:
            _fit_jointly(network, tasks, groups, read_as, steps, optimiser, seed, progress)
        row, share = _tested(network, tasks, read_as)
        # the same network stands after every task: row k is the first k + 1 of its accuracies
        every = range(1, len(tasks) + 1)
        return Learned([row[:end] for end in every], [share[:end] for end in every], parameters, read_as)
    for place, task in enumerate(tasks):
        current = read_as(place)
        chosen = groups if arm.adapters != "each" else [(_trainable(banks[place]), rates.lora)]
        stepper = _optimiser(chosen, optimiser)
        rng = np.random.default_rng((seed, place))
        for _ in range(steps):
            _step(network.loss(task.batch(rng), current), stepper)
        stepper.zero_grad()
        row, share = _tested(network, tasks[: place + 1], read_as)
        matrix.append(row)
        shares.append(share)
        progress(place + 1, len(tasks))
    return Learned(matrix, shares, parameters, read_as)


def _banks(arm: Arm, network: Network, tasks: int, rank: int, seed: int) -> list[list[SharedFactors]]:
    """LoRA factors as `SharedFactors` of one core, the identity: B = U = 0 and A = V^T random, as in Hu et al. 2021."""
    if not arm.adapters:
        return []
    generator = torch.Generator().manual_seed(seed)
    banks = []
    for _ in range(tasks if arm.adapters == "each" else 1):
        bank = []
        for one, width in zip(network.maps, (each.shape[-1] for each in cores(network.maps)), strict=True):
            # a shared LoRA has the rank of the cores, one a task a rank of its own: both counts are stated
            own = rank if arm.adapters == "each" else width
            factors = TaskFactors(one.base.in_features, one.base.out_features, 1, own, generator)
            with torch.no_grad():
                factors.left.zero_()
                factors.cores.copy_(torch.eye(own)[None])
            factors.cores.requires_grad_(False)
            bank.append(factors)
        banks.append(bank)
    return banks


def _weights(arm: Arm, network: Network, tasks: int, seed: int) -> list[Tensor | None]:
    if arm.adapters:
        return [constant_weights(1)] * tasks
    if not arm.phases:
        return [None] * tasks
    pairs = cores(network.maps)[0].shape[0] // 2
    return list(core_weights(task_phases(arm.phases, pairs, tasks, seed)))


def _groups(arm: Arm, network: Network, banks, rates: Rates) -> list[tuple[list[nn.Parameter], float]]:
    """What moves and how fast.

    A step at one core moves the effective matrix by phi_i of it, m of them by m: cores step at rate / m, so that the matrix
    under a coordinate moves as one trained alone at `rate` would.
    """
    pairs = cores(network.maps)[0].shape[0] / 2
    found = {
        "base": (network.base_parameters(), rates.base),
        "sides": (sides(network.maps), rates.base),
        "cores": (cores(network.maps), rates.cores / pairs),
        "lora": ([p for bank in banks for p in _trainable(bank)], rates.lora),
    }
    groups = [found[name] for name in arm.trains]
    for parameters, _ in groups:
        for parameter in parameters:
            parameter.requires_grad_(True)
    return groups


def _trainable(bank: list[SharedFactors]) -> list[nn.Parameter]:
    return [p for factors in bank for p in (factors.left, factors.right)]


def _optimiser(groups: list[tuple[list[nn.Parameter], float]], name: str) -> torch.optim.Optimizer:
    made = [{"params": parameters, "lr": rate} for parameters, rate in groups]
    return torch.optim.Adam(made, fused=True) if name == "adam" else torch.optim.SGD(made)


def _step(loss: Tensor, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def _fit_jointly(network, tasks, groups, read_as, steps, optimiser, seed, progress) -> None:
    stepper = _optimiser(groups, optimiser)
    rng = np.random.default_rng((seed, len(tasks)))
    order = np.concatenate([rng.permutation(len(tasks)) for _ in range(steps)])
    for done, place in enumerate(order, 1):
        _step(network.loss(tasks[place].batch(rng), read_as(int(place))), stepper)
        if done % steps == 0:
            progress(done // steps, len(tasks))
    stepper.zero_grad()


def _tested(network: Network, tasks: Sequence[Task], read_as) -> tuple[list[float], list[float]]:
    grades = [network.grades(task.test, read_as(place)).mean(dim=0).tolist() for place, task in enumerate(tasks)]
    return [exact for exact, _ in grades], [share for _, share in grades]
