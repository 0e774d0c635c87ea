"""The benchmark's domains: six kinds of text that the base models never learned from, each split anew by every seed.

Four were looked at while the controller was designed; `modules` and `names` were not, and no choice was made on them.
Everything is made from what ships with geonb and with Python itself, so nothing is fetched. A row of results carries the
digests of its files: Python's own library differs between versions, and rows of different digests are never paired.

A name such as `chat+swapped-50` is a domain under a condition of `conditions`. `base` is no domain of the six: it is text
of the base models' own kind, which they were kept from, and needs the documentation packages that they learned from.
"""

from __future__ import annotations

import hashlib
import json
import random
import sysconfig
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geonb.errors import InputError
from geonb.records import atomic_write
from geonb.workbench.benchmark.conditions import N_RETENTION, base_text, data_condition

N_EVALUATION = 192
_CODE_CHARACTERS = 200
_POOL = 4000

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Domain:
    """One domain: where its records come from, and whether an answer can be right or wrong.

    `pools` gives the records to train on and those to evaluate on, from which each seed draws; where both are one pool
    it is split by record, otherwise the two share no source file.
    """

    name: str
    title: str
    looked_at: bool
    checkable: bool
    pools: Callable[[], tuple[list[Record], list[Record]]]


def _shipped(name: str) -> list[Record]:
    from geonb.assets import resolve_data

    lines = resolve_data(f"embedded:{name}").read_text(encoding="utf-8").splitlines()
    kept = ("text", "messages", "group")
    return [{key: value for key, value in json.loads(line).items() if key in kept} for line in lines]


def _kjv() -> tuple[list[Record], list[Record]]:
    return _shipped("kjv") + _shipped("kjv/eval"), []


def _chat() -> tuple[list[Record], list[Record]]:
    return _shipped("chat") + _shipped("chat/eval"), []


def _is_for_evaluation(name: str, *, one_in: int = 8) -> bool:
    """One source file in `one_in`, by the hash of its name."""
    return hashlib.sha256(name.encode()).digest()[0] % one_in == 0


def _windows(path: Path) -> Iterator[str]:
    """Runs of whole lines of about 200 characters, without comments and blank lines."""
    window = ""
    for line in path.read_text(encoding="utf-8", errors="ignore").splitlines():
        if not line.strip() or line.lstrip().startswith("#") or not line.isascii() or len(line) > 120:
            continue
        window += line.rstrip() + "\n"
        if len(window) >= _CODE_CHARACTERS:
            yield window[: _CODE_CHARACTERS + 40]
            window = ""


def _library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _code() -> tuple[list[Record], list[Record]]:
    """Python's standard library by file: its modules at the top level and a few packages, no tests."""
    root = _library()
    paths = sorted(root.glob("*.py")) + sorted((root / "json").glob("*.py")) + sorted((root / "http").glob("*.py"))
    sides: tuple[list[Record], list[Record]] = ([], [])
    for path in paths:
        name = path.relative_to(root).as_posix()
        sides[_is_for_evaluation(name)].extend({"text": text} for text in _windows(path))
    return sides


_PACKAGES = {"A": "asyncio", "B": "email", "C": "multiprocessing", "D": "unittest"}


def _modules() -> tuple[list[Record], list[Record]]:
    """Which of four packages is this code from? One letter is the answer."""
    root = _library()
    sides: tuple[list[Record], list[Record]] = ([], [])
    question = (
        "Which package is this code from: " + ", ".join(f"{key} {name}" for key, name in _PACKAGES.items()) + "?\n"
    )
    by_side: dict[tuple[bool, str], list[Record]] = {}
    for letter, package in _PACKAGES.items():
        for path in sorted((root / package).rglob("*.py")):
            if "test" in path.relative_to(root / package).parts:
                continue
            side = _is_for_evaluation(path.relative_to(root).as_posix(), one_in=3)
            for text in _windows(path):
                messages = [{"role": "user", "content": question + text}, {"role": "assistant", "content": letter}]
                by_side.setdefault((side, letter), []).append({"messages": messages, "group": package})
    for side in (False, True):
        # as many of each: a constant answer is then right in a quarter of the cases
        count = min(len(by_side.get((side, letter), [])) for letter in _PACKAGES)
        for letter in _PACKAGES:
            sides[side].extend(by_side[side, letter][:count] if count else [])
    return sides


