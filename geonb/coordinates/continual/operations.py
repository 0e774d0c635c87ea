"""The 184 operations in five domains: all of them, one by name, their manifest, and prompts drawn from them."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np

from geonb.coordinates.continual.operation import FORMS, Operation, Prompt, ask
from geonb.errors import InputError
from geonb.record_tables import table_html
from geonb.records import Record, plain

DOMAINS = {"mathematics": 48, "physics": 36, "chemistry": 32, "biology": 32, "logic": 36}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed(Record):
    """One operation of the manifest."""

    name: str
    domain: str
    inputs: int  # distinct ones
    example: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(Record):
    """Every operation with its hash; `sha256` is the hash of all of theirs in this order."""

    operations: tuple[Listed, ...]
    sha256: str

    def summary(self) -> str:
        return f"Manifest({len(self.operations)} operations, sha256 {self.sha256[:12]})"

    def to_text(self) -> str:
        rows = [f"  {one.domain:11}  {one.inputs:>9}  {one.sha256[:12]}  {one.example}" for one in self.operations]
        return "\n".join([f"{len(rows)} operations, sha256 {self.sha256}", *rows])

    def to_html(self) -> str:
        rows = [(one.domain, one.name, one.inputs, one.example, one.sha256[:12]) for one in self.operations]
        columns = ("domain", "operation", "distinct inputs", "example", "sha256")
        return table_html(columns, rows, caption=f"{len(rows)} operations, sha256 {self.sha256}")


@functools.cache
def operations() -> tuple[Operation, ...]:
    """All 184 operations, domain by domain.

    >>> len(operations())
    184
    """
    from geonb.coordinates.continual import biology, chemistry, logic, mathematics, physics

    return tuple(one for module in (mathematics, physics, chemistry, biology, logic) for one in module.OPERATIONS)


def by_name(name: str) -> Operation:
    """The operation of a name; raises `InputError` with the nearest names for another."""
    import difflib

    known = {one.name: one for one in operations()}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
        raise InputError(f"the operation {plain(name)!r} was given; the nearest of the 184 are {', '.join(close)}.")
    return known[name]


def draw(
    operation: Operation | str, rng: np.random.Generator, *, form: str = "named", held_out: bool = False
) -> Prompt:
    """A prompt of an operation: `named`, `paraphrased`, or `anonymous` (four worked examples and a question).

    Held-out prompts have inputs that training never draws, and for `paraphrased` a name that it never uses. Raises `InputError`
    for an unknown operation or form.

    >>> draw("sum", np.random.default_rng(0))
    Prompt(sum: 85 63 = 148)
    """
    if form not in FORMS:
        raise InputError(f"the form {plain(form)!r} was given; allowed are {', '.join(FORMS)}.")
    return ask(by_name(operation) if isinstance(operation, str) else operation, rng, form, held_out)


def manifest() -> Manifest:
    """Every operation with the sha256 of what it is and answers."""
    listed = []
    for one in operations():
        example = ask(one, np.random.default_rng(1), "named", False)
        told = f"{example.prompt} {example.answer}"
        listed.append(Listed(name=one.name, domain=one.domain, inputs=one.size, example=told, sha256=one.digest))
    whole = hashlib.sha256("".join(one.sha256 for one in listed).encode()).hexdigest()
    return Manifest(operations=tuple(listed), sha256=whole)


def sequence(count: int, seed: int) -> tuple[Operation, ...]:
    """`count` operations in a seeded order, the domains in turn in proportion to their sizes.

    Raises `InputError` for fewer than 2 or more than 184.
    """
    everything = operations()
    if not 2 <= count <= len(everything):
        raise InputError(f"{count} operations were asked for; allowed are 2 to {len(everything)}.")
    rng = np.random.default_rng(seed)
    queues = {name: [one for one in everything if one.domain == name] for name in DOMAINS}
    for queue in queues.values():
        rng.shuffle(queue)  # type: ignore[arg-type]
    # each operation's place on a common line: domains of different sizes are used up at the same pace
    placed = [((place + 0.5) / len(queue), one) for queue in queues.values() for place, one in enumerate(queue)]
    return tuple(one for _, one in sorted(placed, key=lambda pair: pair[0])[:count])
