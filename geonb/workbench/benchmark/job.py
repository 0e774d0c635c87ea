"""A run of the benchmark as it is asked for, and the row that comes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from geonb.errors import InputError
from geonb.records import Record
from geonb.workbench.benchmark.arm import Arm
from geonb.workbench.benchmark.conditions import parted
from geonb.workbench.benchmark.domains import BASE


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Record):
    """What is to be run; two jobs that differ in the arm alone see the same examples in the same order.

    `planned` is the T that the plan believes in, where that is not the `horizon`: a run of more steps than planned ends
    with its plan, one of fewer is cut off. `loss_scale` multiplies the loss before its gradient is taken.
    """

    model: str
    domain: str
    horizon: int
    batch: int
    seed: int
    arm: Arm
    planned: int | None = None
    loss_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.planned is not None and self.planned < 1:
            raise InputError(
                f"a job was given the planned horizon {self.planned}; allowed is any number of steps from 1 on."
            )
        if not 0 < self.loss_scale < math.inf:
            raise InputError(
                f"a job was given the scale {self.loss_scale:g} of its loss; allowed is any finite number above 0."
            )

    @property
    def steps(self) -> int:
        """How many steps are made."""
        return min(self.horizon, self.planned or self.horizon)

    @property
    def is_plain(self) -> bool:
        """Whether it is run under no condition that was made to break a method."""
        named = parted(self.model)[1] or "+" in self.domain or self.domain == BASE.name
        return not named and self.planned is None and self.loss_scale == 1

    @property
    def cell(self) -> str:
        """What is compared with one another: everything but the arm and the seed."""
        name = f"{self.model}/{self.domain}/T{self.horizon}/b{self.batch}"
        if self.planned is not None:
            name += f"/planned{self.planned}"
        return name if self.loss_scale == 1 else f"{name}/loss*{self.loss_scale:g}"

    @property
    def key(self) -> str:
        """The name of the run; a queue that holds a row of this name does not run it again."""
        return f"{self.cell}/s{self.seed}/{self.arm.key}"

    def summary(self) -> str:
        return f"Job({self.key})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(Record):
    """What one run measured. Losses are nats per counted token; `None` where the run diverged or nothing is measured."""

    key: str
    cell: str
    job: Job
    model_digest: str
    data_digest: str
    evaluation_digest: str
    base: dict[
        str, float
    ]  # the untouched model: validation, bits_per_byte, exact, retention, and first where a row has it
    validation: float | None
    bits_per_byte: float | None
    exact: float | None
    retention: float | None  # loss on held-out text of the base's own kind
    area: float | None  # mean of the validation loss over the steps of the run (trapezoid)
    curve: list[list[float]]  # [step, validation loss on the first 64 examples]
    frontier: list[list[float]]  # [scale, validation, retention] of the adapter scaled after training
    over_sigma_k: float | None  # largest ||dW||_2 / sigma_k over matrices and over the checks on the way
    over_budget: float | None  # largest ||dW||_2 / R, for the methods that promise <= 1
    checks: int  # how many steps the two lines above were measured at
    trained: int  # numbers
    state_bytes: int  # what the optimiser or controller keeps between steps
    rank: float  # mean over the adapted matrices
    seconds_per_step: float  # median: forward, backward and update
    seconds: float
    environment: dict[str, str]
    first: float | None = None  # loss on the domain that the model was trained on before this run, if it was
