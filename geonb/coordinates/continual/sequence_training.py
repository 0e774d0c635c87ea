"""The one loop that trains every arm: tasks one after the other, equal steps each, all tasks so far tested after each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geonb.coordinates.continual.arms import OPTIMISERS, Arm, Rates
from geonb.coordinates.continual.learner import Network, Task
from geonb.coordinates.continual.protection import APART, ElasticPenalty, Memory, Projection, fisher_diagonal
from geonb.coordinates.continual.reading import Group, Reading, Sizes
from geonb.errors import InputError


@dataclass(slots=True)
class Learned:
    """What a run left: the matrix of accuracies, and how to read the network as task k."""

    matrix: list[list[float]]  # of exact answers, row k of tasks 0..k
    shares: list[list[float]]  # the same of the shares of answers that are right
    start: list[float]  # exact answers of the network before anything was learned, task by task
    before: list[float]  # exact answers on each task just before it was learned
    parameters: int  # trained over all tasks
    read_for_one: int  # of those, read when one task is asked
    read_as: Callable[[int], Tensor | None]


def train(
    arm: Arm,
    network: Network,
    tasks: Sequence[Task],
    *,
    steps: int,
    rates: Rates,
    sizes: Sizes,
    optimiser: str = "adam",
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
    start = [_grade(network, task, None)[0] for task in tasks]
    reading = Reading(arm, network, len(tasks), sizes, seed)
    parameters, read_for_one = reading.trained(rates), reading.read_for_one(rates)
    learned = Learned([], [], start, [], parameters, read_for_one, reading.read_as)
    if arm.joint or not arm.trains:
        if arm.joint:
            _fit_jointly(network, tasks, reading, rates, steps, optimiser, seed, progress)
        row, share = _tested(network, tasks, reading.read_as)
        # the same network stands after every task: row k is the first k + 1 of its accuracies
        every = range(1, len(tasks) + 1)
        learned.matrix, learned.shares = [row[:end] for end in every], [share[:end] for end in every]
        learned.before = row if arm.joint else start
        return learned
    _Sequence(arm, network, tasks, reading, rates, steps, optimiser, seed).learn(learned, progress)
    return learned


class _Sequence:
    """One arm's way through the tasks, with what it keeps of the earlier ones."""

    def __init__(
        self, arm, network, tasks, reading: Reading, rates: Rates, steps: int, optimiser: str, seed: int
    ) -> None:
        self.arm, self.network, self.tasks, self.reading = arm, network, tasks, reading
        self.rates, self.steps, self.optimiser, self.seed = rates, steps, optimiser, seed
        moving = [p for found, _ in reading.groups(rates) for p in found]
        self.moving = moving
        self.penalty = ElasticPenalty(moving, rates.ewc) if arm.keeps == "ewc" else None
        self.memory = Memory() if arm.keeps == "replay" else None
        self.projection = Projection(moving) if arm.keeps == "projection" else None

    def learn(self, learned: Learned, progress: Callable[[int, int], None]) -> None:
        for place, task in enumerate(self.tasks):
            learned.before.append(_grade(self.network, task, self.reading.read_as(place))[0])
            self._fit(place, task)
            row, share = _tested(self.network, self.tasks[: place + 1], self.reading.read_as)
            learned.matrix.append(row)
            learned.shares.append(share)
            progress(place + 1, len(self.tasks))

    def _fit(self, place: int, task: Task) -> None:
        stepper = make_optimiser(self.reading.groups(self.rates, place), self.optimiser)
        rng = np.random.default_rng((self.seed, place))
        recalling = np.random.default_rng((self.seed, place, 1))
        seen = []
        for _ in range(self.steps):
            batch = task.batch(rng)
            loss = self.network.loss(batch, self.reading.read_as(place))
            if self.memory is not None:
                seen.append(batch)
                recalled = self.memory.loss(self.network, self.reading.read_as, recalling)
                # as much weight as all earlier tasks have among the tasks so far
                loss = loss if recalled is None else (loss + place * recalled) / (place + 1)
            if self.penalty is not None and self.penalty.tasks:
                loss = loss + self.penalty()
            if self.arm.keeps == "apart":
                loss = loss + APART * sum(one.overlap() for one in self.reading.stacked)
            if self.projection is not None:
                self.projection.begin()
            stepper.zero_grad()
            loss.backward()
            stepper.step()
            if self.projection is not None:
                self.projection.end()
        stepper.zero_grad()
        self._remember(place, task, seen)

    def _remember(self, place: int, task: Task, seen: list) -> None:
        weights = self.reading.read_as(place)
        if self.penalty is not None:
            rng = np.random.default_rng((self.seed, place, 2))
            self.penalty.remember(fisher_diagonal(self.network, task, weights, self.moving, rng))
        if self.memory is not None:
            self.memory.keep(place, seen)
        if self.projection is not None and weights is not None:
            self.projection.use(weights)


def make_optimiser(groups: Sequence[Group], name: str) -> torch.optim.Optimizer:
    """Adam or plain gradient descent over groups of parameters with their rates; nothing decays."""
    made = [{"params": parameters, "lr": rate} for parameters, rate in groups]
    return torch.optim.Adam(made, foreach=True) if name == "adam" else torch.optim.SGD(made)


def _fit_jointly(network, tasks, reading: Reading, rates, steps, optimiser, seed, progress) -> None:
    stepper = make_optimiser(reading.groups(rates), optimiser)
    rng = np.random.default_rng((seed, len(tasks)))
    order = np.concatenate([rng.permutation(len(tasks)) for _ in range(steps)])
    for done, place in enumerate(order, 1):
        stepper.zero_grad()
        network.loss(tasks[place].batch(rng), reading.read_as(int(place))).backward()
        stepper.step()
        if done % steps == 0:
            progress(done // steps, len(tasks))
    stepper.zero_grad()


@torch.no_grad()
def _grade(network: Network, task: Task, weights: Tensor | None) -> tuple[float, float]:
    exact, share = network.grades(task.test, weights).mean(dim=0).tolist()
    return exact, share


def _tested(network: Network, tasks: Sequence[Task], read_as) -> tuple[list[float], list[float]]:
    grades = [_grade(network, task, read_as(place)) for place, task in enumerate(tasks)]
    return [exact for exact, _ in grades], [share for _, share in grades]
