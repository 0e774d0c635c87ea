"""What a coordinate run's trace says of its phases in words, and the same words read back: one place for both."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from geonb.records import Record

_BEGINS = re.compile(r"phase (\d+) of \d+ begins: (\w+)")
_ENDS = re.compile(r"phase (\d+) of \d+ ends: (\w+); a coordinate varies by ([\d., ]+) \(floor ([\d.]+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSpread(Record):
    """How far a coordinate varies at the end of a phase: mean standard deviation over held-out texts, kind by kind.

    `held` says whether the kinds that were learned so far, this phase's and the earlier ones', vary by the floor or more.
    """

    phase: str
    step: int
    spreads: tuple[float, ...]  # of minimal pairs, compositions and dialogues
    floor: float
    held: bool

    def summary(self) -> str:
        told = ", ".join(f"{one:.2f}" for one in self.spreads)
        floor = f"floor {self.floor:g} {'held' if self.held else 'not held'} over what was learned so far"
        return f"{self.phase} to step {self.step}: {told}; {floor}"


def phase_begins(number: int, phases: int, name: str) -> str:
    """The words of the note that opens a phase; `number` counts from 0."""
    return f"phase {number + 1} of {phases} begins: {name}"


def phase_ends(number: int, phases: int, name: str, spreads: Iterable[float], floor: float) -> str:
    """The words of the note that closes a phase."""
    return f"phase {number + 1} of {phases} ends: {name}; {varies(spreads, floor)}"


def varies(spreads: Iterable[float], floor: float) -> str:
    """How far coordinates vary, in words."""
    return f"a coordinate varies by {', '.join(f'{one:.3f}' for one in spreads)} (floor {floor:g})"


def phase_begun(words: str) -> str | None:
    """The phase that a note opens, if it opens one.

    >>> phase_begun(phase_begins(1, 3, "composition"))
    'composition'
    """
    found = _BEGINS.match(words)
    return found[2] if found else None


def phase_spread(step: int, words: str) -> PhaseSpread | None:
    """The spreads of a note that closes a phase, if it closes one.

    >>> phase_spread(12, phase_ends(1, 3, "composition", (0.9, 0.6, 0.4), 0.5)).held
    True
    """
    found = _ENDS.match(words)
    if not found:
        return None
    spreads, floor = tuple(float(one) for one in found[3].split(", ")), float(found[4])
    learned = spreads[: int(found[1])]
    return PhaseSpread(phase=found[2], step=step, spreads=spreads, floor=floor, held=min(learned) >= floor)
