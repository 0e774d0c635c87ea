"""`train status`: what a run folder says, live or dead, without touching the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from geonb.records import Record, plain
from geonb.train.events import EvalEvent, StepEvent, StopEvent
from geonb.train.gates import Verification
from geonb.train.run_folder import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus(Record):
    """Where a run stands, from its trace and its status file."""

    folder: str
    state: str  # training, verifying, done, stopped, failed or dead
    step: int
    horizon: int
    loss: float | None
    validation_loss: float | None
    binding: str | None
    seconds_per_step: float | None
    seconds_left: float | None
    verdict: str | None
    message: str

    def to_text(self) -> str:
        share = min(1.0, max(0.0, self.step / self.horizon)) if self.horizon else 0.0
        bar = "█" * round(24 * share) + "░" * (24 - round(24 * share))
        lines = [f"{self.folder}: {self.state}", f"  {bar} step {self.step} of {self.horizon}"]
        if self.loss is not None:
            lines.append(f"  loss {self.loss:.4f} nats/token, bound by {self.binding}")
        if self.validation_loss is not None:
            lines.append(f"  validation loss {self.validation_loss:.4f}")
        if self.seconds_left is not None:
            lines.append(f"  {self.seconds_per_step:.2f} s/step, about {self.seconds_left:.0f} s left")
        if self.verdict is not None:
            lines.append(f"  verification: {self.verdict}")
        if self.message:
            lines.append(f"  {self.message}")
        return "\n".join(plain(line) for line in lines)


def run_status(folder: str | Path) -> RunStatus:
    """Read a run folder: the state is `dead` where a process died without saying so (--resume goes on)."""
    run = RunFolder.open(folder)
    plan, status = run.plan(), run.status()
    step: StepEvent | None = None
    evaluation: EvalEvent | None = None
    for event in run.events():
        if isinstance(event, StepEvent):
            step = event
        elif isinstance(event, EvalEvent):
            evaluation = event
        elif isinstance(event, StopEvent):
            pass
    state = status.state if status is not None else "dead"
    message = status.message if status is not None else "no status was written"
    if state in {"training", "verifying"} and not run.is_alive():
        state, message = "dead", "its process is gone: go on with `geonb train run --resume -o FOLDER`"
    made, horizon = (step.step if step else 0), int(plan.horizon["steps"])
    pace = status.seconds_per_step if status is not None else None
    verdict = Verification.load(run.verification_path).verdict if run.verification_path.is_file() else None
    return RunStatus(
        folder=str(run.path),
        state=state,
        step=made,
        horizon=horizon,
        loss=step.loss if step else None,
        validation_loss=evaluation.loss if evaluation else None,
        binding=step.binding if step else None,
        seconds_per_step=pace,
        seconds_left=pace * (horizon - made) if pace is not None and state == "training" else None,
        verdict=verdict,
        message=message,
    )
