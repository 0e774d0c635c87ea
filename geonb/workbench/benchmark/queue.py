"""The queue of runs: takes the next one that the design asks for, appends its row, and can be stopped at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from geonb.errors import InputError
from geonb.models.cache import cache_folder
from geonb.workbench.benchmark.design import STAGES, Stage
from geonb.workbench.benchmark.job import Job, Row, run_job


def read_rows(path: Path) -> dict[str, Row]:
    """Every whole row of a results file by its key, the later one where two have the same; {} where there is no file.

    A last line that was cut by a kill is left out: its run is made again.
    """
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    rows = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if number == len(lines):  # no line feed after it
            break
        try:
            row = Row.from_json(line)
        except InputError as error:
            raise InputError(
                f"{path} line {number} is no row of the benchmark ({error}): mend or remove the line."
            ) from None
        rows[row.key] = row
    return rows


def append_row(path: Path, row: Row) -> None:
    """Write one line to the end of `path` and see it onto the disk; a line that a kill left half is cut off first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as stream:
        size = stream.seek(0, os.SEEK_END)
        if size:
            stream.seek(0)
            whole = stream.read().rfind(b"\n") + 1
            if whole < size:
                stream.truncate(whole)
        stream.write((json.dumps(row.to_dict(), allow_nan=False, separators=(",", ":")) + "\n").encode())
        stream.flush()
        os.fsync(stream.fileno())


def pending(rows: dict[str, Row], stages: tuple[Stage, ...] = STAGES) -> Iterator[tuple[Stage, list[Job]]]:
    """Each stage with the runs it is known to lack now."""
    for stage in stages:
        yield stage, stage.missing(rows)


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
        rows = read_rows(path)
        while not should_stop():
            found = _next(rows, stages, accept)
            if found is None:
                break
            stage, job, left = found
            row = run_job(job, cache_folder() / "benchmark-data", progress=starting(stage, job, left))
            append_row(path, row)
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
        wanted = [job for job in jobs if accept(job)]
        if wanted:
            return stage, wanted[0], len(wanted)
    return None
