"""A notebook in a process of its own: started, watched, ended, and what it left taken in."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geonb.claims.emit import MIME, OUTPUT
from geonb.claims.environment import Environment
from geonb.claims.execute import JOB, LOG, RESULT, SOURCE, end_processes
from geonb.claims.run import BROKE, FAILED, PASSED, TIMED_OUT, NotebookRun, PlannedRun
from geonb.claims.verdict import ClaimResult
from geonb.errors import InputError
from geonb.records import atomic_write, is_file, parse_json, plain, read_bytes

# what a kept notebook may hold: text, pages and pictures, never a view that needs a kernel
_KEPT = ("text/plain", "text/html", "image/svg+xml", "image/png")
_VERDICT = "verdict.json"
_LONGEST = 400  # characters of a problem


class RunningNotebook:
    """A notebook that runs now, in a folder of its own that is removed at its end.

    Neither its working folder nor its environment says where the repository is: what it needs of it, it asks geonb for.
    """

    def __init__(self, plan: PlannedRun, *, root: Path, papers: Path, timeout: float | None = None) -> None:
        self.plan = plan
        self._timeout = timeout
        self._folder = Path(tempfile.mkdtemp(prefix="geonb-claim-")).resolve()
        try:
            self._start(root, papers)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def _start(self, root: Path, papers: Path) -> None:
        folder = self._folder
        for name in ("shelf", "temporary"):
            (folder / name).mkdir()
        (folder / SOURCE).write_bytes(read_bytes(root / self.plan.notebook))
        job = {"parameters": self.plan.parameters, "parent": os.getpid()}
        (folder / JOB).write_text(json.dumps(job), encoding="utf-8")
        environment = {
            **os.environ,
            "GEONB_VIEWS": "static",
            "GEONB_PAPERS": str(papers.resolve()),
            # its temporary files go with its folder
            "TMPDIR": str(folder / "temporary"),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        }
        # a path that was relative to this process's folder
        if os.environ.get("GEONB_CACHE"):
            environment["GEONB_CACHE"] = str(Path(os.environ["GEONB_CACHE"]).resolve())
        environment.pop(OUTPUT, None)
        if len(self.plan.ids) == 1:
            # one file holds the result of one claim; several are read from the last cell alone
            environment[OUTPUT] = str(folder / _VERDICT)
        self._environment = Environment.here(threads=environment["OMP_NUM_THREADS"])
        self._begun = time.monotonic()
        with (folder / LOG).open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "geonb.claims.execute"],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in the terminal reaches the one who watches, and it alone ends the others
                start_new_session=True,
            )

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._begun

    @property
    def is_late(self) -> bool:
        """Whether it has used up its time."""
        return self._timeout is not None and self.seconds > self._timeout

    def is_done(self) -> bool:
        """Whether its process has ended, or is to be ended because it is late."""
        return self._process.poll() is not None or self.is_late

    def end(self) -> None:
        """Kill it with its kernel and remove its folder; what it had found is lost."""
        end_processes(self._process.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        shutil.rmtree(self._folder, ignore_errors=True)

    def collect(self, batch: Path) -> NotebookRun:
        """Take in what it left, keep the notebook with its outputs below `batch`/executed, and remove its folder."""
        code = self._process.poll()
        seconds = self.seconds
        if code is None:
            end_processes(self._process.pid)
            self._process.wait(timeout=10)
        try:
            notebook = _read_notebook(self._folder / RESULT)
            results, unread = self._results(notebook)
            state, problem = self._judged(code, notebook, results, unread)
            if state == TIMED_OUT:
                _mark_ended(notebook, problem)
            executed = self._keep(notebook, batch, passed=state == PASSED)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        return NotebookRun(
            plan=self.plan,
            state=state,
            problem=problem[:_LONGEST],
            executed=executed,
            seconds=round(seconds, 2),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            environment=self._environment,
            results=results,
        )

    def _results(self, notebook: dict[str, Any] | None) -> tuple[tuple[ClaimResult, ...], str]:
        """What it judged, once a claim, and why something of it could not be read."""
        found: dict[str, ClaimResult] = {}
        try:
            for bundle in _last_bundles(notebook):
                result = ClaimResult.from_dict(bundle)
                found[result.claim] = result
            if is_file(self._folder / _VERDICT):
                result = ClaimResult.load(self._folder / _VERDICT)
                found[result.claim] = result
        except InputError as error:
            return tuple(found.values()), str(error)
        return tuple(found.values()), ""

    def _judged(
        self, code: int | None, notebook: dict[str, Any] | None, results: tuple[ClaimResult, ...], unread: str
    ) -> tuple[str, str]:
        """The state, and the first reason why it did not pass."""
        if code is None:
            return TIMED_OUT, f"it was ended after {self._timeout:g} s, which is its time-out."
        if unread:
            return BROKE, f"its result cannot be read: {unread}"
        judged, wanted = [result.claim for result in results], list(self.plan.ids)
        missing = [name for name in wanted if name not in judged]
        if missing:
            last = _last_words(self._folder / LOG)
            return BROKE, _error_of(notebook) or last or f"it ended without judging {', '.join(missing)}."
        for result in results:
            if result.claim not in wanted:
                return BROKE, f"it judged {plain(result.claim)}, and the register has it judge {', '.join(wanted)}."
            if result.profile != self.plan.profile:
                return BROKE, f"it judged by the profile {plain(result.profile)}, and was run with {self.plan.profile}."
        problems = [problem for result in results for problem in result.problems]
        if problems:
            return FAILED, plain(problems[0])
        if code:
            return BROKE, _error_of(notebook) or _last_words(self._folder / LOG)
        return PASSED, ""

    def _keep(self, notebook: dict[str, Any] | None, batch: Path, *, passed: bool) -> str:
        if notebook is None:
            return ""
        target = f"executed/{self.plan.name}.ipynb"
        path = batch / target
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(_cleaned(notebook, errors=not passed), indent=1, ensure_ascii=False)
        # its folder is another one each time, and is gone
        text = re.sub(re.escape(json.dumps(str(self._folder))[1:-1]) + r"(/shelf|/temporary)?", "shelf", text)
        atomic_write(path, text.encode("utf-8", errors="replace") + b"\n")
        return target


def _read_notebook(path: Path) -> dict[str, Any] | None:
    """The notebook at `path`; None where there is none, or where it was cut while it was being written."""
    if not is_file(path):
        return None
    try:
        data = parse_json(read_bytes(path), path.name)
    except InputError:
        return None
    cells = data.get("cells") if isinstance(data, dict) else None
    return data if isinstance(cells, list) and all(isinstance(cell, dict) for cell in cells) else None


def _code_cells(notebook: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The notebook's own code cells: the one that papermill puts in with the parameters is none of them."""
    return [
        cell
        for cell in (notebook or {}).get("cells", [])
        if cell.get("cell_type") == "code" and "injected-parameters" not in cell.get("metadata", {}).get("tags", [])
    ]


