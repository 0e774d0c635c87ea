"""What a run folder says of itself, whatever state it is in: finished, going on, half-written or gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.plan.plan import Plan
from geonb.records import Record, is_folder
from geonb.train.events import EvalEvent, StepEvent, StopEvent
from geonb.train.example_losses import ExampleLosses
from geonb.train.gates import Verification
from geonb.train.run_folder import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts(Record):
    """What one run folder says; None is what it does not say, and `problem` is the sentence why ("" if nothing is)."""

    label: str
    folder: str
    state: str  # training, verifying, done, stopped, failed, dead, or "no run"
    model: str | None
    data: str | None
    controller: str | None
    seed: int | None
    steps: int | None  # made so far
    horizon: int | None  # planned
    batch: int | None
    parameters: int | None
    validation: tuple[tuple[int, float], ...]  # (step, nats per token)
    retention: tuple[tuple[int, float], ...]
    task: Measurement | None  # adapter minus base, as the run's own verification says
    retained: Measurement | None
    base_loss: float | None
    adapted_loss: float | None
    base_retention: float | None
    adapted_retention: float | None
    largest_over_sigma_k: float | None
    verdict: str | None
    problem: str


@dataclass(slots=True)
class Look:
    """One folder as read: its facts, the plan's numbers, and its example losses or the sentence why there are none."""

    facts: RunFacts
    numbers: dict[str, Any] | None = None
    losses: ExampleLosses | None = None
    missing: str = ""


@dataclass(slots=True)
class _Trace:
    steps: int | None = None
    ended: bool = False
    events: int = 0
    validation: list[tuple[int, float]] = field(default_factory=list)
    retention: list[tuple[int, float]] = field(default_factory=list)


def _try(problems: list[str], name: str, read: Callable[[], Any]) -> Any:
    """`read()`, or None with one more problem: a folder on disk can hold anything, and no content of it is a bug."""
    try:
        return read()
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        problems.append(f"{name} cannot be read ({reason})")
        return None


def look(path: Path, label: str) -> Look:
    run, problems = RunFolder(path), []
    known: dict[str, Any] = dict.fromkeys(RunFacts.__dataclass_fields__) | {
        "label": label,
        "folder": str(path),
        "state": "no run",
        "validation": (),
        "retention": (),
    }
    if not run.is_run():
        there = "holds no plan.json" if is_folder(path) else "is not there"
        known["problem"] = f"{path} {there}, so it is no run: give the -o of a `train run`."
        return Look(facts=RunFacts(**known), missing=f"{label} is no run")
    known["state"] = _try(problems, "status.json", lambda: _state(run)) or "dead"
    planned = _try(problems, "plan.json", lambda: _planned(run.plan()))
    trace = _Trace()
    _try(problems, "trace.jsonl", lambda: _follow(run, trace))
    known |= {
        "steps": trace.steps,
        "validation": tuple(trace.validation),
        "retention": tuple(trace.retention),
    }
    numbers = None
    if planned is not None:
        facts, numbers = planned
        known |= facts
    # a run that was resumed after its end keeps the verification of that end until the next one
    if run.verification_path.is_file() and (trace.ended or not trace.events):
        verified = _try(problems, "verification.json", lambda: _verified(run))
        missing = f"the verification.json of {label} cannot be read"
    else:
        verified, missing = None, f"{label} has no verification yet"
        made = f"step {trace.steps or 0}" + (f" of {known['horizon']}" if known["horizon"] is not None else "")
        advice = "wait for it" if known["state"] in {"training", "verifying"} else "go on with it by --resume"
        problems.append(f"there is no verification yet (state {known['state']}, {made}): {advice}")
    losses = None
    if verified is not None:
        known |= verified
        unread: list[str] = []
        losses = _try(unread, f"the losses.json of {label}", lambda: _losses(run, verified["task"]))
        missing = unread[0] if unread else ""
    known["problem"] = "; ".join(problems) + "." if problems else ""
    return Look(facts=RunFacts(**known), numbers=numbers, losses=losses, missing=missing)


