"""Ways to keep what was learned that are not parameters of a task: a penalty, a memory, updates kept out of used directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from geonb.coordinates.continual.learner import Network, Task

FISHER_SAMPLES = 64
REPLAYED = 0.01  # of what a task was trained on
# weight of O-LoRA's overlap, that of Wang et al. 2023; 0 to 500 on teachers of seeds 100 and 101 leave ACC within 0.015
APART = 0.5


def fisher_diagonal(
    network: Network, task: Task, weights: Tensor | None, parameters: Sequence[nn.Parameter], rng: np.random.Generator
) -> list[Tensor]:
    """The diagonal of the empirical Fisher information, E[(d log p(answer | question) / d w)^2] over `FISHER_SAMPLES` questions.

    One question at a time: the square of a mean gradient is not the mean of the squares. A question's loss is the mean over its
    characters, which scales the Fisher of the operations and nothing else.
    """
    found = [torch.zeros_like(one) for one in parameters]
    for _ in range(FISHER_SAMPLES):
        gradients = torch.autograd.grad(network.loss(task.batch(rng, 1), weights), parameters)
        for total, gradient in zip(found, gradients, strict=True):
            total += gradient**2 / FISHER_SAMPLES
    return found


class ElasticPenalty:
    """EWC (Kirkpatrick et al. 2017): strength / 2 sum_k sum_i F_ki (w_i - w*_ki)^2 over the tasks k learned so far.

    Kept as two sums a weight, of F_k and of F_k w*_k, because the square opens up to F w^2 - 2 F w* w + a constant.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], strength: float) -> None:
        self.parameters, self.strength = list(parameters), strength
        self.curvature = [torch.zeros_like(one) for one in self.parameters]
        self.pull = [torch.zeros_like(one) for one in self.parameters]
        self.constant = 0.0
        self.tasks = 0

    def remember(self, fisher: Sequence[Tensor]) -> None:
        """Hold the present weights with the Fisher of the task that was just learned."""
        self.tasks += 1
        for held, pull, one, parameter in zip(self.curvature, self.pull, fisher, self.parameters, strict=True):
            held += one
            pull += one * parameter.detach()
            self.constant += float((one * parameter.detach() ** 2).sum())

    def __call__(self) -> Tensor:
        """The penalty of the present weights, a scalar; 0 before the first task."""
        total = torch.tensor(self.constant, dtype=self.parameters[0].dtype)
        for held, pull, parameter in zip(self.curvature, self.pull, self.parameters, strict=True):
            total = total + (held * parameter**2 - 2 * pull * parameter).sum()
        return self.strength / 2 * total


class Memory:
    """Replay: of each task a hundredth of the batches that it was trained on, at least one."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, object]] = []

    def keep(self, place: int, seen: Sequence[object]) -> None:
        """Keep the first hundredth of the batches of task `place`."""
        self.batches += [(place, one) for one in seen[: max(1, round(REPLAYED * len(seen)))]]

    def loss(
        self, network: Network, read_as: Callable[[int], Tensor | None], rng: np.random.Generator
    ) -> Tensor | None:
        """The loss of one batch drawn from the memory, None while it is empty."""
        if not self.batches:
            return None
        place, batch = self.batches[int(rng.integers(len(self.batches)))]
        return network.loss(batch, read_as(place))


class Projection:
    """Updates of the cores without their part along the weights phi_k of earlier tasks, so that those tasks feel nothing.

    The cores under phi_k are sum_j phi_kj G_j; an update dG with phi_k dG = 0 for every earlier k leaves them where they are,
    whatever the coordinates are and whatever optimiser made it. After as many tasks as there are cores, nothing may move.
    """

    def __init__(self, cores: Sequence[nn.Parameter]) -> None:
        self.cores = list(cores)
        self.used = torch.zeros(0, len(cores[0]), dtype=torch.float64)  # orthonormal rows
        self.before: list[Tensor] = []

    def use(self, weights: Tensor) -> None:
        """Protect the coordinate with weights (1, 1, cores) from now on."""
        rest = weights.detach().double().reshape(-1)
        # twice: once leaves the rounding of the rows before it
        for _ in range(2):
            rest = rest - self.used.T @ (self.used @ rest)
        if float(rest.norm()) > 1e-6 * float(weights.detach().norm()):
            self.used = torch.cat([self.used, (rest / rest.norm())[None]])

    def begin(self) -> None:
        """Note where the cores are before a step."""
        self.before = [one.detach().clone() for one in self.cores]

    @torch.no_grad()
    def end(self) -> None:
        """Take the protected part of the step back."""
        for old, one in zip(self.before, self.cores, strict=True):
            step = (one - old).double().flatten(1)
            kept = step - self.used.T @ (self.used @ step)
            one.copy_(old + kept.reshape(one.shape).to(one.dtype))
