"""What a command does more of in a notebook: a map that fills in while the cell works, and runs that train behind it.

Nothing here happens in a shell: there a command works, prints, and ends.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from geonb.errors import GeonbError, InputError
from geonb.train.run_folder import RunFolder

_background: contextvars.ContextVar[bool] = contextvars.ContextVar("background", default=False)
_jobs: list[TrainingJob] = []


@contextmanager
def in_background() -> Iterator[None]:
    """Inside the block `train run` starts its training in a thread and returns a `TrainingJob`."""
    token = _background.set(True)
    try:
        yield
    finally:
        _background.reset(token)


def is_background() -> bool:
    """Whether a training shall be started behind the cell."""
    return _background.get()


class TrainingJob:
    """A training that runs in a thread of this process; shown as its live trace.

    `result()` waits for the `Run`, `stop()` asks for the end at the next step, with a checkpoint.
    """

    def __init__(self, folder: str | Path, work: Callable[[], Any]) -> None:
        self.folder = str(folder)
        self._work = work
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._carry_out, name=f"geonb-train-{Path(folder).name}", daemon=True)

    def start(self) -> TrainingJob:
        """Begin, and return as soon as the run's folder can be followed; what fails before that is raised here."""
        own = Path(self.folder).resolve()
        if any(Path(job.folder).resolve() == own and job.is_running for job in _jobs):
            raise InputError(f"the run {self.folder} is training in this process: stop it first, or give another -o.")
        written = Path(self.folder) / "plan.json"
        before = _changed(written)
        _jobs.append(self)
        self._thread.start()
        while self._thread.is_alive():
            # an overwritten run has an older plan there until the new one is written
            if (now := _changed(written)) is not None and now != before:
                break
            if before is not None and RunFolder(self.folder).is_alive():
                break
            time.sleep(0.02)
        if self._error is not None and not written.exists():
            raise self._error
        return self

    def _carry_out(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error

    @property
    def is_running(self) -> bool:
        """Whether the thread still trains or verifies."""
        return self._thread.is_alive()

    def stop(self) -> TrainingJob:
        """Ask the run to stop at its next step."""
        if self.is_running:
            RunFolder(self.folder).request_stop()
        return self

    def result(self, timeout: float | None = None) -> Any:
        """The `Run`, when it is done; raises what ended it, or `InputError` when `timeout` seconds were not enough."""
        self._thread.join(timeout)
        if self.is_running:
            raise InputError(
                f"the run {self.folder} is still training after {timeout} seconds: wait longer, or stop it."
            )
        if self._error is not None:
            raise self._error
        return self._result

    def __repr__(self) -> str:
        state = "training" if self.is_running else "failed" if self._error is not None else "done"
        return f"TrainingJob({self.folder!r}, {state})"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        from geonb.widgets.mass_trace import MassTrace

        try:
            return MassTrace(self.folder)._repr_mimebundle_(include, exclude)
        except GeonbError as error:
            return {"text/plain": f"{self!r}: {error}"}


def _changed(path: Path) -> int | None:
    """When `path` was last written, None while it is not there."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def running_jobs() -> list[TrainingJob]:
    """The trainings of this process that have not ended, oldest first."""
    return [job for job in _jobs if job.is_running]


def explored(checkpoint: Any) -> Any:
    """In a live notebook: show the map of `checkpoint`, let it fill in, and return the spectra; None elsewhere."""
    from geonb.cli.output import is_quiet

    if not is_quiet():
        return None
    from geonb.widgets import displayed

    if not displayed.is_live():
        return None
    from IPython.display import clear_output, display

    from geonb.widgets.spectrum_explorer import SpectrumExplorer

    explorer = SpectrumExplorer(checkpoint)
    display(explorer)
    try:
        explorer.wait()
        return explorer.record
    finally:
        # the record is shown as the cell's result, so the map that filled in makes room for it
        explorer.close()
        clear_output(wait=True)
