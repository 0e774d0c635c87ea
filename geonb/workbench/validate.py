"""Hunt counterexamples to a derived plan: the same derivation under several seeds, every failure by its name."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geonb.errors import GeonbError, InputError
from geonb.geometry.measurement import Measurement
from geonb.geometry.statistics import bootstrap_interval, wilson
from geonb.plan.plan import Plan
from geonb.record_tables import table_html
from geonb.records import Record
from geonb.train.gates import FAILED, PASSED, Verification

# name here, gate that measures it, the name that the documented workbench gives it
_OF_GATES = (
    ("task not improved", "task improved", "loss_not_improved, perplexity_not_improved"),
    ("bound broken", "spectral bound", "spectral_bounds_violation"),
    ("interlacing broken", "weyl and interlacing", "spectral_bounds_violation"),
    ("adapter does nothing", "adapter acts", ""),
    ("merge differs", "merged = adapter", "argmax_not_certified"),
    ("saved files differ", "reload through PEFT", "argmax_not_certified"),
    ("degenerates", "no degeneration", "fourgram_degenerated"),
    ("forgets more than it learns", "retention", "online_eval_degraded"),
    ("representation moved beyond chance", "representation kept", "cka_bound_violation"),
)
_OF_RUNS = (
    ("diverged", "the loss was not finite", "gain_divergence"),
    ("budget exhausted", "median ||dW||_2 / R of the matrices is 1", "adapter_saturation_exceeded"),
    ("not measured", "a required gate was left unmeasured", "spectral_bounds_unavailable, cka_bound_unavailable"),
)
MODES = (*(name for name, _, _ in _OF_GATES), *(name for name, _, _ in _OF_RUNS))
# round-off of a factor that lies on its ball's boundary
_FULL = 1 - 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationTrial(Record):
    """One seed: how its run ended, what its adapter did to task and retention, and which failures it showed."""

    seed: int
    stop: str
    steps: int
    task: Measurement
    retention: Measurement | None
    budget_used: float  # median over matrices of ||dW||_2 / R
    failures: tuple[str, ...]
    because: tuple[str, ...]  # one sentence a failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation(Record):
    """Every trial and the counterexamples among them; `verdict` is "passed" where no trial shows a failure."""

    verdict: str
    model: str
    data: str
    split: str
    trials: tuple[ValidationTrial, ...]
    counts: dict[str, int]  # failures by name, zeros included: what was looked for
    task: Measurement  # mean over the seeds of the paired change of the task's loss
    pass_rate: Measurement

    @property
    def counterexamples(self) -> tuple[ValidationTrial, ...]:
        """The trials with at least one failure."""
        return tuple(trial for trial in self.trials if trial.failures)

    def summary(self) -> str:
        return (
            f"Validation({self.verdict}: {len(self.counterexamples)} of {len(self.trials)} seeds are counterexamples)"
        )

    def _rows(self) -> list[list[Any]]:
        return [
            [
                trial.seed,
                f"{trial.stop} at {trial.steps}",
                repr(trial.task),
                repr(trial.retention) if trial.retention is not None else "",
                round(trial.budget_used, 3),
                ", ".join(trial.failures) or "none",
            ]
            for trial in self.trials
        ]

    def to_text(self) -> str:
        lines = [f"Validation of {self.model} on {self.data}: {self.verdict} ({self.split})"]
        for seed, stop, task, retention, used, failures in self._rows():
            lines.append(
                f"  seed {seed:<11} {stop:24} task {task}; retention {retention}; budget used {used}: {failures}"
            )
        lines += [f"    seed {trial.seed}: {why}" for trial in self.trials for why in trial.because]
        found = ", ".join(f"{name} {count}" for name, count in self.counts.items() if count)
        lines.append(f"looked for {len(self.counts)} failures in {len(self.trials)} trials; found {found or 'none'}")
        lines.append(f"task over the seeds: {self.task!r}; passed: {self.pass_rate!r}")
        return "\n".join(lines)

    def to_html(self) -> str:
        columns = ("seed", "end", "task", "retention", "budget used", "failures")
        modes = [[name, count] for name, count in self.counts.items()]
        return table_html(columns, self._rows(), caption=self.summary()) + table_html(("failure", "trials"), modes)


def validate_derived(
    model: Any,
    data: str | Path,
    *,
    trials: int = 5,
    base_seed: int | None = None,
    eval_data: str | Path | None = None,
    output: str | Path | None = None,
    device: str = "auto",
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> Validation:
    """Train the derived plan under `trials` seeds and collect every failure that verification or the run shows.

    Seeds are base + i, base derived from model and data where it is not given; each trial is what `train run` does, with
    the same controller. With `output` the runs are kept as `output/seed-N`, and a validation that was interrupted goes
    on where it was. `options` are those of `build_plan`. Raises `InputError` for fewer than two trials.

    >>> validate_derived("embedded", "embedded:chat", trials=3).verdict        # doctest: +SKIP
    'passed'
    """
    from geonb.plan.build import build_plan

    if trials < 2:
        raise InputError(f"--trials was given {trials}; allowed is 2 or more: one seed says nothing about another.")
    say = progress or (lambda text: None)
    given = {"eval_data": eval_data, "device": device, **options}
    first = build_plan(model, data, seed=base_seed, **given)
    found = []
    for number in range(trials):
        seed = first.seed + number
        plan = first if number == 0 else build_plan(model, data, seed=seed, **given)
        say(f"seed {seed}: trial {number + 1} of {trials}")
        found.append(_trial(plan, Path(output) / f"seed-{seed}" if output is not None else None, device))
    return _validation(first, found, eval_data is not None)


def _trial(plan: Plan, folder: Path | None, device: str) -> ValidationTrial:
    from geonb.train.execute import run_training
    from geonb.train.run_folder import RunFolder

    run = RunFolder(folder) if folder is not None else None
    if run is not None and run.is_run():
        if run.plan() != plan:
            raise InputError(
                f"{folder} holds a run of another plan: choose another folder with -o, or remove that one."
            )
        if run.verification_path.is_file():
            stop = next(event for event in reversed(list(run.events())) if event.kind == "stop")
            return _judged(plan, stop, Verification.load(run.verification_path))
    try:
        done = run_training(
            plan, output=folder, save=folder is not None, resume=run is not None and run.is_run(), device=device
        )
    except GeonbError as error:
        raise GeonbError(f"the trial of seed {plan.seed} ended early: {error}") from error
    if done.verification is None:
        raise GeonbError(f"the trial of seed {plan.seed} was stopped before its end: start the validation again.")
    return _judged(plan, done.stop, done.verification)


def _judged(plan: Plan, stop: Any, verification: Verification) -> ValidationTrial:
    gates = {gate.name: gate for gate in verification.gates}
    failures = [
        (name, f"{name}: {gates[gate].because} ({gates[gate].value} against {gates[gate].threshold})")
        for name, gate, _ in _OF_GATES
        if gate in gates and gates[gate].status == FAILED
    ]
    used = statistics.median(layer.norm / layer.budget for layer in verification.layers)
    unmeasured = [gate.name for gate in verification.gates if gate.required and gate.status not in (PASSED, FAILED)]
    for (name, meaning, _), is_so in zip(_OF_RUNS, (stop.reason == "diverged", used >= _FULL, unmeasured), strict=True):
        if is_so:
            failures.append(
                (name, f"{name}: {meaning}{' (' + ', '.join(unmeasured) + ')' if name == 'not measured' else ''}")
            )
    return ValidationTrial(
        seed=plan.seed,
        stop=stop.reason,
        steps=stop.step,
        task=verification.task,
        retention=verification.retention,
        budget_used=used,
        failures=tuple(name for name, _ in failures),
        because=tuple(why for _, why in failures),
    )


def _validation(plan: Plan, trials: list[ValidationTrial], fixed: bool) -> Validation:
    counted = Counter(name for trial in trials for name in trial.failures)
    changes = [trial.task.value for trial in trials]
    whole = sum(not trial.failures for trial in trials)
    return Validation(
        verdict=PASSED if whole == len(trials) else FAILED,
        model=str(plan.model["name"]),
        data=str(plan.data["path"]),
        split="the same evaluation examples for every seed" if fixed else "each seed draws its own evaluation split",
        trials=tuple(trials),
        counts={name: counted[name] for name in MODES},
        task=Measurement(
            value=float(np.mean(changes)),
            interval=bootstrap_interval(changes, rng=np.random.default_rng(plan.seed)),
            n=len(trials),
            null=0.0,
            unit="nats per token",
            operator="mean over the seeds of adapter minus base on the evaluation examples, bootstrap over seeds",
        ),
        pass_rate=Measurement(
            value=whole / len(trials),
            interval=wilson(whole, len(trials)),
            n=len(trials),
            null=None,
            unit="of the trials",
            operator="Wilson interval",
        ),
    )
