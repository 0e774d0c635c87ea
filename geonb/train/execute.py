"""A whole run in one call: folder, training, adapters, verification; the sinks see every event."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from geonb.errors import InputError
from geonb.plan.plan import Plan
from geonb.records import Record
from geonb.train.events import Event, StopEvent
from geonb.train.gates import Verification
from geonb.train.run_folder import RunFolder
from geonb.train.training import Training
from geonb.train.verification import verify

Sink = Callable[[Event], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Record):
    """The result of a training run: where it lies, how it ended, and what was verified."""

    folder: str | None
    adapter: str | None
    stop: StopEvent
    verification: Verification | None

    def summary(self) -> str:
        verdict = self.verification.verdict if self.verification else "not verified"
        return f"Run({self.folder!r}, {self.stop.reason} at step {self.stop.step}, {verdict})"

    def to_text(self) -> str:
        stop = self.stop
        lines = [
            f"Run ended: {stop.reason} at step {stop.step} of {stop.horizon} ({stop.because}); "
            f"best validation loss {stop.best_loss:.4f} at step {stop.best_step}"
        ]
        if self.verification is not None:
            lines.append(self.verification.to_text())
        if self.adapter:
            lines.append(f"Adapter: {self.adapter}")
        return "\n".join(lines)

    def to_html(self) -> str:
        own = Record.to_html.__get__(self.stop)()
        return own + (self.verification.to_html() if self.verification else "")


def run_training(
    plan: Plan,
    *,
    output: str | Path | None = None,
    save: bool = True,
    resume: bool = False,
    overwrite: bool = False,
    sinks: Iterable[Sink] = (),
    should_stop: Callable[[], bool] | None = None,
    device: str = "auto",
) -> Run:
    """Train as `plan` says, keep the best adapter, verify it, and leave a run folder (none with `save=False`).

    `resume` goes on with the run in `output` from its last checkpoint, under the plan that stands there. Raises
    `InputError` when the folder exists and neither `resume` nor `overwrite` was asked for; nothing is written then.
    """
    if not save:
        with tempfile.TemporaryDirectory(prefix="geonb-") as temporary:
            run = RunFolder.create(Path(temporary) / "run", plan)
            with run.held():
                result = _carry_out(plan, run, False, sinks, should_stop, device)
            return Run(folder=None, adapter=None, stop=result.stop, verification=result.verification)
    path = Path(output if output is not None else plan.output)
    if resume:
        run = RunFolder.open(path)
        if run.is_alive():
            raise InputError(f"the run {path} is still training in another process: wait for it, or stop it first.")
        with run.held():
            plan = run.plan()
            # a request that came too late for the run before is not meant for this one
            run.take_stop_request()
            # a run that died before its first checkpoint starts again from its own plan
            going_on = run.checkpoint_path.is_file()
            if not going_on:
                run.cut_trace(0)
            return _carry_out(plan, run, going_on, sinks, should_stop, device)
    run = RunFolder.create(path, plan, overwrite=overwrite)
    with run.held():
        return _carry_out(plan, run, False, sinks, should_stop, device)


def _carry_out(plan: Plan, run: RunFolder, resume: bool, sinks: Iterable[Sink], should_stop, device: str) -> Run:
    training = Training(plan, run=run, resume=resume, should_stop=should_stop, device=device)
    sinks = tuple(sinks)
    stop: StopEvent | None = None
    try:
        for event in training.events():
            if isinstance(event, StopEvent):
                stop = event
            for sink in sinks:
                sink(event)
        assert stop is not None
        training.save_adapters()
        if stop.reason == "requested":
            return Run(folder=str(run.path), adapter=str(run.adapter_path), stop=stop, verification=None)
        verification = verify(training, run.adapter_path, run)
        verification.save(run.verification_path)
    except BaseException as error:
        training.write_status("failed", f"{type(error).__name__}: {error}")
        raise
    training.write_status("done" if stop.reason != "diverged" else "failed", verification.verdict)
    return Run(folder=str(run.path), adapter=str(run.adapter_path), stop=stop, verification=verification)
