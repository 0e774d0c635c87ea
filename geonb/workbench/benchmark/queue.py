"""The queue of runs: takes the next one that the design asks for, appends its row, and can be stopped at any moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from geonb.errors import InputError
from geonb.models.cache import cache_folder
from geonb.models.checkpoint import Checkpoint
from geonb.record_lines import append_line, read_lines
from geonb.record_tables import table_html
from geonb.records import Record
from geonb.workbench.benchmark.design import STAGES, Stage
from geonb.workbench.benchmark.duration import duration, expected_seconds
from geonb.workbench.benchmark.job import Job, Row
from geonb.workbench.benchmark.models import can_be_made, model_source
from geonb.workbench.benchmark.run_job import run_job


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLeft(Record):
    """A stage of the design, how many of its runs are known to be missing, and how long these take on one core."""

    name: str
    missing: int
    seconds: float = 0.0  # of those whose model has a row
    untimed: int = 0  # the others

    def time(self) -> str:
        """What is known of the time, in words; nothing where nothing is missing."""
        if not self.missing:
            return ""
        if self.untimed == self.missing:
            return "of unknown length"
        return ("more than " if self.untimed else "about ") + duration(self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState(Record):
    """Where the queue of one results file stands; what is missing may grow, because results decide what is asked next."""

    rows: str  # the results file
    found: int  # runs in it
    made: int  # of these, by this call
    stages: tuple[StageLeft, ...]

    def summary(self) -> str:
        return f"QueueState({self.found} runs in {self.rows}, {sum(one.missing for one in self.stages)} known to be missing)"

    def to_text(self) -> str:
        said = f"{self.found} runs in {self.rows}" + (f", {self.made} of them made now" if self.made else "")
        head = f"{said}; known to be missing, and how long they take (more may follow from their results):"
        width = max((len(one.name) for one in self.stages), default=0)
        lines = (f"  {one.missing:4d}  {one.name:{width}}  {one.time()}".rstrip() for one in self.stages)
        return "\n".join([head, *lines])

    def to_html(self) -> str:
        table = [(one.name, str(one.missing), one.time()) for one in self.stages]
        return table_html(("stage", "runs missing", "time"), table, caption=f"{self.found} runs in {self.rows}")


def read_rows(path: Path) -> dict[str, Row]:
    """Every whole row of a results file by its key, the later one where two have the same; {} where there is no file."""
    return {row.key: row for row in read_lines(path, Row, "row of the benchmark")}


def of_models_here(rows: dict[str, Row]) -> dict[str, Row]:
    """`rows` without those whose model was trained anew on this machine since: they are another model's.

    A model that is not here keeps its rows: nothing says that they are wrong.
    """
    here: dict[str, str | None] = {}
    for row in rows.values():
        name = row.job.model
        if name not in here:
            try:
                here[name] = Checkpoint.open(model_source(name, make=False)).digest
            except InputError:
                here[name] = None
    return {key: row for key, row in rows.items() if here[row.job.model] in (None, row.model_digest)}


def pending(rows: dict[str, Row], stages: tuple[Stage, ...] = STAGES) -> Iterator[tuple[Stage, list[Job]]]:
    """Each stage with the runs it is known to lack now."""
    for stage in stages:
        yield stage, stage.missing(rows)


def _wanted(jobs: list[Job], accept: Callable[[Job], bool]) -> list[Job]:
    """Those that are accepted and can be run: a model that cannot be made again has rows or has none."""
    return [job for job in jobs if can_be_made(job.model) and accept(job)]


def queue_state(
    path: Path,
    *,
    accept: Callable[[Job], bool] = lambda job: True,
    made: int = 0,
    stages: tuple[Stage, ...] = STAGES,
) -> QueueState:
    """What each stage still lacks, of the runs that `accept` allows; `made` is handed on."""
    rows = of_models_here(read_rows(path))
    left = [_left(stage, _wanted(jobs, accept), rows) for stage, jobs in pending(rows, stages)]
    return QueueState(rows=str(path), found=len(rows), made=made, stages=tuple(left))


def _left(stage: Stage, jobs: list[Job], rows: dict[str, Row]) -> StageLeft:
    seconds = expected_seconds(jobs, rows)
    known = [one for one in seconds if one is not None]
    return StageLeft(name=stage.name, missing=len(jobs), seconds=round(sum(known), 1), untimed=len(jobs) - len(known))


def run_queue(
    path: Path,
    *,
    accept: Callable[[Job], bool] = lambda job: True,
    should_stop: Callable[[], bool] = lambda: False,
    starting: Callable[[Stage, Job, int], Callable[[int, int], None] | None] = lambda stage, job, left: None,
    finished: Callable[[Row], None] = lambda row: None,
    stages: tuple[Stage, ...] = STAGES,
) -> int:
    """Make the design's runs one by one into `path` until none is left or `should_stop()`; returns how many were made.

    `accept` limits which runs are made. Raises `InputError` where another process fills the same file.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"{path} is being filled by another process: wait for it, or give another file.") from None
    made = 0
    try:
        rows = of_models_here(read_rows(path))
        while not should_stop():
            found = _next(rows, stages, accept)
            if found is None:
                break
            stage, job, left = found
            row = run_job(job, cache_folder() / "benchmark-data", progress=starting(stage, job, left))
            append_line(path, row)
            rows[row.key] = row
            made += 1
            finished(row)
    finally:
        lock.release()
    return made


def _next(
    rows: dict[str, Row], stages: tuple[Stage, ...], accept: Callable[[Job], bool]
) -> tuple[Stage, Job, int] | None:
    for stage, jobs in pending(rows, stages):
        if wanted := _wanted(jobs, accept):
            return stage, wanted[0], len(wanted)
    return None
