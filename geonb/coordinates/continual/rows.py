"""One run of the forgetting table as a line of a JSONL file that can be cut at any moment and taken up again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from geonb.record_lines import read_lines
from geonb.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgettingRow(Record):
    """One arm on one sequence; `matrix[k][j]` is the exact accuracy on task j after task k, `shares` that of parts of answers."""

    stage: str  # teachers or operations
    tasks: int
    seed: int
    arm: str
    optimiser: str
    steps: int  # a task
    pretraining: int  # steps of the base, 0 for teachers
    rates: tuple[float, ...]  # as in `Rates.values`
    pairs: int  # of the cores
    lora: int  # rank of a LoRA for each task
    parameters: int  # trained, over all tasks
    read_for_one: int  # of those, read when one task is asked
    start: tuple[float, ...]  # accuracy before anything was learned
    before: tuple[float, ...]  # accuracy on each task just before it was learned; none for joint training
    chance: tuple[float, ...]  # the most frequent answer's share, task by task
    matrix: tuple[tuple[float, ...], ...]
    shares: tuple[tuple[float, ...], ...]
    inferred: tuple[float, ...] | None  # final accuracy where the task's id is guessed from the question
    inferred_by: str
    largest_kernel: float | None
    seconds: float

    @property
    def key(self) -> str:
        """What makes two runs the same run."""
        return row_key(**{name: getattr(self, name) for name in KEYS})


# what a run was asked with
KEYS = ("stage", "tasks", "seed", "arm", "optimiser", "steps", "pretraining", "rates", "pairs", "lora")


def row_key(**asked: object) -> str:
    """The key of a run, from what it was asked with: all of `KEYS`."""
    return json.dumps([asked[name] for name in KEYS], separators=(",", ":"))


def read_rows(path: Path) -> dict[str, ForgettingRow]:
    """Every whole row by its key, {} where there is no file."""
    return {row.key: row for row in read_lines(path, ForgettingRow, "row of a forgetting table")}
