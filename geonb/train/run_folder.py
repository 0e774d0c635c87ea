"""The folder of a training run: plan, trace and status, checkpoint/, adapter/, verification.json and losses.json.

The trace is append-only and the source of truth for every view, also from another process. `status.json` holds what
depends on the clock. A file named `stop` is a request that the loop honours at its next step.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from geonb.errors import InputError
from geonb.plan.plan import Plan
from geonb.records import Record, atomic_write, is_file, read_bytes
from geonb.train.events import Event, event_from_line
from geonb.train.own_files import open_own, refuse_link, refuse_other

_NO_TRACE = "this run does not go on: copy it"
_NO_LOCK = "this run is not trained in: remove it"
_NO_STOP = "no stop is asked for: remove it"
_NO_SAVING = "nothing is saved there: remove it"


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
    try:
        return path.exists() and (not path.is_dir() or any(path.iterdir()))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"the output {str(path)[:200]!r} cannot be used ({reason}): choose another with -o.") from None


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
            if folder.path.is_symlink():
                raise InputError(f"{folder.path} is a link, so --overwrite leaves it alone: give the folder itself.")
            if folder.is_alive():
                raise InputError(
                    f"{folder.path} is in training, so --overwrite leaves it alone: stop it first, or choose another -o."
                )
            shutil.rmtree(folder.path)
        folder.path.mkdir(parents=True, exist_ok=True)
        try:
            # of two runs that begin at once, one gets the folder
            atomic_write(folder.plan_path, plan.to_json(indent=1) + "\n", exclusive=True)
        except FileExistsError:
            refuse_existing(path)
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
        return is_file(self.plan_path)

    @property
    def plan_path(self) -> Path:
        return self.path / "plan.json"

    @property
    def trace_path(self) -> Path:
        return self.path / "trace.jsonl"

    @property
    def lock_path(self) -> Path:
        return self.path / ".lock"

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
        """Add one event to the trace and return the trace's length in bytes; a line that does not fit is taken back."""
        line = json.dumps(event.to_dict(), allow_nan=False, ensure_ascii=False, separators=(",", ":")) + "\n"
        before = self.trace_length()
        try:
            with open_own(self.trace_path, "ab", _NO_TRACE) as stream:
                data = line.encode("utf-8")
                if stream.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.trace_path))
                return stream.tell()
        except OSError:
            with contextlib.suppress(OSError):
                self.cut_trace(before)
            raise

    def sync_trace(self) -> None:
        """Have the trace on the disk before a checkpoint counts on it."""
        if self.trace_path.exists():
            with self.trace_path.open("rb") as stream:
                os.fsync(stream.fileno())

    def trace_length(self) -> int:
        """Bytes in the trace."""
        return self.trace_path.stat().st_size if self.trace_path.is_file() else 0

    def cut_trace(self, length: int) -> None:
        """Forget what was written after the checkpoint that a resumed run starts from."""
        refuse_link(self.trace_path, _NO_TRACE)
        refuse_other(self.trace_path, _NO_TRACE)
        if self.trace_length() < length:
            raise InputError(
                f"{self.trace_path} is {self.trace_length():,} bytes long and its checkpoint counts on {length:,}: the trace "
                "was cut or replaced, so this run cannot go on; start it again with --overwrite."
            )
        if self.trace_path.exists():
            with open_own(self.trace_path, "r+b", _NO_TRACE) as stream:
                stream.truncate(length)

    def events(self) -> Iterator[Event]:
        """The events so far; a last line that is still being written is left out."""
        if not self.trace_path.exists():
            return
        if not self.trace_path.is_file():
            raise InputError(f"{self.trace_path} is no file: copy the run again.")
        with self.trace_path.open("rb") as stream:
            for line in stream:
                if line.endswith(b"\n"):
                    yield event_from_line(line)

    def write_status(self, status: Status) -> None:
        """Replace status.json; a disk without room for it stops no training, and the trace says the same."""
        with contextlib.suppress(OSError):
            atomic_write(self.path / "status.json", status.to_json() + "\n")

    def status(self) -> Status | None:
        """The last written status, or None before the first."""
        path = self.path / "status.json"
        return Status.from_json(read_bytes(path)) if path.is_file() else None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Train in this folder alone: the lock goes with the process, however that ends.

        Raises `InputError` where another process, or another thread of this one, trains here, and where something that
        training writes is a link to elsewhere.
        """
        self.refuse_links()
        if fcntl is None:
            yield
            return
        with open_own(self.lock_path, "ab", _NO_LOCK) as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"the run {self.path} is in training elsewhere: wait for it, stop it with `geonb stop {self.path}`, or "
                    "choose another folder with -o."
                ) from None
            except OSError:
                # a file system without locks: the process number in status.json has to do
                yield
                return
            yield

    def refuse_links(self) -> None:
        """Raise `InputError` where a name that this run writes to is a link to elsewhere."""
        for path, consequence in (
            (self.trace_path, _NO_TRACE),
            (self.lock_path, _NO_LOCK),
            (self.path / "stop", _NO_STOP),
            (self.checkpoint_path.parent, _NO_SAVING),
            (self.adapter_path, _NO_SAVING),
            (self.last_adapter_path, _NO_SAVING),
        ):
            refuse_link(path, consequence)

    def is_held(self) -> bool | None:
        """Whether somebody trains here; None where no lock was ever taken."""
        if fcntl is None or not self.lock_path.is_file() or self.lock_path.is_symlink():
            return None
        try:
            with self.lock_path.open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return None
        return False

    def is_alive(self) -> bool:
        """Whether the process that trains this run is there: its lock says so, or its number where there is no lock."""
        status = self.status()
        if status is None or status.state not in {"training", "verifying"}:
            return False
        held = self.is_held()
        if held is not None:
            return held
        if time.time() - status.updated > 60:
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
        open_own(self.path / "stop", "ab", _NO_STOP).close()

    def take_stop_request(self) -> bool:
        """Whether a stop was asked for; the request is used up."""
        request = self.path / "stop"
        if request.is_symlink() or not request.is_file():
            return False
        request.unlink(missing_ok=True)
        return True
