"""Which solutions are kept to train on, how they become records, and the wrong ones that make the null control."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geonb.errors import InputError
from geonb.records import atomic_write
from geonb.workbench.star.problems import Problem

# with fewer solved problems a fifth of them is below two, and an adapter cannot be chosen by its validation loss
LEAST = 10
_SHARE, _MOST = 0.2, 256

Row = dict[str, Any]


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    """Write `rows` as JSONL, whole or not at all."""
    return atomic_write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_rows(path: Path) -> list[Row]:
    """Read back what `write_rows` wrote; raises `InputError` for a file that is something else."""
    try:
        return [json.loads(line) for line in path.read_bytes().decode("utf-8").split("\n") if line]
    except ValueError:
        raise InputError(f"{path} is not the JSONL that this run wrote: start it again with --overwrite.") from None


def kept_rows(
    rows: Sequence[Row], problems: Sequence[Problem], *, round_number: int, source: str, per_problem: int | None = None
) -> list[Row]:
    """The right solutions among `rows` as training records, each text once a problem (white space aside)."""
    kept, seen = [], defaultdict(set)
    for row in rows:
        text = " ".join(row["text"].split())
        before = seen[row["problem"]]
        if row["right"] and text not in before and (per_problem is None or len(before) < per_problem):
            before.add(text)
            kept.append(as_record(row, problems[row["problem"]], round_number=round_number, source=source))
    return kept


def as_record(row: Row, problem: Problem, *, round_number: int, source: str) -> Row:
    """The conversation that a solution makes: the bare question, without worked examples or a hint, and the solution."""
    record: Row = {"messages": [*problem.turns, {"role": "assistant", "content": row["text"]}]}
    if problem.group is not None:
        record["group"] = problem.group
    return record | {
        "answer": problem.answer,
        "id": problem.id,
        "problem": row["problem"],
        "round": round_number,
        "source": source,
    }


def together(*parts: Sequence[Row]) -> list[Row]:
    """Several rounds' records, the same solution of the same problem once."""
    found: dict[tuple[int, str], Row] = {}
    for row in (row for part in parts for row in part):
        found.setdefault((row["problem"], " ".join(row["messages"][-1]["content"].split())), row)
    return list(found.values())


def divided(rows: Sequence[Row], *, seed: Sequence[int]) -> tuple[list[Row], list[Row]]:
    """To train on, and to choose the adapter by: a fifth of the solved problems (at most 256) with all their solutions.

    By problem, so that no question stands on both sides; the held-out problems take no part in training at all.
    """
    solved = sorted({row["problem"] for row in rows})
    count = min(_MOST, int(_SHARE * len(solved)))
    chosen = {solved[int(place)] for place in np.random.default_rng(list(seed)).permutation(len(solved))[:count]}
    return [row for row in rows if row["problem"] not in chosen], [row for row in rows if row["problem"] in chosen]


def wrong_rows(
    rows: Sequence[Row], problems: Sequence[Problem], kept: Sequence[Row], *, round_number: int, seed: Sequence[int]
) -> list[Row] | None:
    """As many different solutions with a final answer that is wrong as `kept` has, drawn group by group where they reach.

    What a group lacks is filled from the others. None where there are fewer wrong ones than kept ones.
    """
    seen, wrong = set(), []
    for row in rows:
        key = row["problem"], " ".join(row["text"].split())
        if row["answer"] is not None and not row["right"] and key not in seen:
            seen.add(key)
            wrong.append(row)
    if len(wrong) < len(kept):
        return None
    order = np.random.default_rng(list(seed)).permutation(len(wrong))
    wanted: dict[str | None, int] = defaultdict(int)
    for row in kept:
        wanted[row.get("group")] += 1
    taken, rest = [], []
    for place in order:
        group = problems[wrong[int(place)]["problem"]].group
        (taken if wanted[group] > 0 else rest).append(int(place))
        wanted[group] -= 1
    chosen = sorted([*taken, *rest[: len(kept) - len(taken)]])
    return [
        as_record(wrong[place], problems[wrong[place]["problem"]], round_number=round_number, source="wrong answer")
        for place in chosen
    ]
