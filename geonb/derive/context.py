"""What the fifteen derivations read: matrices, data, horizon, options, and what a calibration measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from geonb.derive.rounding import rounded
from geonb.records import Record

EPS = 2.0**-23  # MATH.md: the one machine constant of every derived floor, whatever the compute dtype
SQRT_EPS = EPS**0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixFacts(Record):
    """One matrix as the derivations see it: identity, shape (out, in), and the scalars of MATH.md section 1."""

    name: str
    role: str
    layer: int | None
    expert: int | None
    shape: tuple[int, int]
    targetable: bool
    because: str
    is_zero: bool
    sigma_max: float
    sigma_k: float
    effective_rank: float
    structural_rank: int
    k_certified: bool
    full_rank: int
    tail_dims: int
    gap_inside: float
    gap_boundary: float
    knee_rank: int
    noise_rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration(Record):
    """What a few training examples said about the loaded base model; every float has three significant digits.

    `noise_scale` is tr Cov(g) / ||E g||^2 in examples, debiased, None where `resolved` is False; its interval is a
    jackknife one at 95 %. `residual_gains` maps a block's path to sigma_max(x) / sigma_max(f(x)), `gradient_ranks` a
    matrix's name to the effective rank of its split-half gradient (absent where the matrix was too large to try).
    """

    n_examples: int
    resolved: bool
    noise_scale: float | None
    noise_scale_interval: tuple[float, float] | None
    signal_to_noise: float | None
    residual_gains: dict[str, float]
    gradient_ranks: dict[str, int]
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivationContext(Record):
    """Everything the fifteen read; the later fields fill up as the plan is composed."""

    matrices: tuple[MatrixFacts, ...]
    n_train: int
    n_eval: int
    resolves: float | None  # half-width in nats of what the evaluation split can tell from zero
    controller: str = "frank-wolfe"
    basis: str = "tail"
    budget: str = "balanced"
    sides: str = "one"
    chosen_experts: tuple[str, ...] = ()  # names of expert matrices that the person asked for
    max_rank: int | None = None
    rank_rule: str = "tail"  # one of lora_rank.RANK_RULES; every other one is an override
    excluded_roles: tuple[str, ...] = ()  # roles that the person took out of the targets
    memory_limit: int | None = None  # bytes that adapters may take beside the model, None where nothing was stated
    memory_source: str = "nothing stated"
    targets: tuple[str, ...] = ()
    ranks: dict[str, int] = field(default_factory=dict)
    batch_size: int = 16
    horizon: int = 200
    horizon_source: str = ""
    calibration: Calibration | None = None

    def matrix(self, name: str) -> MatrixFacts:
        """The facts of the matrix called `name`."""
        return next(matrix for matrix in self.matrices if matrix.name == name)

    def chosen(self) -> tuple[MatrixFacts, ...]:
        """The targeted matrices, in the order of the checkpoint."""
        wanted = set(self.targets)
        return tuple(matrix for matrix in self.matrices if matrix.name in wanted)

    def by_target(self, quantity: str) -> dict[str, Any]:
        """One field of `MatrixFacts` for every target, by name, rounded as stored."""
        return rounded({matrix.name: getattr(matrix, quantity) for matrix in self.chosen()})

    @property
    def batches_per_epoch(self) -> int:
        """Optimiser steps in one pass over the training examples."""
        return max(1, -(-self.n_train // self.batch_size))

    def budgets(self) -> dict[str, float]:
        """R of every target, as `radii` has it."""
        return rounded(radii(self.budget, self.by_target("sigma_k"), self.by_target("sigma_max")))


def radii(budget: str, sigma_k: Mapping[str, float], sigma_max: Mapping[str, float]) -> dict[str, float]:
    """R of each matrix in the units of its weights: sigma_k (strict), min(3 sigma_k, sigma_max) (balanced), sigma_max (open).

    >>> radii("balanced", {"w": 0.5}, {"w": 2.0})
    {'w': 1.5}
    """
    times = {"strict": 1.0, "balanced": 3.0, "open": inf}[budget]
    # on a flat spectrum 3 sigma_k is above sigma_max, and a change would be larger than its matrix
    return {name: min(times * sigma_k[name], largest) for name, largest in sigma_max.items()}


def parameters_of(shapes: Mapping[str, tuple[int, int]], ranks: Mapping[str, int], sides: str) -> int:
    """Trained parameters: r m for one-sided factors (B alone), r (m + n) for two-sided ones."""
    return sum(rank * (shapes[name][0] + (shapes[name][1] if sides == "two" else 0)) for name, rank in ranks.items())
