"""Many notebooks, some at a time: planned and checked before the first, kept as each ends, resumed where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from geonb.claims.planning import PlannedBatch, plan_batch
from geonb.claims.register import load_claims, papers_folder
from geonb.claims.run import PASSED, NotebookRun, PlannedRun
from geonb.claims.runner import RunningNotebook
from geonb.errors import InputError
from geonb.record_tables import table_html
from geonb.records import Record, atomic_write, is_file, is_folder, plain

PLANNED, KEPT, STARTED, FINISHED = "planned", "kept", "started", "finished"
_POLL = 0.1  # seconds
_FACTS, _RUNS, _LOCK = "batch.json", "runs", ".lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFacts(Record):
    """What all runs in one folder have in common."""

    profile: str
    model: str  # of --model, "" where each notebook has its own


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchEvent(Record):
    """Something that happened to a batch: `kind` is planned (once), kept (not run again), started or finished."""

    kind: str
    name: str  # of the notebook, "" for "planned"
    done: int
    total: int
    run: NotebookRun | None  # of "kept" and "finished"
    names: tuple[str, ...]  # of "planned": every notebook in order
    notes: tuple[str, ...]  # of "planned": what a person may not expect


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(Record):
    """The runs that one call asked for, those that stood in the folder already among them."""

    folder: str
    profile: str
    runs: tuple[NotebookRun, ...]
    notes: tuple[str, ...]  # what a person should know of it

    @property
    def verdict(self) -> str:
        """ "passed" where every notebook passed, else "failed"."""
        return "passed" if all(run.state == PASSED for run in self.runs) else "failed"

    def summary(self) -> str:
        passed = sum(run.state == PASSED for run in self.runs)
        return f"Batch({self.profile}: {passed} of {len(self.runs)} notebooks passed, in {self.folder})"

    def to_text(self) -> str:
        width = max((len(run.plan.name) for run in self.runs), default=0)
        lines = [f"{len(self.runs)} notebooks in {self.folder} ({self.profile}): {self.verdict}"]
        for run in self.runs:
            lines.append(f"  {run.state:9}  {run.plan.name:{width}}  {run.seconds:6.0f} s  {_said(run)}")
        return "\n".join(plain(line) for line in [*lines, *(f"  note: {note}" for note in self.notes)])

    def to_html(self) -> str:
        rows = [(run.plan.name, run.state, f"{run.seconds:.0f} s", _said(run)) for run in self.runs]
        return table_html(("notebook", "", "time", "what it said"), rows, caption=f"{self.folder} ({self.profile})")


def run_claims(
    ids: Sequence[str] = (),
    *,
    profile: str = "smoke",
    model: str | None = None,
    jobs: int = 1,
    output: str | Path | None = None,
    again: bool = False,
    timeout: float | None = None,
    papers: str | Path | None = None,
    progress: Callable[[BatchEvent], object] = lambda event: None,
) -> Batch:
    """Run the notebooks of the claims `ids` (all where none is given), each in a process of its own; see `claim_events`.

    >>> run_claims(["zero-knob"], profile="smoke").verdict    # doctest: +SKIP
    'passed'
    """
    runs: dict[str, NotebookRun | None] = {}
    notes: tuple[str, ...] = ()
    folder = batch_folder(output, profile, model)
    for event in claim_events(
        ids, profile=profile, model=model, jobs=jobs, output=folder, again=again, timeout=timeout, papers=papers
    ):
        progress(event)
        if event.kind == PLANNED:
            # in this order, whichever ends first
            runs, notes = dict.fromkeys(event.names), event.notes
        elif event.run is not None:
            runs[event.name] = event.run
    made = tuple(run for run in runs.values() if run is not None)
    return Batch(folder=str(folder), profile=profile, runs=made, notes=notes)


def claim_events(
    ids: Sequence[str] = (),
    *,
    profile: str = "smoke",
    model: str | None = None,
    jobs: int = 1,
    output: str | Path | None = None,
    again: bool = False,
    timeout: float | None = None,
    papers: str | Path | None = None,
) -> Iterator[BatchEvent]:
    """Run notebooks, `jobs` at a time, and yield what happens; leaving the loop ends what runs and keeps what has finished.

    Everything is checked before the first one starts: ids, parameters, model, folder. A notebook that stands in the folder
    with the same cells, parameters, rows of the register, model and version of geonb is kept, unless it broke or timed out,
    or `again` is asked for. `timeout` is in seconds, for each notebook. Raises `InputError` for what cannot be run, and for
    a folder that is no batch's, holds one of another profile or model, or is being filled by another process.
    """
    if jobs < 1:
        raise InputError(f"jobs was given {jobs}; allowed is 1 or more: how many notebooks run at a time.")
    if timeout is not None and not timeout > 0:
        raise InputError(f"the time-out was given {timeout:g} s; allowed is any number above 0.")
    home = Path(papers) if papers is not None else papers_folder()
    register = load_claims(home / "claims.toml")
    planned = plan_batch(ids, register=register, root=home.resolve().parent, profile=profile, model=model)
    folder = batch_folder(output, profile, model)
    with _HeldFolder(folder, BatchFacts(profile=profile, model=planned.model)):
        yield from _events(planned, folder, home, jobs, again, timeout)


def batch_folder(output: str | Path | None, profile: str, model: str | None) -> Path:
    """`output`, by default claims-run/PROFILE or claims-run/PROFILE-MODEL in the working folder.

    There, because executed notebooks are for reading, and one folder a profile, because a look in the smoke profile must
    not replace a result that took hours. The folder tells git to leave it out.
    """
    if output is not None:
        return Path(output)
    name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in Path(model or "").name)
    return Path("claims-run") / (f"{profile}-{name}" if name else profile)


def runs_of(folder: str | Path) -> tuple[NotebookRun, ...]:
    """Every run that a batch's folder holds, by name; raises `InputError` for a folder that is none."""
    folder = Path(folder)
    if not is_file(folder / _FACTS):
        raise InputError(f"{folder} is no folder of a batch (no {_FACTS}): make one with `geonb claims run`.")
    return tuple(NotebookRun.load(path) for path in sorted((folder / _RUNS).rglob("*.json")))