def _mark_ended(notebook: dict[str, Any] | None, problem: str) -> None:
    """Say in the cell that was running why nothing follows it."""
    error = {
        "output_type": "error",
        "ename": "TimeoutError",
        "evalue": problem,
        "traceback": [f"TimeoutError: {problem}"],
    }
    for cell in _code_cells(notebook):
        if cell.get("metadata", {}).get("papermill", {}).get("status") == "running":
            cell["outputs"] = [*cell.get("outputs", []), error]


def _last_bundles(notebook: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The results that the last code cell shows; no other cell's count."""
    cells = _code_cells(notebook)
    outputs = cells[-1].get("outputs", []) if cells else []
    return [output["data"][MIME] for output in outputs if MIME in output.get("data", {})]


def _error_of(notebook: dict[str, Any] | None) -> str:
    """The error that ended the run, as one sentence; "" where no cell raised one."""
    for place, cell in enumerate(_code_cells(notebook), 1):
        for output in cell.get("outputs", []):
            if output.get("output_type") == "error":
                value = " ".join(str(output.get("evalue", "")).split())
                return plain(f"code cell {place} raised {output.get('ename')}: {value}")
    return ""


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip()]
    return plain(f"its process ended early: {said[-1]}") if said else ""


def _cleaned(notebook: dict[str, Any], *, errors: bool) -> dict[str, Any]:
    """The notebook with outputs that any reader shows; what went to stderr stays only where something went wrong."""
    metadata = notebook.get("metadata", {})
    cells = []
    for cell in notebook["cells"]:
        tags = cell.get("metadata", {}).get("tags", [])
        cell = {**cell, "metadata": {"tags": tags} if tags else {}}
        if cell.get("cell_type") == "code":
            kept = [output for output in cell.get("outputs", []) if errors or output.get("name") != "stderr"]
            cell["outputs"] = [one for one in map(_clean_output, kept) if one.get("data", True)]
        cells.append(cell)
    kernel = metadata.get("kernelspec", {"name": "python3", "display_name": "Python 3", "language": "python"})
    return {**notebook, "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}}, "cells": cells}


def _clean_output(output: dict[str, Any]) -> dict[str, Any]:
    if "data" not in output:
        return output
    data = output["data"]
    # a bar of a library is a widget with nothing to fall back on
    is_bar = "application/vnd.jupyter.widget-view+json" in data and "text/html" not in data
    kept = {} if is_bar else {kind: value for kind, value in data.items() if kind in _KEPT}
    return {**output, "data": kept, "metadata": {}}
