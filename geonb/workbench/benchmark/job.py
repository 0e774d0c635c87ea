"""One run of the benchmark: a model, a domain, a horizon, a batch, an arm and a seed, and the row that comes of it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geonb.errors import InputError
from geonb.plan.plan import Plan
from geonb.records import Record
from geonb.workbench.benchmark.arm import LORA, Arm
from geonb.workbench.benchmark.conditions import N_RETENTION
from geonb.workbench.benchmark.derived import WEIGHTS, parted
from geonb.workbench.benchmark.domains import BASE

# evaluations on the way: these shares of the horizon, on the first of the evaluation examples
_CURVE = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)
_N_CURVE = 64
_N_RETENTION = N_RETENTION
# where the frontier of scaled adapters is looked at
SCALES = (0.2, 0.4, 0.6, 0.8)
# the norm of every change is measured that many times, and after the last step
_NORM_CHECKS = 12
_LARGEST_MICRO = 16


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


@functools.lru_cache(maxsize=8)
def derived_plan(model: str, domain: str, horizon: int, batch: int, seed: int, folder: Path) -> Plan:
    """The product's plan for `horizon` steps on the files of `domain` below `folder`, but for the batch that is given."""
    from geonb.plan import build_plan
    from geonb.workbench.benchmark.domains import domain_files
    from geonb.workbench.benchmark.models import model_source

    training, evaluation = domain_files(domain, seed, folder)
    plan = build_plan(
        model_source(model), training, eval_data=evaluation, max_steps=horizon, seed=seed, calibrate=False, device="cpu"
    )
    return dataclasses.replace(plan, batch={**plan.batch, "size": batch, "micro": batch, "accumulation": 1})


@functools.lru_cache(maxsize=8)
def _base(model: str, domain: str, seed: int, folder: Path) -> dict[str, float]:
    """The scores of the untouched model, once for every split."""
    from geonb.models.runtime import TorchRuntime
    from geonb.plan.inputs import load_inputs

    plan = derived_plan(model, domain, 200, 16, seed, folder)
    inputs = load_inputs(plan)
    runtime = TorchRuntime.load(inputs.checkpoint, device="cpu")
    return _scores(runtime.model, inputs, runtime.tokenizer, _first(model, folder))


@functools.lru_cache(maxsize=8)
def _first(model: str, folder: Path) -> Sequence[Any]:
    """What the model's first domain was evaluated on, where it was trained on one before."""
    condition = parted(model)[1]
    if not condition or (domain := WEIGHTS[condition].first_domain) is None:
        return ()
    from geonb.plan.inputs import load_inputs

    return tuple(load_inputs(derived_plan(model, domain, 200, 16, 0, folder)).evaluation)


def _with_zero_matrices(arm: Arm, plan: Plan) -> Plan:
    """`plan` with what geonb leaves out because it is all zero, for an arm that has no use for a spectrum.

    The plan's targets are every arm's, but a rival in its own library adapts a zero matrix like any other.
    """
    if arm.method not in LORA:
        return plan
    zero = [
        t for t in plan.targets if t.sigma_max == 0 and t.layer is not None and t.expert is None and min(t.shape) > 1
    ]
    full = {t.name: dataclasses.replace(t, chosen=True, rank=min(t.shape), basis="tail") for t in zero}
    return dataclasses.replace(plan, targets=tuple(full.get(t.name, t) for t in plan.targets)) if full else plan


def _scores(model: Any, inputs: Any, tokenizer: Any, first: Sequence[Any] = ()) -> dict[str, float]:
    from geonb.data.collate import pad_token
    from geonb.workbench.benchmark.measure import score

    pad = pad_token(tokenizer)
    task = score(model, inputs.evaluation, pad=pad, tokenizer=tokenizer)
    kept = score(model, inputs.retention[:_N_RETENTION], pad=pad, tokenizer=tokenizer)
    found = {
        "validation": task.loss,
        "bits_per_byte": task.bits_per_byte,
        "exact": task.exact,
        "retention": kept.loss,
    }
    return {**found, "first": score(model, first, pad=pad, tokenizer=tokenizer).loss} if first else found


def environment() -> dict[str, str]:
    """Versions and machine of a row."""
    import peft
    import torch
    import transformers

    from geonb._version import __version__

    return {
        "geonb": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
        "load": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "",
    }