def _events(
    planned: PlannedBatch, folder: Path, papers: Path, jobs: int, again: bool, timeout: float | None
) -> Iterator[BatchEvent]:
    total, done = len(planned.runs), 0

    def event(kind: str, name: str, run: NotebookRun | None = None) -> BatchEvent:
        return BatchEvent(kind=kind, name=name, done=done, total=total, run=run, names=(), notes=())

    names = tuple(plan.name for plan in planned.runs)
    yield replace(event(PLANNED, ""), names=names, notes=planned.notes)
    waiting: list[PlannedRun] = []
    for plan in planned.runs:
        before = None if again else _kept(folder, plan)
        if before is None:
            waiting.append(plan)
            continue
        done += 1
        yield event(KEPT, plan.name, before)
    running: list[RunningNotebook] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                plan = waiting.pop(0)
                running.append(RunningNotebook(plan, root=papers.resolve().parent, papers=papers, timeout=timeout))
                yield event(STARTED, plan.name)
            for one in [one for one in running if one.is_done()]:
                run = one.collect(folder)
                running.remove(one)
                path = _path_of(folder, one.plan)
                path.parent.mkdir(parents=True, exist_ok=True)
                run.save(path)
                done += 1
                yield event(FINISHED, one.plan.name, run)
            time.sleep(_POLL if running else 0)
    finally:
        for one in running:
            one.end()


def _path_of(folder: Path, plan: PlannedRun) -> Path:
    return folder / _RUNS / f"{plan.name}.json"


def _kept(folder: Path, plan: PlannedRun) -> NotebookRun | None:
    """The run that stands there and need not be made again."""
    try:
        run = NotebookRun.load(_path_of(folder, plan))
    except InputError:
        return None
    return run if run.is_final and run.plan.key == plan.key else None


class _HeldFolder:
    """A batch's folder, made or checked, and locked until the block ends."""

    def __init__(self, folder: Path, facts: BatchFacts) -> None:
        from filelock import FileLock

        if folder.exists() and not is_folder(folder):
            raise InputError(f"{folder} is a file; allowed is a folder: give another with --output.")
        if is_folder(folder) and any(folder.iterdir()) and not is_file(folder / _FACTS):
            raise InputError(f"{folder} holds something else than a batch: give another folder with --output.")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._facts = folder, facts
        self._lock = FileLock(str(folder / _LOCK), timeout=0)

    def __enter__(self) -> None:
        from filelock import Timeout

        try:
            self._lock.acquire()
        except Timeout:
            raise InputError(
                f"{self._folder} is being filled by another process: wait for it, or give another folder with --output."
            ) from None
        try:
            self._check()
        except BaseException:
            self._lock.release()
            raise

    def _check(self) -> None:
        path = self._folder / _FACTS
        if not is_file(path):
            atomic_write(self._folder / ".gitignore", "*\n")
            self._facts.save(path)
            return
        before = BatchFacts.load(path)
        if before != self._facts:
            raise InputError(
                f"{self._folder} holds a batch of the profile {plain(before.profile)} and {_named(before.model)}, and "
                f"{self._facts.profile} with {_named(self._facts.model)} was asked for: give another folder with --output."
            )

    def __exit__(self, *exception: object) -> None:
        self._lock.release()


def _named(model: str) -> str:
    return f"the model {plain(model)}" if model else "each notebook's own model"


def _said(run: NotebookRun) -> str:
    return run.problem or "; ".join(f"{name} {verdict.decision}" for name, verdict in run.verdicts().items())
