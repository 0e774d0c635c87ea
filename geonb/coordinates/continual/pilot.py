"""The stage of teachers: random ones of four classes on one input space, learned by an MLP 32-64-4 whose matrices are modulated.

The tasks share their inputs and nothing of a question says which task it is, so the task's id is always given here.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from geonb.coordinates.continual.learner import TaskFactors
from geonb.coordinates.modulated_linear import ModulatedLinear

INPUTS, HIDDEN, CLASSES = 32, 64, 4
RANKS = (12, 4)
# no bound here: the stage is about interference, and a bound would bind some arms before others
_NO_BUDGET = 1e6


class Perceptron(nn.Module):
    """x -> W2 relu(W1 x), both matrices a `ModulatedLinear`; 2,304 base parameters, no biases."""

    def __init__(self, pairs: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.maps = []
        for (inputs, outputs), rank in zip(((INPUTS, HIDDEN), (HIDDEN, CLASSES)), RANKS, strict=True):
            linear = nn.Linear(inputs, outputs, bias=False)
            nn.init.normal_(linear.weight, std=inputs**-0.5, generator=generator)
            self.maps.append(ModulatedLinear(linear, 2 * pairs, rank, budget=_NO_BUDGET, generator=generator))
        for one in self.maps:
            one.factors = TaskFactors.of(one.factors)  # type: ignore[arg-type]
        self.first, self.second = self.maps

    def forward(self, x: Tensor, weights: Tensor | None) -> Tensor:
        """Logits (n, classes) of inputs (n, 32) under weights (1, 1, count) of the cores."""
        return self.second(functional.relu(self.first(x[None], weights)), weights)[0]

    def base_parameters(self) -> list[nn.Parameter]:
        return [self.first.base.weight, self.second.base.weight]

    def loss(self, batch: tuple[Tensor, Tensor], weights: Tensor | None) -> Tensor:
        return functional.cross_entropy(self(batch[0], weights), batch[1])

    @torch.no_grad()
    def grades(self, batch: tuple[Tensor, Tensor], weights: Tensor | None) -> Tensor:
        """(n, 2): whether the class is right, twice, because a class has no parts."""
        right = self(batch[0], weights).argmax(dim=-1) == batch[1]
        return right.float()[:, None].expand(-1, 2)


class Teacher:
    """A random network 32-64-4, its outputs centred so that the classes are about equally frequent; labels are its argmax."""

    def __init__(self, seed: int, *, batch: int = 64, tests: int = 500) -> None:
        rng = np.random.default_rng((seed, 1))
        self.first = rng.normal(size=(HIDDEN, INPUTS)) / INPUTS**0.5
        self.second = rng.normal(size=(CLASSES, HIDDEN)) / HIDDEN**0.5
        self.centre = self._outputs(rng.normal(size=(4000, INPUTS))).mean(axis=0)
        self.size = batch
        self.test = self._labelled(rng, tests)

    def batch(self, rng: np.random.Generator, size: int | None = None) -> tuple[Tensor, Tensor]:
        return self._labelled(rng, size or self.size)

    def chance(self) -> float:
        """The share of the most frequent class among the tests."""
        return float(torch.bincount(self.test[1], minlength=CLASSES).max() / len(self.test[1]))

    def _outputs(self, x: np.ndarray) -> np.ndarray:
        return np.maximum(x @ self.first.T, 0) @ self.second.T

    def _labelled(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        x = rng.normal(size=(count, INPUTS))
        labels = (self._outputs(x) - self.centre).argmax(axis=1)
        return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(labels)


def teachers(count: int, seed: int) -> list[Teacher]:
    """`count` tasks; a seed's are the first ones of a longer sequence of the same seed."""
    return [Teacher(1000 * seed + place) for place in range(count)]
