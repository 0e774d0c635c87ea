"""What a dashboard shows: the models, run folders and batches of claims it was given, looked up anew on each page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geonb.claims.ledger import Ledger, ledger_of
from geonb.claims.register import papers_folder
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.plan.plan import Plan
from geonb.train.run_folder import RunFolder

PAPERS = "papers"  # the name of the ledger of the register's own results


class Library:
    """Models, runs and batches of claims by name; a folder that holds runs stands for all of them, also those that come later.

    Raises `InputError` where something given is neither a run, nor a folder with runs, nor a batch's, nor a model.
    """

    def __init__(self, sources: Sequence[str], *, plan: Plan | None = None) -> None:
        self.plan = plan
        self.models: dict[str, str] = {}
        self._runs: list[Path] = []
        self._shelves: list[Path] = []
        self.batches: dict[str, Path] = {}
        for source in sources:
            path = Path(source)
            if RunFolder(path).is_run():
                self._runs.append(path)
            elif is_batch(path):
                name = path.resolve().name
                self.batches[name if name not in (*self.batches, PAPERS) else str(source)] = path
            elif path.is_dir() and not (path / "config.json").is_file():
                self._shelves.append(path)
                if not any(path.glob("*/plan.json")):
                    raise InputError(
                        f"{source} is a folder with neither a run (plan.json) nor a model (config.json) in it: give a "
                        "model, a run, a folder of runs, or that of a `geonb claims run`."
                    )
            else:
                name = Checkpoint.open(source).name
                self.models[name if name not in self.models else str(source)] = str(source)
        if plan is not None:
            self.models.setdefault(str(plan.model["name"]), str(plan.model["source"]))

    def runs(self) -> dict[str, Path]:
        """The runs that are there now, by a name of their own, the latest first."""
        found = [path for path in self._runs if RunFolder(path).is_run()]
        for shelf in self._shelves:
            found += [path.parent for path in shelf.glob("*/plan.json")]
        named: dict[str, Path] = {}
        # names do not depend on which run is the latest: a link goes on meaning the same one
        for path in sorted(dict.fromkeys(found)):
            name = path.resolve().name
            named[name if name not in named else str(path)] = path
        return dict(sorted(named.items(), key=lambda item: _changed(item[1]), reverse=True))

    def ledgers(self) -> list[str]:
        """The batches that were given, then the register's own results where there is a register."""
        try:
            papers_folder()
        except InputError:
            return list(self.batches)
        return [*self.batches, PAPERS]

    def ledger(self, name: str) -> tuple[Ledger, Path]:
        """The ledger called `name`, read anew, and the folder that its links are relative to."""
        if name in self.batches:
            return ledger_of(self.batches[name]), self.batches[name]
        return ledger_of(), papers_folder().resolve().parent

    def model_sources(self) -> dict[str, str]:
        """The models that were given, then those that the runs were made from."""
        found = dict(self.models)
        for path in self.runs().values():
            plan = read_plan(path)
            if plan is not None:
                found.setdefault(str(plan.model["name"]), str(plan.model["source"]))
        return found


def is_batch(path: Path) -> bool:
    """Whether a folder holds a `geonb claims run`."""
    return (path / "batch.json").is_file()


def read_plan(path: Path) -> Plan | None:
    """The plan of a run, None where it is gone or half-written."""
    try:
        return RunFolder.open(path).plan()
    except Exception:
        # a damaged file may raise nearly anything, and is one folder among many
        return None


def _changed(path: Path) -> float:
    try:
        return (path / "trace.jsonl").stat().st_mtime
    except OSError:
        return 0.0


def one_of(wanted: Any, allowed: Sequence[str]) -> str | None:
    """`wanted` where it is allowed, else the first of `allowed`, else None."""
    return wanted if wanted in allowed else (allowed[0] if allowed else None)
