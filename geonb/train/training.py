"""One training run from a plan: set-up, the loop as a generator of events, checkpoints, and what verification needs."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geonb.adapters.bounded import disabled
from geonb.adapters.experts import Adapter
from geonb.plan.plan import Plan
from geonb.train.certificate import directional_terms, improvement, no_drift, stationarity, task_improved
from geonb.train.checkpoint import Snapshot, load_snapshot, save_snapshot
from geonb.train.controllers.base import StepReport, leaves
from geonb.train.evaluation_plan import EvaluationPlan
from geonb.train.events import EvalEvent, Event, LayerState, NoteEvent, StepEvent, StopEvent
from geonb.train.gradient import BatchGradient, batch_gradient
from geonb.train.monitors import Monitors
from geonb.train.objective import evaluate
from geonb.train.probes import probe
from geonb.train.run_folder import RunFolder, Status
from geonb.train.setup import Equipment, equip


class Training:
    """A run in progress: iterate `events()` to train; everything it knows stays available for verification.

    >>> training = Training(plan)                                      # doctest: +SKIP
    >>> for event in training.events(): print(event)                   # doctest: +SKIP
    """

    def __init__(
        self,
        plan: Plan,
        *,
        run: RunFolder | None = None,
        resume: bool = False,
        should_stop: Callable[[], bool] | None = None,
        device: str = "auto",
        equipment: Equipment | None = None,
    ) -> None:
        self.plan = plan
        self.run = run
        self.should_stop = should_stop or (lambda: False)
        if run is not None:
            run.refuse_links()
        snapshot = load_snapshot(run.checkpoint_path) if resume and run is not None else None
        bases = run.checkpoint_path.parent / "bases.safetensors" if run is not None else None
        self.equipment = equipment or equip(plan, device=device, bases_path=bases)
        self.schedule = EvaluationPlan(horizon=self.horizon, examples=self.equipment.evaluation, seed=plan.seed)
        self.monitors = Monitors(plan, self.equipment)
        self.leaves = leaves(self.equipment.matrices)
        self.step = 0
        # examples a forward pass may hold; halved where memory runs out
        self.micro = int(plan.batch["micro"])
        self.gaps: list[float] = []
        self.best_step, self.best_loss = 0, math.inf
        self.best = {name: leaf.detach().clone() for name, leaf in self.leaves.items()}
        self.baseline: dict[str, np.ndarray] = {}
        self.reference_entropy: float | None = None
        self.trace_length = 0
        self._started = time.time()
        self._seconds: list[float] = []
        self._status_written = 0.0
        if snapshot is not None:
            self._restore(snapshot)

    @property
    def horizon(self) -> int:
        """T, the number of steps that the plan derived."""
        return int(self.plan.horizon["steps"])

    @property
    def adapters(self) -> dict[str, Adapter]:
        """The adapters in the model, by module path."""
        return self.equipment.adapters

    # -- the loop -------------------------------------------------------------------------------------------------

    def events(self) -> Iterator[Event]:
        """Train: yield a `StepEvent` for each step, an `EvalEvent` for each evaluation, and one `StopEvent`."""
        if not self.baseline:
            yield self._emit(self._evaluate())
            self._checkpoint()
        reason, because = "horizon", f"all {self.horizon} steps of the horizon were made"
        while self.step < self.horizon:
            if self.should_stop() or (self.run is not None and self.run.take_stop_request()):
                self._checkpoint()
                reason, because = "requested", "a stop was asked for; --resume goes on from this checkpoint"
                break
            before, micro = time.perf_counter(), self.micro
            event = self._take_step()
            self._seconds.append(time.perf_counter() - before)
            if self.micro < micro:
                yield self._emit(
                    NoteEvent(
                        step=event.step, because=f"memory ran out: from {micro} to {self.micro} examples at a time"
                    )
                )
            if not math.isfinite(event.loss):
                reason, because = "diverged", f"the loss of step {event.step} is {event.loss}; the best adapter is kept"
                break
            yield self._emit(event)
            if self.schedule.is_due(self.step):
                evaluation = self._evaluate()
                yield self._emit(evaluation)
                if self.step < self.horizon and all(item.status == "met" for item in evaluation.conditions):
                    reason, because = "certificate", "all five conditions of the certificate are met"
                    self._checkpoint()
                    break
            if self.step % self.schedule.checkpoint_every == 0 or self.step == self.horizon:
                self._checkpoint()
        stop = StopEvent(
            step=self.step,
            reason=reason,
            horizon=self.horizon,
            because=because,
            best_step=self.best_step,
            best_loss=self.best_loss,
        )
        yield self._emit(stop)
        self.write_status("stopped" if reason in {"requested", "diverged"} else "verifying", because)

    def _emit(self, event: Event) -> Event:
        if self.run is not None:
            self.trace_length = self.run.append(event)
            # a clock of its own: the wall's may jump, and a status that waits for it to catch up reads as a dead run
            if time.monotonic() - self._status_written > 1 or not isinstance(event, StepEvent):
                self.write_status("training")
        return event

    def write_status(self, state: str, message: str = "") -> None:
        """Say in status.json where the run stands."""
        if self.run is None:
            return
        self._status_written = time.monotonic()
        pace = float(np.median(self._seconds[-50:])) if self._seconds else None
        self.run.write_status(
            Status(
                state=state,
                step=self.step,
                horizon=self.horizon,
                process=os.getpid(),
                started=self._started,
                updated=time.time(),
                seconds_per_step=pace,
                message=message,
            )
        )

    # -- one step -------------------------------------------------------------------------------------------------

    def _take_step(self) -> StepEvent:
        equipment = self.equipment
        measure = self.step % self.schedule.measure_every == 0
        done = batch_gradient(
            equipment,
            self.leaves,
            equipment.batch(self.step),
            micro=self.micro,
            measure=measure,
            entropy_penalty=self.monitors.entropy_penalty if self.monitors.entropy_reg else None,
        )
        self.micro = min(self.micro, done.micro)
        if not math.isfinite(done.loss):
            return self._step_event(done, None, ())
        report = equipment.controller.step(done.loss, self.step)
        self.step += 1
        if report.gap is not None:
            self.gaps.append(report.gap)
        layers = self._layer_states(report) if measure or self.step == self.horizon else ()
        return self._step_event(done, report, layers)

    def _step_event(self, done: BatchGradient, report: StepReport | None, layers) -> StepEvent:
        if report is None:
            bounds, binding = (math.nan,) * 4, "none"
        else:
            groups = (report.eta_ceiling, report.eta_sps, report.eta_weyl, report.eta_step)
            bounds = tuple(float(np.mean(group)) for group in groups)
            binding = Counter(report.binding()).most_common(1)[0][0]
        return StepEvent(
            step=self.step if report is not None else self.step + 1,
            loss=done.loss,
            tokens=done.tokens,
            eta_ceiling=bounds[0],
            eta_sps=bounds[1],
            eta_weyl=bounds[2],
            eta_step=bounds[3],
            binding=binding,
            unit=report.unit if report is not None else "none",
            gap=report.gap if report is not None else None,
            gradient_norm=report.gradient_norm if report is not None else None,
            noise_scale=done.noise.noise_scale,
            signal_to_noise=done.noise.signal_to_noise,
            layers=layers,
        )

    def _layer_states(self, report: StepReport) -> tuple[LayerState, ...]:
        states = []
        for matrix, step, binding in zip(self.equipment.matrices, report.eta_step, report.binding(), strict=True):
            norm = matrix.factors.product_norm()
            states.append(
                LayerState(
                    name=matrix.name,
                    eta_step=step,
                    binding=binding,
                    norm=norm,
                    budget_used=norm / matrix.budget,
                    over_sigma_k=norm / matrix.sigma_k,
                )
            )
        return tuple(states)

    # -- evaluation -----------------------------------------------------------------------------------------------

    def _evaluate(self) -> EvalEvent:
        """Losses, intervals, drift probes and the certificate of the adapter as it stands."""
        equipment, schedule = self.equipment, self.schedule
        first = self.step == 0
        now = evaluate(equipment.model, equipment.evaluation, pad=equipment.pad, device=equipment.device)
        retained = equipment.evaluate_retention(limit=self.schedule.n_retention)
        probed = probe(equipment.runtime, equipment.prompts)
        measures = {"entropy": now.entropy, "repetition": float(probed.repetition.mean())}
        if retained is not None:
            measures["entropy"] = retained.entropy
        if first:
            self.baseline = {
                "evaluation": now.per_example,
                "repetition": probed.repetition,
                "entropy": np.array([measures["entropy"]]),
                "retention": retained.per_example if retained is not None else np.zeros(0),
            }
            self.monitors.begin(now.entropy)
        change = schedule.paired(now.per_example, self.baseline["evaluation"]) if not first else None
        watched = self.monitors.measure()
        is_best = now.loss < self.best_loss
        if is_best:
            self.best_step, self.best_loss = self.step, now.loss
            self.best = {name: leaf.detach().clone() for name, leaf in self.leaves.items()}
        conditions = () if first else self._certificate(now.per_example, change, measures)
        self.baseline["previous"] = now.per_example
        equipment.controller.observe_validation(now.loss)
        return EvalEvent(
            step=self.step,
            loss=now.loss,
            delta=change.value if change is not None else None,
            delta_interval=change.interval if change is not None else None,
            retention_loss=retained.loss if retained is not None else None,
            entropy=measures["entropy"],
            repetition=measures["repetition"],
            best=is_best,
            conditions=conditions,
            dimension=watched.get("dimension"),
            topology=watched.get("topology"),
        )

    def _certificate(self, per_example, change, measures):
        schedule, equipment = self.schedule, self.equipment
        # what this evaluation can resolve of a further improvement: the interval of the last one
        since = schedule.paired(per_example, self.baseline["previous"]).interval
        half_width = (since[1] - since[0]) / 2 if since is not None else None
        still = stationarity(self.gaps)
        drift = no_drift(measures, schedule.drift_intervals(self.baseline))
        task = task_improved(change.value, change.interval) if change is not None else task_improved(None, None)
        terms, why = None, "no evaluation set that resolves a difference"
        missing = [item.name for item in (still, drift, task) if item.status != "met"]
        if missing and self.step < self.horizon:
            # the bound takes two gradient passes, more than the rest of an evaluation: only where it could end the run
            why = f"not asked: {missing[0]} does not hold, so that the run goes on in any case"
        else:
            terms = directional_terms(
                equipment.model,
                self.leaves,
                equipment.controller.direction,
                equipment.evaluation,
                schedule.groups,
                pad=equipment.pad,
                device=equipment.device,
            )
        bounds = improvement(terms, half_width, within_ball=equipment.controller.within_ball, why=why)
        return (still, *bounds, drift, task)

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def _checkpoint(self) -> None:
        if self.run is None:
            return
        save_snapshot(
            self.run.checkpoint_path,
            Snapshot(
                step=self.step,
                trace_length=self.trace_length,
                facts={
                    "gaps": self.gaps,
                    "best_step": self.best_step,
                    "best_loss": self.best_loss,
                    "monitors": self.monitors.state(),
                    "micro": self.micro,
                },
                leaves={name: leaf.detach() for name, leaf in self.leaves.items()},
                best=self.best,
                controller=self.equipment.controller.state(),
                arrays=self.baseline,
            ),
            before=self.run.sync_trace,
        )

    def _restore(self, snapshot: Snapshot) -> None:
        with torch.no_grad():
            for name, leaf in self.leaves.items():
                leaf.copy_(snapshot.leaves[name])
        self.best = {name: snapshot.best[name].to(leaf.device) for name, leaf in self.leaves.items()}
        self.equipment.controller.restore(snapshot.controller)
        self.step, self.trace_length = snapshot.step, snapshot.trace_length
        self.micro = int(snapshot.facts["micro"])
        self.gaps = [float(gap) for gap in snapshot.facts["gaps"]]
        self.best_step, self.best_loss = snapshot.facts["best_step"], snapshot.facts["best_loss"]
        self.monitors.restore(snapshot.facts["monitors"])
        self.baseline = dict(snapshot.arrays)
        if self.run is not None:
            self.run.cut_trace(snapshot.trace_length)

    # -- the result -----------------------------------------------------------------------------------------------

    def use_best(self) -> None:
        """Put the best factors by validation loss into the model."""
        with torch.no_grad():
            for name, leaf in self.leaves.items():
                leaf.copy_(self.best[name])

    @torch.no_grad()
    def products(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The adapter as it stands: module path -> (B, A)."""
        return {path: adapter.factors() for path, adapter in self.adapters.items()}

    def save_adapters(self, folder: Path | None = None) -> None:
        """Write the last adapter, put the best into the model, and write that as the run's result."""
        if self.run is not None:
            self.equipment.save(self.run.last_adapter_path, self.products())
        self.use_best()
        target = folder or (self.run.adapter_path if self.run is not None else None)
        if target is not None:
            self.equipment.save(target, self.products())

    def base(self):
        """A context in which the model is the base model."""
        return disabled(self.adapters)


def train(plan: Plan, *, run: RunFolder | None = None, resume: bool = False, **options) -> Iterator[Event]:
    """Train as `plan` says and yield every event; with `run`, the folder is kept so that a killed run can resume.

    >>> for event in train(build_plan("embedded", "embedded:kjv")):    # doctest: +SKIP
    ...     print(event)
    """
    return Training(plan, run=run, resume=resume, **options).events()
