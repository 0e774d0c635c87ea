"""Conditions under which a method might break: few examples, wrong answers, weights changed in one way.

A condition of the data is named after its domain, as in `kjv+64` or `chat+swapped-50`, and changes the training records
alone: what is evaluated is the domain's own. One of the weights is named after its model, as in `llama-1m+bf16`, and made
in `derived`. Those of a run are fields of `Job`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from geonb.errors import InputError

Record = dict[str, Any]
# so many of the shipped held-out windows measure what a run forgets; pages that hold one of these are not trained on
N_RETENTION = 64


@dataclass(frozen=True, slots=True)
class DataCondition:
    """What is done to the training records of a domain, by a generator that the seed decides."""

    name: str
    title: str
    change: Callable[[list[Record], random.Random], list[Record]]


def few(count: int) -> Callable[[list[Record], random.Random], list[Record]]:
    """Keep the first `count` of the seed's order."""

    def kept(records: list[Record], generator: random.Random) -> list[Record]:
        del generator
        return records[:count]

    return kept


def swapped(share: float) -> Callable[[list[Record], random.Random], list[Record]]:
    """Give the answers of `share` of the records to one another, so that each of these has another answer than its own.

    The answers are those that were there, each as often as before: only which question they belong to is lost.
    """

    def noisy(records: list[Record], generator: random.Random) -> list[Record]:
        chosen = generator.sample(range(len(records)), round(share * len(records)))
        answers = [_answer(records[place]) for place in chosen]
        changed = list(records)
        for place, taken in zip(chosen, deranged(answers, generator), strict=True):
            *turns, last = records[place]["messages"]
            changed[place] = {**records[place], "messages": [*turns, {**last, "content": taken}]}
        return changed

    return noisy


def _answer(record: Record) -> str:
    turns = record.get("messages") or []
    if not turns or turns[-1]["role"] != "assistant":
        raise InputError("answers were to be swapped in a domain that has none: give one of chat, arithmetic, modules.")
    return turns[-1]["content"]


def deranged(values: Sequence[str], generator: random.Random) -> list[str]:
    """`values` in another order in which none equals what stood in its place, as random as that allows.

    Raises `InputError` where one value makes up more than half of them, because no such order is there then.
    """
    order = list(values)
    generator.shuffle(order)
    for place, own in enumerate(values):
        if order[place] != own:
            continue
        # exchanged with a place for which both are then right; others that are still wrong may be among these
        places = [other for other, theirs in enumerate(values) if order[other] != own and theirs != order[place]]
        if not places:
            raise InputError(f"one answer makes up more than half of {len(values)}: no order gives each another one.")
        other = generator.choice(places)
        order[place], order[other] = order[other], order[place]
    return order


DATA = {
    one.name: one
    for one in (
        DataCondition("64", "64 training examples", few(64)),
        DataCondition("swapped-10", "a tenth of the answers belong to other questions", swapped(0.1)),
        DataCondition("swapped-50", "half of the answers belong to other questions", swapped(0.5)),
    )
}


def data_condition(name: str) -> DataCondition:
    """The condition `name`, or an `InputError` that lists them."""
    if name not in DATA:
        raise InputError(f"the condition {name!r} of a domain was given; the benchmark has {', '.join(DATA)}.")
    return DATA[name]


def base_text(measured: Sequence[str]) -> tuple[list[Record], list[Record]]:
    """Windows of the pages that the base models were kept from, to train on and to evaluate on, by page.

    No page that holds one of the `measured` texts is among them, so that what is measured as base text stays apart.
    Raises `InputError` where the documentation packages are not installed.
    """
    from geonb.assets.build.corpus import is_held_out
    from geonb.assets.build.sources import SOURCES, pages

    sides: tuple[list[Record], list[Record]] = ([], [])
    seen: set[str] = set()
    for source in SOURCES:
        number = 0
        for name, text in pages(source):
            # as the corpus has it: of two pages with one text the first decides
            if text in seen or seen.add(text) or not is_held_out(name) or any(one in text for one in measured):
                continue
            # by their order within the package: the hash of the name has held them out already
            sides[number % 4 == 1].extend({"text": window} for window in windows(text))
            number += 1
    return sides


def windows(text: str, characters: int = 200) -> list[str]:
    """`text` in runs of whole words of about that many characters."""
    found, rest = [], text
    while len(rest) >= characters:
        end = rest.rfind(" ", characters // 2, characters)
        end = characters if end < 0 else end
        found.append(rest[:end].strip("\n"))
        rest = rest[end:].lstrip(" ")
    return found


@dataclass(frozen=True, slots=True)
class WeightCondition:
    """One change of a model's weights; `first_domain` is what the model was trained on before, if it was."""

    title: str
    first_domain: str | None = None


WEIGHTS = {
    "bf16": WeightCondition("weights rounded to bfloat16"),
    "random": WeightCondition("random weights of the same config"),
    "dead": WeightCondition("a dead layer and a zero matrix"),
    "gains-up": WeightCondition("gains x 8, the maps after them / 8"),
    "gains-down": WeightCondition("gains / 8, the maps after them x 8"),
    "after-chat": WeightCondition("trained on chat before, and merged", "chat"),
}


def parted(model: str) -> tuple[str, str]:
    """The base model and the condition that a name joins; the condition is empty where there is none.

    >>> parted("llama-1m+bf16"), parted("llama-1m")
    (('llama-1m', 'bf16'), ('llama-1m', ''))
    """
    base, plus, condition = model.rpartition("+")
    return (base, condition) if plus and condition in WEIGHTS else (model, "")
