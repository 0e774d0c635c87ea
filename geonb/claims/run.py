"""One run of one notebook, as it is planned and as it is kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from geonb.claims.environment import Environment
from geonb.claims.register import Claim
from geonb.claims.verdict import ClaimResult, Verdict
from geonb.records import Record, encode

PASSED, FAILED, BROKE, TIMED_OUT = "passed", "failed", "broke", "timed out"
STATES = (PASSED, FAILED, BROKE, TIMED_OUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun(Record):
    """A notebook, the parameters that it will run with, and what its result depends on."""

    name: str  # of its files in the batch's folder
    notebook: str  # from the root of the repository
    ids: tuple[str, ...]  # the claims that it judges, each with all its parts
    profile: str
    model: str  # as it was named, "" for a notebook without one
    parameters: dict[str, Any]
    notebook_hash: str
    rows_hash: str  # of the register's rows of these claims
    rules: dict[str, str]  # of each claim, or part of one: the hash of what it says and how it is judged
    model_hash: str  # of the model's files, "" for a notebook without one
    geonb: str

    @property
    def key(self) -> str:
        """sha256 of all that decides the result: two runs with one key need be made once."""
        return digest_of(self.to_dict())

    def summary(self) -> str:
        return f"PlannedRun({self.name}: {', '.join(self.ids)}, {self.profile})"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotebookRun(Record):
    """How one run of one notebook ended, and what it said of its claims."""

    plan: PlannedRun
    state: str  # passed, failed (by the rule), broke (raised, or judged nothing) or timed out
    problem: str  # the first reason why it did not pass, "" where it did
    executed: str  # the notebook with its outputs, from the batch's folder; "" where it left none
    seconds: float
    finished: str  # UTC, to the second
    environment: Environment
    results: tuple[ClaimResult, ...]

    @property
    def is_final(self) -> bool:
        """Whether running it again could only say the same: what broke or timed out may have been the machine's fault."""
        return self.state in (PASSED, FAILED)

    def verdicts(self) -> dict[str, Verdict]:
        """The verdict on every claim, or part of one, that it judged."""
        return {verdict.claim: verdict for result in self.results for verdict in result.verdicts}

    def problem_of(self, claim: str) -> str:
        """Why this claim did not pass in this run, "" where it did."""
        own = [problem for result in self.results for problem in result.problems if problem.startswith(f"{claim}: ")]
        judged = claim in self.verdicts()
        if own:
            return own[0].removeprefix(f"{claim}: ")
        return "" if judged and self.state in (PASSED, FAILED) else self.problem

    def summary(self) -> str:
        told = "; ".join(result.summary() for result in self.results) or self.problem
        return f"NotebookRun({self.plan.name} {self.state} in {self.seconds:.0f} s: {told})"


def rows_hash(claims: tuple[Claim, ...]) -> str:
    """sha256 of the register's rows, as a whole."""
    return digest_of([claim.to_dict() for claim in claims])


def rule_hash(claim: Claim) -> str:
    """sha256 of what a claim says and how it is judged; our verdict on it is no part of that."""
    return digest_of([claim.id, claim.statement, claim.rule, list(claim.controls)])


def digest_of(data: Any) -> str:
    """sha256 of JSON data, the same whatever the order of its keys."""
    return hashlib.sha256(json.dumps(encode(data), sort_keys=True).encode()).hexdigest()
