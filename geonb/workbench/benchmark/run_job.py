"""One run of the benchmark made: a model learns a domain with an arm, and a row says what came of it."""

from __future__ import annotations

import functools
import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from geonb.plan.plan import Plan
from geonb.workbench.benchmark.conditions import N_RETENTION, WEIGHTS, parted
from geonb.workbench.benchmark.environment import environment
from geonb.workbench.benchmark.job import Job, Row
from geonb.workbench.benchmark.plans import plan_of, with_zero_matrices

# evaluations on the way: these shares of the horizon, on the first of the evaluation examples
_CURVE = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)
_N_CURVE = 64
_N_RETENTION = N_RETENTION
# where the frontier of scaled adapters is looked at
SCALES = (0.2, 0.4, 0.6, 0.8)
# the norm of every change is measured that many times, and after the last step
_NORM_CHECKS = 12
_LARGEST_MICRO = 16


def _plan(model: str, domain: str, horizon: int, batch: int, seed: int, folder: Path) -> Plan:
    from geonb.workbench.benchmark.models import model_source

    return plan_of(model_source(model), domain, horizon, batch, seed, folder)


@functools.lru_cache(maxsize=8)
def _base(model: str, domain: str, seed: int, folder: Path) -> dict[str, float]:
    """The scores of the untouched model, once for every split."""
    from geonb.models.runtime import TorchRuntime
    from geonb.plan.inputs import load_inputs

    plan = _plan(model, domain, 200, 16, seed, folder)
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

    return tuple(load_inputs(_plan(model, domain, 200, 16, 0, folder)).evaluation)


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
    plan = _plan(job.model, job.domain, job.planned or job.horizon, job.batch, job.seed, folder)
    plan = with_zero_matrices(job.arm, plan)
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