def _arithmetic() -> tuple[list[Record], list[Record]]:
    """Two steps of arithmetic, written out; the numbers decide the answer."""
    generator, seen, records = random.Random(71), set(), []
    while len(records) < _POOL + 1000:
        a, b, c = generator.randint(2, 99), generator.randint(2, 99), generator.randint(2, 9)
        first, second = generator.choice("+-"), generator.choice("+-*")
        if (a, b, c, first, second) in seen:
            continue
        seen.add((a, b, c, first, second))
        middle = a + b if first == "+" else a - b
        last = {"+": middle + c, "-": middle - c, "*": middle * c}[second]
        task = f"What is {a} {first} {b}, then {second} {c}?"
        answer = f"{a} {first} {b} = {middle}. {middle} {second} {c} = {last}"
        records.append({"messages": [{"role": "user", "content": task}, {"role": "assistant", "content": answer}]})
    return records, []


def _names() -> tuple[list[Record], list[Record]]:
    """Unicode's names of characters, four neighbours in a record; no character is in two records."""
    named = []
    for point in (*range(0x00A1, 0x3400), *range(0xA000, 0xAC00), *range(0x10000, 0x1FA00)):
        name = unicodedata.name(chr(point), "")
        # ideographs are named by their number
        if name and not name.startswith("CJK"):
            named.append(f"U+{point:04X} {name}")
    return [{"text": "\n".join(named[start : start + 4])} for start in range(0, len(named) - 4, 4)], []


DOMAINS = {
    domain.name: domain
    for domain in (
        Domain("kjv", "prose of another age (King James)", True, False, _kjv),
        Domain("code", "source code (Python's library)", True, False, _code),
        Domain("arithmetic", "arithmetic with checkable answers", True, True, _arithmetic),
        Domain("chat", "chat: word problems and logic", True, True, _chat),
        Domain("modules", "classification by one answer token", False, True, _modules),
        Domain("names", "names of Unicode characters", False, False, _names),
    )
}


def _base() -> tuple[list[Record], list[Record]]:
    return base_text([record["text"] for record in _shipped("retention")[:N_RETENTION]])


BASE = Domain("base", "text of the base's own kind", True, False, _base)


def domain_of(name: str) -> Domain:
    """The domain `name` (its condition left aside), or an `InputError` that lists them."""
    plain = name.partition("+")[0]
    if plain == BASE.name:
        return BASE
    if plain not in DOMAINS:
        raise InputError(f"the domain {plain!r} was given; the benchmark has {', '.join(DOMAINS)}.")
    return DOMAINS[plain]


def domain_files(name: str, seed: int, folder: Path, *, limit: int | None = None) -> tuple[Path, Path]:
    """Write the split of `name` that `seed` draws below `folder` (once), and return (training, evaluation) files.

    `limit` keeps that many training records, the first of the seed's order. A condition in the name changes the training
    records alone: the file to evaluate on has the bytes that it has without.
    """
    domain = domain_of(name)
    condition = data_condition(said[2]) if (said := name.partition("+"))[1] else None
    target = folder / f"{name}-{seed}" if limit is None else folder / f"{name}-{seed}-{limit}"
    paths = target / "train.jsonl", target / "evaluation.jsonl"
    if all(path.is_file() for path in paths):
        return paths
    training, evaluation = split_of(domain, seed, limit=limit)
    if condition is not None:
        training = condition.change(training, random.Random(f"{name}:{seed}"))
    for path, records in zip(paths, (training, evaluation), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, "".join(json.dumps(record) + "\n" for record in records))
    return paths


def split_of(domain: Domain, seed: int, *, limit: int | None = None) -> tuple[list[Record], list[Record]]:
    """The records to train on and to evaluate on, without duplicates between them."""
    first, second = domain.pools()
    generator = random.Random(f"{domain.name}:{seed}")
    training, evaluation = list(first), list(second)
    generator.shuffle(training)
    if evaluation:
        generator.shuffle(evaluation)
        evaluation = evaluation[:N_EVALUATION]
    else:
        training, evaluation = training[N_EVALUATION:], training[:N_EVALUATION]
    held = {json.dumps(record, sort_keys=True) for record in evaluation}
    training = [record for record in training if json.dumps(record, sort_keys=True) not in held]
    return training[: min(_POOL, limit or _POOL)], evaluation
