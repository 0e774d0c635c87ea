"""One derived number: what it replaces, its value and the documented one, where both come from and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from geonb.derive.rounding import rounded
from geonb.errors import DerivationError
from geonb.record_tables import table_html
from geonb.records import Record

Evidence = Literal["proven", "validated", "empirical", "conjectural", "disproven", "convention"]
EVIDENCE: tuple[str, ...] = get_args(Evidence)


class Outcome(NamedTuple):
    """What a `compute` returns from one set of inputs: the value that geonb uses and the documented formula's."""

    used: Any
    documented: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation(Record):
    """One of the fifteen: a number with its formula, inputs, source, evidence and reason.

    `value` is what geonb uses and `documented_value` what the specification's formula gives; None is *unmeasured*.
    Numbers that differ by matrix are dicts keyed by the matrix's name. `evidence` speaks of `value`,
    `documented_evidence` of the documented formula; each is one of `EVIDENCE`. `applied` says whether this run uses
    the documented idea or geonb's form of it at all. `beside` holds alternatives that are shown and never used.
    """

    number: int  # 1..15
    key: str  # the name of the file in geonb/derive
    replaces: str
    value: Any
    unit: str
    formula: str
    inputs: dict[str, Any]
    source: str
    evidence: Evidence
    applied: bool
    because: str
    documented_value: Any
    documented_formula: str
    documented_evidence: Evidence
    beside: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for tag in (self.evidence, self.documented_evidence):
            if tag not in EVIDENCE:
                raise DerivationError(f"{self.key} carries the evidence {tag!r}; allowed are {', '.join(EVIDENCE)}.")

    @property
    def brief(self) -> str:
        """The value and its unit; of a list of matrices the unit alone, which counts them."""
        if isinstance(self.value, tuple | list):
            return self.unit
        return f"{shown(self.value)} {self.unit}".strip()

    def summary(self) -> str:
        return f"Derivation({self.number} {self.key}: {self.brief}, {self.evidence})"

    def to_text(self) -> str:
        """Value, formula, evidence, reason and the documented counterpart, one to a line."""
        lines = [
            f"{self.number}. {self.replaces}: {shown(self.value)} {self.unit}".rstrip(),
            f"   formula     {self.formula}",
            f"   documented  {shown(self.documented_value)}   {self.documented_formula}   [{self.documented_evidence}]",
            f"   evidence    {self.evidence}; {'applied' if self.applied else 'not applied'}; {self.source}",
            f"   because     {self.because}",
        ]
        lines += [f"   beside      {name}: {shown(item)}" for name, item in self.beside.items()]
        return "\n".join(lines)

    def to_html(self) -> str:
        """The same as an escaped table."""
        rows = [
            ("value", f"{shown(self.value)} {self.unit}".strip()),
            ("formula", self.formula),
            ("documented", f"{shown(self.documented_value)} by {self.documented_formula} ({self.documented_evidence})"),
            ("evidence", f"{self.evidence}; {'applied' if self.applied else 'not applied'}"),
            ("source", self.source),
            ("because", self.because),
            *((f"beside: {name}", shown(item)) for name, item in self.beside.items()),
        ]
        return table_html((f"{self.number}", self.replaces), rows)


def shown(value: Any) -> str:
    """A value as a reader sees it: a range for numbers by matrix, "unmeasured" for None.

    >>> shown({"layers.0.q": 1, "layers.0.k": 3})
    '1 .. 3'
    >>> shown(None)
    'unmeasured'
    """
    if value is None:
        return "unmeasured"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        items = list(value.values())
        if not items:
            return "nothing"
        if all(isinstance(item, int | float) and not isinstance(item, bool) for item in items) and not _is_named(value):
            low, high = min(items), max(items)
            return shown(low) if low == high else f"{shown(low)} .. {shown(high)}"
        if all(isinstance(item, bool) for item in items):
            return f"{sum(items):,} of {len(items):,}"
        return ", ".join(f"{key} {shown(item)}" for key, item in value.items())
    if isinstance(value, tuple | list):
        return ", ".join(shown(item) for item in value)
    return str(value)


def _is_named(value: Mapping[str, Any]) -> bool:
    # names of matrices have dots; a handful of named settings have none and are shown one by one
    return len(value) <= 6 and not any("." in key for key in value)


def make(outcome: Outcome, inputs: Mapping[str, Any], **fields: Any) -> Derivation:
    """A `Derivation` from what `compute(**inputs)` returned, every float rounded as it is stored."""
    return Derivation(
        value=rounded(outcome.used), documented_value=rounded(outcome.documented), inputs=rounded(inputs), **fields
    )
