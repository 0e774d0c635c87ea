"""Problems with checkable answers: read and checked, split, drawn for a round, and turned into prompts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geonb.assets import resolve_data
from geonb.data.records import json_of_line
from geonb.errors import InputError
from geonb.records import plain
from geonb.workbench.star.checking import reference_answer

# a held-out part of a file: a fifth, at most what a paired test of some points needs, at least what a test can use
_SHARE, _MOST, _LEAST = 0.2, 256, 20


@dataclass(frozen=True, slots=True)
class Problem:
    """One question: the turns before the solution, the answer to be found, and a worked solution where there is one."""

    id: str
    turns: tuple[dict[str, str], ...]
    answer: str
    group: str | None
    worked: str | None

    @property
    def digest(self) -> str:
        """sha256 of the question; the same question has the same digest wherever it stands."""
        return hashlib.sha256(json.dumps(self.turns, sort_keys=True).encode()).hexdigest()

    def hinted(self) -> tuple[dict[str, str], ...]:
        """The turns with the answer told in the last of them, as rationalisation asks (Zelikman et al. 2022, section 3.3)."""
        last = self.turns[-1]
        return (*self.turns[:-1], {**last, "content": f"{last['content']} (The answer is {self.answer}.)"})


@dataclass(frozen=True, slots=True)
class Problems:
    """What a whole STaR run asks: the pool to learn from, what is held out, the worked examples, and notes on both."""

    pool: tuple[Problem, ...]
    held_out: tuple[Problem, ...]
    shots: tuple[Problem, ...]
    split: str
    notes: tuple[str, ...]


def read_problems(source: str | Path) -> list[Problem]:
    """The problems of a JSONL file (or `embedded:NAME`): {"messages", "answer"} or {"prompt", "answer"} a line.

    A last turn of the assistant is the worked solution, which is never shown as the problem's own. "id" and "group" are
    optional; a "prompt" becomes one turn of the user. Raises `InputError` with the line's number for anything else, also
    for a record without an answer.
    """
    path = resolve_data(source)
    if not path.is_file():
        raise InputError(f'{path} is not a file; problems are JSONL of {{"prompt", "answer"}} records: check the path.')
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text (byte {error.start}); allowed is JSONL in UTF-8: save it so."
        ) from None
    found = [_problem(f"{path} line {number}", number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise InputError(f'{path} is empty; it needs problems such as {{"prompt": "2 + 2 = ?", "answer": "4"}}.')
    return found


def _problem(where: str, number: int, line: str) -> Problem:
    data = json_of_line(where, line)
    if not isinstance(data, dict) or ("prompt" in data) == ("messages" in data):
        raise InputError(f'{where} needs exactly one of the fields "prompt" and "messages": mend the line.')
    answer = data.get("answer")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if not isinstance(answer, str) or not reference_answer(answer):
        raise InputError(
            f'{where} has no "answer" that is a text or a number; self-taught reasoning keeps only what it can check: '
            "add the answer or remove the line."
        )
    worked, turns = None, data.get("messages")
    if "prompt" in data:
        turns = [{"role": "user", "content": data["prompt"]}]
    if not isinstance(turns, list) or not all(
        isinstance(one, dict) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str)
        for one in turns
    ):
        raise InputError(
            f'{where} has a question that is not a text or a list of {{"role", "content"}} texts: mend it.'
        )
    turns = [{"role": one["role"], "content": one["content"]} for one in turns]
    if turns and turns[-1]["role"] == "assistant":
        worked = turns.pop()["content"]
    if not turns or turns[-1]["role"] != "user" or not turns[-1]["content"].strip():
        raise InputError(f"{where} has no question of the user before the solution: mend or remove the line.")
    group, name = data.get("group"), data.get("id", f"line-{number}")
    if group is not None and not isinstance(group, str):
        raise InputError(f'{where} has a "group" that is a {type(group).__name__}; allowed is a string: mend the line.')
    return Problem(str(name), tuple(turns), reference_answer(answer), group, worked)


def gather_problems(data: str | Path, eval_data: str | Path | None, *, few_shot: int, seed: int) -> Problems:
    """Read both sides and see to it that no question stands on two: the pool, the held-out problems, the worked examples.

    Without `eval_data` a fifth (at most 256) of the file is held out, seeded; `embedded:chat` has held-out problems of its
    own. Raises `InputError` where a side is too small, the files are one, or worked examples are missing.
    """
    read = read_problems(data)
    pool = list({problem.digest: problem for problem in reversed(read)}.values())[::-1]
    notes = [f"{len(read) - len(pool)} repeated questions were left out"] if len(read) > len(pool) else []
    if eval_data is None and str(data) == "embedded:chat":
        eval_data = "embedded:chat/eval"
    rng = np.random.default_rng([seed, 0])
    if eval_data is not None:
        if resolve_data(eval_data).resolve() == resolve_data(data).resolve():
            raise InputError(
                f"--eval-data was given {eval_data}, which is the file of the problems itself: give another file, or leave "
                "it out to have a fifth held out."
            )
        held = list({problem.digest: problem for problem in read_problems(eval_data)}.values())
        split = f"{eval_data}"
        known = {problem.digest for problem in held}
        common = sum(problem.digest in known for problem in pool)
        if common:
            notes.append(f"{common} questions are held out too and were left out of the pool")
            pool = [problem for problem in pool if problem.digest not in known]
    else:
        count = min(_MOST, int(_SHARE * len(pool)))
        if count < _LEAST:
            raise InputError(
                f"{data} holds {len(pool)} different problems; to hold out a fifth of them takes {int(_LEAST / _SHARE)} or "
                "more: give more, or a file of held-out problems with --eval-data."
            )
        chosen = set(rng.permutation(len(pool))[:count].tolist())
        held = [problem for place, problem in enumerate(pool) if place in chosen]
        pool = [problem for place, problem in enumerate(pool) if place not in chosen]
        split = f"{count} held out by a seeded draw"
    if len(held) < 2:
        raise InputError(f"{len(held)} problems are held out; a paired test needs at least two: give more.")
    shots: list[Problem] = []
    if few_shot:
        worked = [place for place, problem in enumerate(pool) if problem.worked]
        if len(worked) < few_shot:
            raise InputError(
                f"--few-shot was given {few_shot}, and {len(worked)} problems of {data} have a worked solution (a last "
                "turn of the assistant): give such records, or --few-shot 0."
            )
        places = {worked[int(index)] for index in rng.permutation(len(worked))[:few_shot]}
        shots = [problem for place, problem in enumerate(pool) if place in places]
        pool = [problem for place, problem in enumerate(pool) if place not in places]
    if not pool:
        raise InputError(f"{data} leaves no problem to learn from after the held-out ones: give more problems.")
    return Problems(tuple(pool), tuple(held), tuple(shots), plain(split), tuple(notes))


def drawn(pool: Sequence[Problem], count: int, *, round_number: int, seed: int) -> list[int]:
    """Places of the problems that round `round_number` (from 1) asks: the next `count` of a seeded order, round and round.

    >>> sorted(drawn(range(5), 3, round_number=1, seed=0) + drawn(range(5), 2, round_number=2, seed=0))  # doctest: +SKIP
    [0, 1, 2, 3, 4]
    """
    count = min(count, len(pool))
    order = np.random.default_rng([seed, 1]).permutation(len(pool))
    start = (round_number - 1) * count
    return [int(order[(start + step) % len(pool)]) for step in range(count)]


def prompt_ids(problem: Problem, tokenizer: Any, *, shots: Sequence[Problem] = (), hint: bool = False) -> list[int]:
    """Token ids of the question as the model reads it, behind the worked examples `shots` where there are some."""
    from geonb.data.template import render

    turns: list[dict[str, str]] = []
    for shot in shots:
        turns += [*shot.turns, {"role": "assistant", "content": shot.worked or ""}]
    turns += problem.hinted() if hint else problem.turns
    try:
        written = render(tokenizer, turns, prompt=True)
    except Exception as error:  # a template raises whatever it likes
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"the chat template refuses the problem {plain(problem.id)} ({reason}): mend its record."
        ) from None
    return list(tokenizer(written, add_special_tokens=False, verbose=False)["input_ids"])