def _state(run: RunFolder) -> str:
    status = run.status()
    if status is None or (status.state in {"training", "verifying"} and not run.is_alive()):
        return "dead"
    return str(status.state)


def _planned(plan: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
    """The facts that the plan tells, and the numbers by which two plans are compared."""
    chosen = plan.chosen()
    ranks = sorted({target.rank for target in chosen})
    facts = {
        "model": str(plan.model["source"]),
        "data": str(plan.data["path"]),
        "controller": str(plan.controller["name"]),
        "seed": int(plan.seed),
        "horizon": int(plan.horizon["steps"]),
        "batch": int(plan.batch["size"]),
        "parameters": int(plan.n_parameters),
    }
    numbers = {
        "model": facts["model"],
        "model digest": plan.model.get("digest"),
        "data": facts["data"],
        "data digest": plan.data.get("digest"),
        "evaluation data": plan.evaluation.get("path"),
        "evaluation digest": plan.evaluation.get("digest"),
        "training examples": plan.split.get("n_train"),
        "evaluation examples": plan.split.get("n_eval"),
        "seed": facts["seed"],
        "sequence length": plan.sequence_length,
        "batch": facts["batch"],
        "steps": facts["horizon"],
        **{"controller" if name == "name" else name: value for name, value in plan.controller.items()},
        "matrices": len(chosen),
        "ranks": f"{ranks[0]} .. {ranks[-1]}" if len(ranks) > 1 else str(ranks[0] if ranks else "none"),
        "parameters": facts["parameters"],
        "geonb version": plan.geonb_version,
    }
    # where a plan was to be written says nothing of the run
    options = {name: value for name, value in plan.options.items() if name not in numbers and name != "output"}
    return facts, numbers | {f"option {name}": value for name, value in options.items()}


def _follow(run: RunFolder, trace: _Trace) -> None:
    """Fill `trace` event by event: what stood before a broken line is kept."""
    for event in run.events():
        trace.events += 1
        trace.ended = isinstance(event, StopEvent) and event.reason != "requested"
        if isinstance(event, StepEvent):
            trace.steps = int(event.step)
        elif isinstance(event, EvalEvent):
            trace.steps = max(int(event.step), trace.steps or 0)
            trace.validation.append((int(event.step), float(event.loss)))
            if event.retention_loss is not None:
                trace.retention.append((int(event.step), float(event.retention_loss)))


def _verified(run: RunFolder) -> dict[str, Any]:
    verification = Verification.load(run.verification_path)
    numbers = {
        name: None if getattr(verification, name) is None else float(getattr(verification, name))
        for name in ("base_loss", "adapted_loss", "base_retention", "adapted_retention")
    }
    for measured in (verification.task, verification.retention):
        if measured is not None:
            # one whose numbers are none fails here, inside the guard, rather than in a table
            measured.summary()
    return numbers | {
        "task": verification.task,
        "retained": verification.retention,
        "largest_over_sigma_k": max((float(layer.over_sigma_k) for layer in verification.layers), default=None),
        "verdict": str(verification.verdict),
    }


def _losses(run: RunFolder, task: Measurement) -> ExampleLosses:
    if not run.losses_path.is_file():
        raise InputError("it is not there: the run was verified before geonb kept these losses")
    losses = ExampleLosses.load(run.losses_path)
    for base, adapted in ((losses.base, losses.adapted), (losses.base_retention, losses.adapted_retention)):
        if np.asarray(base, dtype=np.float64).shape != np.asarray(adapted, dtype=np.float64).shape:
            raise InputError("base and adapter have different numbers of examples")
    same = len(losses.base) == task.n
    # six digits of a loss of up to 100 nats round by 5e-5
    if not same or abs(float(np.mean(losses.adapted)) - float(np.mean(losses.base)) - task.value) > 1e-4:
        raise InputError("its losses are not those that verification.json judged")
    return losses
