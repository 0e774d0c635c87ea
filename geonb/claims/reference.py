"""The published figures of a paper, `papers/NAME/reference.json`: what our own are held against."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from geonb.claims.register import Register, load_claims
from geonb.errors import InputError
from geonb.record_tables import table_html
from geonb.records import Record, is_file, plain

FILE = "reference.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFigure(Record):
    """A figure as its authors published it, and which of our checks measures the same."""

    claim: str  # its id in the register, with its part
    check: str  # the name of the check whose figure is compared, "" where none measures the same
    published: float
    interval: tuple[float, float] | None
    n: int | None  # how many units it rests on
    unit: str
    on: str  # the model or data
    note: str

    def told(self) -> str:
        """The figure with its interval and sample size."""
        return told_figure(self.published, self.interval, self.n, self.unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference(Record):
    """All published figures of one paper."""

    paper: str  # the name of its folder
    source: str  # where they were published
    figures: tuple[PublishedFigure, ...]

    def summary(self) -> str:
        return f"Reference({self.paper}: {len(self.figures)} figures)"

    def to_text(self) -> str:
        lines = [f"{self.paper}: {self.source}"]
        lines += [
            f"  {one.claim}: {one.told()}{f', {one.on}' if one.on else ''}{f' ({one.note})' if one.note else ''}"
            for one in self.figures
        ]
        return "\n".join(plain(line) for line in lines)

    def to_html(self) -> str:
        rows = [(one.claim, one.told(), one.on, one.check, one.note) for one in self.figures]
        return table_html(("claim", "published", "on", "our check", ""), rows, caption=f"{self.paper}: {self.source}")


def load_reference(folder: str | Path, *, register: Register | None = None) -> Reference:
    """The published figures of the paper in `folder`, such as papers/zero-knob.

    Raises `InputError` for a file that is not there or no JSON, a missing, unknown or ill-typed field, another paper's
    name, a claim that the register has not, a figure that is not finite, an interval whose ends are the wrong way round,
    and a sample size below 1.

    >>> load_reference("papers/semantic-highway").figures[0].published    # doctest: +SKIP
    15.786
    """
    path = Path(folder) / FILE
    if not is_file(path):
        raise InputError(f"{plain(path)} is not a file: a paper's published figures stand there.")
    try:
        reference = Reference.load(path)
    except InputError as error:
        raise InputError(f"{plain(path)}: {plain(error)}") from None
    name = Path(folder).resolve().name
    if reference.paper != name:
        raise InputError(
            f"{plain(path)} is of the paper {plain(reference.paper)!r}; allowed is {name!r}, its folder's name."
        )
    if not reference.source.strip():
        raise InputError(
            f"{plain(path)}: the field 'source' is empty; allowed is a sentence: say where it was published."
        )
    known = {claim.id for claim in (load_claims() if register is None else register).claims}
    for place, figure in enumerate(reference.figures, 1):
        _check(figure, known, f"{plain(path)}, figure {place}")
    return reference


def load_references(papers: str | Path, *, register: Register | None = None) -> tuple[Reference, ...]:
    """The published figures of every paper that has some, in the order of their folders; see `load_reference`."""
    found = load_claims(Path(papers) / "claims.toml") if register is None else register
    return tuple(load_reference(path.parent, register=found) for path in sorted(Path(papers).glob(f"*/{FILE}")))


def told_figure(value: float | None, interval: tuple[float, float] | None, n: int | None, unit: str) -> str:
    """A figure as text, with what is known of its spread.

    >>> told_figure(0.5, (0.4, 0.6), 30, "nats")
    '0.5 nats [0.4, 0.6] (n = 30)'
    """
    if value is None:
        return "not measured"
    ends = f" [{interval[0]:.4g}, {interval[1]:.4g}]" if interval else ""
    return f"{value:.4g}{f' {unit}' if unit else ''}{ends}{f' (n = {n})' if n is not None else ''}"


def _check(figure: PublishedFigure, known: Iterable[str], where: str) -> None:
    if figure.claim not in known:
        raise InputError(
            f"{where}: the claim {plain(figure.claim)!r} is not in the register; allowed are its ids, with part."
        )
    ends = figure.interval or (figure.published, figure.published)
    if not all(map(math.isfinite, (figure.published, *ends))):
        raise InputError(
            f"{where}: a number of {figure.claim} is not finite; allowed are numbers: leave an open one out."
        )
    if ends[0] > ends[1]:
        raise InputError(f"{where}: the interval of {figure.claim} is {list(ends)}; allowed is the lower end first.")
    if figure.n is not None and figure.n < 1:
        raise InputError(
            f"{where}: n of {figure.claim} is {figure.n}; allowed is 1 or more, or null where it is not known."
        )