def run_job(job: Job, folder: Path, *, progress: Callable[[int, int], None] | None = None) -> Row:
    """Run `job` with its data below `folder` and return its row; the same job gives the same losses.

    `progress(step, steps)` is called after every step. A run whose loss is not finite ends there and says so by None.
    """
    import torch

    from geonb.data.batches import batch_at
    from geonb.data.collate import pad_token
    from geonb.plan.inputs import load_inputs
    from geonb.train.objective import evaluate, forward_losses, to_tensors
    from geonb.workbench.benchmark.attach import attach

    begun = time.perf_counter()
    plan = derived_plan(job.model, job.domain, job.planned or job.horizon, job.batch, job.seed, folder)
    plan = _with_zero_matrices(job.arm, plan)
    base = _base(job.model, job.domain, job.seed, folder)
    inputs = load_inputs(plan)
    tokenizer = inputs.checkpoint.load_tokenizer()
    pad = pad_token(tokenizer)
    torch.manual_seed(job.seed)  # PEFT draws its factors from the global generator
    attached = attach(job.arm, plan)
    model = attached.model
    device = next(model.parameters()).device
    budgets = {target.name: (target.sigma_k, target.sigma_max) for target in plan.targets}
    is_bounded = job.arm.method in ("frank-wolfe", "mass", "mass-layer", "nb-lora")
    unit = 0 if job.arm.unit_of_budget == "sigma_k" else 1
    check_at = {math.ceil(job.steps * (part + 1) / _NORM_CHECKS) for part in range(_NORM_CHECKS)}
    curve_at = {round(job.steps * share) for share in _CURVE}

    curve, times, over_sigma_k, over_budget = [], [], 0.0, 0.0
    diverged = False

    def look(step: int) -> None:
        attached.evaluating(True)
        found = evaluate(model, inputs.evaluation[:_N_CURVE], pad=pad, device=device, batch_size=32)
        attached.evaluating(False)
        curve.append([step, round(found.loss, 5)])

    look(0)
    for number in range(job.steps):
        rows = [int(row) for row in batch_at(number, n_train=len(inputs.training), batch_size=job.batch, seed=job.seed)]
        started = time.perf_counter()
        for parameter in attached.trained:
            parameter.grad = None
        counted = sum(sum(inputs.training[row].loss_mask) for row in rows)
        mean = 0.0
        for start in range(0, len(rows), _LARGEST_MICRO):
            batch = to_tensors(inputs.training, rows[start : start + _LARGEST_MICRO], pad, device)
            loss = forward_losses(model, batch).nll.sum() / counted
            (loss * job.loss_scale).backward()
            mean += float(loss.detach())
        if not math.isfinite(mean):
            diverged = True
            break
        try:
            attached.step(mean * job.loss_scale, number)
        except torch.linalg.LinAlgError:  # a solver met a matrix that has overflown
            diverged = True
            break
        times.append(time.perf_counter() - started)
        step = number + 1
        if step in check_at:
            for name, norm in attached.changes():
                sigma_k, sigma_max = budgets[name]
                if sigma_k == 0:  # a zero matrix has no spectrum to compare with
                    continue
                over_sigma_k = max(over_sigma_k, norm / sigma_k)
                over_budget = max(over_budget, norm / (job.arm.budget * (sigma_k, sigma_max)[unit]))
        if step in curve_at and step < job.steps:
            look(step)
        if progress is not None:
            progress(step, job.steps)

    if not diverged:
        look(job.steps)
    # from here to the end: what is scored, whole or scaled, is what the arm would hand out
    attached.evaluating(True)
    final: dict[str, float] = {}
    frontier: list[list[float]] = []
    if not diverged:
        final = _scores(model, inputs, tokenizer, _first(job.model, folder))
        diverged = not all(math.isfinite(value) for value in final.values())
        if attached.scaled is not None and not diverged:
            for scale in SCALES:
                with attached.scaled(scale):
                    scores = _scores(model, inputs, tokenizer)
                frontier.append([scale, round(scores["validation"], 5), round(scores["retention"], 5)])

    def kept(name: str) -> float | None:
        return None if diverged or name not in final else round(final[name], 5)

    return Row(
        key=job.key,
        cell=job.cell,
        job=job,
        model_digest=plan.model["digest"],
        data_digest=plan.data["digest"],
        evaluation_digest=str(plan.evaluation["digest"]),
        base={name: round(value, 5) for name, value in base.items()},
        validation=kept("validation"),
        bits_per_byte=kept("bits_per_byte"),
        exact=kept("exact"),
        retention=kept("retention"),
        area=None if diverged else round(_area(curve), 5),
        curve=curve,
        frontier=frontier,
        over_sigma_k=None if diverged else round(over_sigma_k, 4),
        over_budget=round(over_budget, 6) if is_bounded and not diverged else None,
        checks=len(check_at),
        trained=sum(parameter.numel() for parameter in attached.trained),
        state_bytes=sum(tensor.numel() * tensor.element_size() for tensor in attached.state_tensors()),
        rank=round(statistics.mean(attached.ranks.values()), 1) if attached.ranks else 0.0,
        seconds_per_step=round(statistics.median(times), 5) if times else 0.0,
        seconds=round(time.perf_counter() - begun, 1),
        environment=environment(),
        first=kept("first"),
    )


def _area(curve: list[list[float]]) -> float:
    """Mean height of the curve over its steps by the trapezoid rule."""
    total = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(curve))
    return total / (curve[-1][0] - curve[0][0])
