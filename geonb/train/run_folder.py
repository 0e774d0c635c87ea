"""The folder of a training run: plan, trace and status, checkpoint/, adapter/, verification.json and losses.json.

The trace is append-only and the source of truth for every view, also from another process. `status.json` holds what
depends on the clock. A file named `stop` is a request that the loop honours at its next step.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from geonb.errors import InputError
from geonb.plan.plan import Plan
from geonb.records import Record, atomic_write
from geonb.train.events import Event, event_from_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(Record):
    """Where a run stands, with its clock: written every second or so by the process that trains."""

    state: str  # "training", "verifying", "done", "stopped" or "failed"
    step: int
    horizon: int
    process: int
    started: float  # seconds since 1970
    updated: float
    seconds_per_step: float | None = None
    message: str = ""


def _is_taken(path: Path) -> bool:
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def refuse_existing(path: str | Path | None) -> None:
    """Raise the `InputError` for an output that is already there, before any work is done for it."""
    if path is not None and _is_taken(Path(path)):
        raise InputError(
            f"the output {path} exists; allowed is a new or empty folder: choose another with -o, "
            "add --resume to go on with that run, or --overwrite to replace it."
        )


class RunFolder:
    """The files of one run, with the rules for creating, appending to and reading them."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | Path, plan: Plan, *, overwrite: bool = False) -> RunFolder:
        """Make the folder and write the plan; an existing run is never touched unless `overwrite` says so."""
        folder = cls(path)
        if not overwrite:
            refuse_existing(path)
        elif _is_taken(folder.path):
            if not folder.is_run():
                raise InputError(
                    f"{folder.path} is not a geonb run, so --overwrite leaves it alone: choose another with -o."
                )
            if folder.is_alive():
                raise InputError(
                    f"{folder.path} is in training, so --overwrite leaves it alone: stop it first, or choose another -o."
                )
            shutil.rmtree(folder.path)
        folder.path.mkdir(parents=True, exist_ok=True)
        plan.save(folder.plan_path)
        return folder

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """The existing run at `path`."""
        folder = cls(path)
        if not folder.is_run():
            raise InputError(
                f"{folder.path} holds no plan.json; allowed is the folder of a run: give the -o of a `train run`."
            )
        return folder

    def is_run(self) -> bool:
        return self.plan_path.is_file()

    @property
    def plan_path(self) -> Path:
        return self.path / "plan.json"

    @property
    def trace_path(self) -> Path:
        return self.path / "trace.jsonl"

    @property
    def checkpoint_path(self) -> Path:
        return self.path / "checkpoint" / "state.safetensors"

    @property
    def adapter_path(self) -> Path:
        return self.path / "adapter"

    @property
    def last_adapter_path(self) -> Path:
        return self.path / "adapter-last"

    @property
    def verification_path(self) -> Path:
        return self.path / "verification.json"

    @property
    def samples_path(self) -> Path:
        return self.path / "samples.json"

    @property
    def losses_path(self) -> Path:
        return self.path / "losses.json"

    @property
    def report_path(self) -> Path:
        return self.path / "report.html"

    def plan(self) -> Plan:
        """The plan of this run."""
        return Plan.load(self.plan_path)

    def append(self, event: Event) -> int:
        """Add one event to the trace and return the trace's length in bytes."""
        line = json.dumps(event.to_dict(), allow_nan=False, ensure_ascii=False, separators=(",", ":")) + "\n"
        with self.trace_path.open("ab") as stream:
            stream.write(line.encode("utf-8"))
            stream.flush()
            return stream.tell()

    def trace_length(self) -> int:
        """Bytes in the trace."""
        return self.trace_path.stat().st_size if self.trace_path.exists() else 0

    def cut_trace(self, length: int) -> None:
        """Forget what was written after the checkpoint that a resumed run starts from."""
        if self.trace_path.exists():
            os.truncate(self.trace_path, length)

    def events(self) -> Iterator[Event]:
        """The events so far; a last line that is still being written is left out."""
        if not self.trace_path.exists():
            return
        with self.trace_path.open("rb") as stream:
            for line in stream:
                if line.endswith(b"\n"):
                    yield event_from_line(line)

    def write_status(self, status: Status) -> None:
        """Replace status.json."""
        atomic_write(self.path / "status.json", status.to_json() + "\n")

    def status(self) -> Status | None:
        """The last written status, or None before the first."""
        path = self.path / "status.json"
        return Status.from_json(path.read_text(encoding="utf-8")) if path.is_file() else None

    def is_alive(self) -> bool:
        """Whether the process that trains this run exists and wrote its status within the last minute."""
        status = self.status()
        if status is None or status.state not in {"training", "verifying"} or time.time() - status.updated > 60:
            return False
        try:
            os.kill(status.process, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def request_stop(self) -> None:
        """Ask the run to stop at its next step, with a checkpoint."""
        (self.path / "stop").touch()

    def take_stop_request(self) -> bool:
        """Whether a stop was asked for; the request is used up."""
        request = self.path / "stop"
        if not request.exists():
            return False
        request.unlink(missing_ok=True)
        return True
