"""Our own figures, `papers/NAME/results.json`: what a run said of each claim, and with what it was made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from geonb.claims.checks import Check
from geonb.claims.environment import Environment
from geonb.claims.register import Claim, Register
from geonb.claims.run import PASSED, NotebookRun
from geonb.errors import InputError
from geonb.records import Record, is_file, plain

FILE = "results.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRecord(Record):
    """What one run said of one claim; the checks hold the measured figures, with interval and n."""

    claim: str
    profile: str
    model: str  # its name without a machine's path, "" for a notebook without one
    decision: str  # the verdict of this run, "" where it reached none
    registered: str  # our verdict in the register when it ran
    because: str
    passed: bool
    problem: str
    checks: tuple[Check, ...]
    notebook: str
    parameters: dict[str, Any]
    seconds: float  # of the notebook, which may judge more claims than this one
    finished: str
    environment: Environment
    notebook_hash: str
    rows_hash: str
    rule_hash: str
    model_hash: str

    @property
    def key(self) -> tuple[str, str, str]:
        """One record is kept for each."""
        return self.claim, self.profile, self.model

    def summary(self) -> str:
        return f"ClaimRecord({self.claim}, {self.profile}: {self.decision or 'no verdict'})"


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperResults(Record):
    """The kept records of one paper's claims, one for each claim, profile and model."""

    paper: str
    results: tuple[ClaimRecord, ...]

    def summary(self) -> str:
        return f"PaperResults({self.paper}: {len(self.results)} results)"


def claim_records(run: NotebookRun, claims: Iterable[Claim]) -> tuple[ClaimRecord, ...]:
    """What a run said of each of `claims` that it was to judge."""
    plan, verdicts = run.plan, run.verdicts()
    found = []
    for claim in claims:
        if claim.id not in plan.rules:
            continue
        verdict, problem = verdicts.get(claim.id), run.problem_of(claim.id)
        found.append(
            ClaimRecord(
                claim=claim.id,
                profile=plan.profile,
                model=_without_path(plan.model),
                decision=verdict.decision if verdict else "",
                registered=verdict.registered if verdict else claim.verdict,
                because=verdict.because if verdict else "",
                passed=run.state == PASSED or (verdict is not None and not problem),
                problem=problem,
                checks=verdict.checks if verdict else (),
                notebook=plan.notebook,
                parameters={name: _without_path(value) for name, value in plan.parameters.items()},
                seconds=run.seconds,
                finished=run.finished,
                environment=run.environment,
                notebook_hash=plan.notebook_hash,
                rows_hash=plan.rows_hash,
                rule_hash=plan.rules[claim.id],
                model_hash=plan.model_hash,
            )
        )
    return tuple(found)


def record_runs(runs: Iterable[NotebookRun], *, papers: str | Path, register: Register) -> tuple[Path, ...]:
    """Write what `runs` said into results.json of each paper, in place of an older record of the same claim, profile and
    model; returns the files that were written.

    A run that broke or timed out says nothing of its claims, and replaces nothing.
    """
    root = Path(papers).resolve().parent
    by_paper: dict[str, dict[tuple[str, str, str], ClaimRecord]] = {}
    paper_of = {claim.id: claim.paper for claim in register.claims}
    for run in runs:
        if run.is_final:
            for one in claim_records(run, register.claims):
                by_paper.setdefault(paper_of[one.claim], {})[one.key] = one
    order = {claim.id: place for place, claim in enumerate(register.claims)}
    # every file is read before one is written: a damaged one stops nothing half-way
    merged = []
    for paper, fresh in by_paper.items():
        folder = root / paper
        if not folder.is_dir():
            raise InputError(f"{plain(paper)} is no folder, and the register names it as a paper's: make it first.")
        before = load_results(folder)
        kept = {one.key: one for one in (before.results if before else ())} | fresh
        results = sorted(kept.values(), key=lambda one: (order.get(one.claim, len(order)), one.key))
        merged.append((folder / FILE, PaperResults(paper=folder.name, results=tuple(results))))
    return tuple(record.save(path) for path, record in merged)


def load_results(folder: str | Path) -> PaperResults | None:
    """Our figures of the paper in `folder`, None where there are none yet; raises `InputError` for a file that is none."""
    path = Path(folder) / FILE
    if not is_file(path):
        return None
    try:
        return PaperResults.load(path)
    except InputError as error:
        raise InputError(f"{plain(path)}: {plain(error)}") from None


def _without_path(value: Any) -> Any:
    """The last part of an absolute path: where a folder lies is one machine's business."""
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value
