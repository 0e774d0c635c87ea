"""What the arms share: a network with modulated matrices, tasks that give batches, and weights of cores for each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from geonb.coordinates.modulated_linear import ModulatedLinear, SharedFactors
from geonb.coordinates.phases import Directions, kernel, orthogonal_phases, weights_of
from geonb.errors import InputError
from geonb.records import Record

# an exact multiple of pi has no sine; float32 leaves 1e-7 of one, which Adam would divide by itself and amplify
_ROUNDING = 1e-6


class Network(Protocol):
    """A network that is read under weights (1, 1, count) of its cores, or without them."""

    maps: list[ModulatedLinear]

    def base_parameters(self) -> list[nn.Parameter]: ...
    def loss(self, batch: Any, weights: Tensor | None) -> Tensor: ...
    def grades(self, batch: Any, weights: Tensor | None) -> Tensor: ...  # (n, 2): exactly right, share of it right


class Task(Protocol):
    """Batches of one task; `test` is never trained on."""

    test: Any

    def chance(self) -> float: ...
    def batch(self, rng: np.random.Generator, size: int | None = None) -> Any: ...  # of its own size unless told


class TaskFactors(SharedFactors):
    """Shared factors under one core for the whole batch, (1, 1, r, r): a product of matrices instead of one a token."""

    @classmethod
    def of(cls, factors: SharedFactors) -> TaskFactors:
        """The same parameters in this form."""
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made.left, made.right, made.cores = factors.left, factors.right, factors.cores
        return made

    def change(self, x: Tensor, core: Tensor) -> Tensor:
        return (x @ self.right) @ core[0, 0].T @ self.left.T


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity(Record):
    """How many tasks can have coordinates that do not interfere: 2m, because phi(theta) lies in R^2m."""

    pairs: int
    limit: int
    tasks: int
    least_largest_kernel: float  # Welch's bound, 0 up to the limit
    largest_kernel: float  # of the coordinates that are used

    @property
    def fits(self) -> bool:
        return self.tasks <= self.limit

    def to_text(self) -> str:
        told = f"{self.pairs} pairs hold 2m = {self.limit} coordinates without interference; {self.tasks} tasks are asked for"
        if self.fits:
            return f"{told}, which fit; largest |k| of the ones used {self.largest_kernel:.2g}."
        return (
            f"{told}, which do not fit: whatever they are, some two interfere with |k| >= {self.least_largest_kernel:.4f} "
            f"(Welch); largest |k| of the ones used {self.largest_kernel:.2g}."
        )


def capacity(phases: np.ndarray) -> Capacity:
    """The capacity of (tasks, pairs) phases.

    >>> print(capacity(orthogonal_phases(4, 8)).fits)
    True
    """
    from geonb.coordinates.phases import welch_bound

    tasks, pairs = phases.shape
    table = torch.from_numpy(phases)
    apart = kernel(table[:, None], table[None]).abs() - torch.eye(tasks)
    return Capacity(
        pairs=pairs,
        limit=2 * pairs,
        tasks=tasks,
        least_largest_kernel=welch_bound(pairs, tasks),
        largest_kernel=float(apart.max().clamp_min(0)),
    )


def task_phases(kind: str, pairs: int, tasks: int, seed: int, *, coordinates: int = 256) -> np.ndarray:
    """Phases (tasks, pairs) of kind `orthogonal` or `random`.

    Random ones are those of theta uniform on the sphere under directions of scale 4, the scale of `Configuration`. Beyond 2m
    orthogonal ones, the rest are random. Raises `InputError` for another kind.
    """
    if kind not in ("orthogonal", "random"):
        raise InputError(f"phases of kind {kind!r} were asked for; allowed are orthogonal and random.")
    generator = torch.Generator().manual_seed(seed)
    directions = Directions(pairs, coordinates, scale=4.0, generator=generator)
    theta = (
        torch.nn.functional.normalize(torch.randn(tasks, coordinates, generator=generator), dim=-1) * coordinates**0.5
    )
    drawn = directions.phases(theta).detach().double().numpy()
    if kind == "orthogonal":
        fitting = min(tasks, 2 * pairs)
        drawn[:fitting] = orthogonal_phases(pairs, fitting)
    return drawn


def core_weights(phases: np.ndarray) -> list[Tensor]:
    """phi (1, 1, 2 pairs) of each task, with the rounding of sin(pi) taken off."""
    weights = weights_of(torch.from_numpy(phases))
    weights = torch.where(weights.abs() < _ROUNDING, 0.0, weights).float()
    return [one[None, None] for one in weights]


def cores(maps: Sequence[ModulatedLinear]) -> list[nn.Parameter]:
    """The cores of all modulated matrices."""
    return [one.factors.cores for one in maps]  # type: ignore[union-attr]


def sides(maps: Sequence[ModulatedLinear]) -> list[nn.Parameter]:
    """U and V of all modulated matrices."""
    return [side for one in maps for side in (one.factors.left, one.factors.right)]
