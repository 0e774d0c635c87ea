"""The result of a STaR run: what each round sampled, kept and reached, against the start and against a null control."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from geonb.geometry.measurement import Measurement
from geonb.record_tables import table_html
from geonb.records import Record, plain
from geonb.workbench.compare_adapters import PairedTest
from geonb.workbench.star.options import StarOptions
from geonb.workbench.star.picture import accuracy_picture

NO_IMPROVEMENT, NOTHING, FEW, DONE, SOLVED = (
    "no significant improvement",
    "nothing kept",
    "too few kept",
    "rounds done",
    "all solved",
)
ZERO = "training never lowered the loss on the solutions that choose the adapter, so it is zero and the model unchanged"
# a lucky answer that was checked is still a label: a model may learn from it, though not by its own reasoning
LUCK = "no more than luck gives, so what they teach is checked answers and not the model's own reasoning"
_COLUMNS = (
    "round",
    "asked",
    "solutions",
    "right",
    "solved",
    "kept",
    "trained on",
    "accuracy",
    "against the one before",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StarControl(Record):
    """The null of checking: the same training on as many solutions whose answers are wrong, and how much worse it is."""

    solutions: int
    best_step: int | None  # whose adapter is kept; 0: training never lowered the validation loss, it is zero
    accuracy: Measurement | None
    versus: PairedTest | None  # first: the control, second: the round
    verification: str | None  # verdict of the run's own gates
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StarRound(Record):
    """One round: counts of what was drawn and kept, the run that was trained on it, and the held-out accuracy after it.

    `accuracy` and what follows it is None where the round ended before training.
    """

    number: int
    asked: int  # problems
    sampled: int  # solutions
    correct: int  # solutions whose answer is right
    by_chance: Measurement  # how many would be with the answers shuffled between the problems of a group
    without_answer: int  # solutions without a final answer
    solved: int  # problems with at least one right solution
    pass_at: dict[str, Measurement]  # by k
    distinct: int  # different right solutions of this round
    rationalised: int  # of them: solutions that were found with the answer as a hint
    kept: int  # solutions that the round trains on or chooses its adapter by, earlier rounds included where the base is fresh
    train: int
    validation: int
    steps: int | None = None
    best_step: int | None = None  # whose adapter is kept; 0: training never lowered the validation loss, it is zero
    adapter: str | None = None  # relative to the run's folder
    base: str | None = None  # the model that the adapter belongs to
    verification: str | None = None  # verdict of the run's own gates
    accuracy: Measurement | None = None
    by_group: dict[str, tuple[int, int]] | None = None  # right ones, of how many
    versus_previous: PairedTest | None = None
    versus_start: PairedTest | None = None
    control: StarControl | None = None

    @property
    def luck(self) -> str:
        """How many right solutions chance explains, as a sentence's end."""
        low, high = self.by_chance.interval or (self.by_chance.value, self.by_chance.value)
        told = (
            f"{self.by_chance.value:.1f} [{low:.0f}, {high:.0f}] with the answers shuffled between problems of a group"
        )
        return told + ("" if self.correct > high else "; " + LUCK)

    def summary(self) -> str:
        reached = f", accuracy {self.accuracy!r}" if self.accuracy is not None else ""
        return f"StarRound({self.number}: {self.solved} of {self.asked} problems solved, {self.kept} solutions kept{reached})"


@dataclass(frozen=True, slots=True, kw_only=True)
class StarRun(Record):
    """All rounds of a STaR run; `outcome` is improved, degraded, no significant difference, or not tested.

    `final` is the round whose adapter is the result: the last one that was significantly better than the one before it
    (0: none was, and the start stands), or with --all-rounds the last one. `comparison` holds that round against the
    start; where none was better, the last one that was trained.
    """

    options: StarOptions
    split: str
    pool: int
    start: Measurement
    start_by_group: dict[str, tuple[int, int]]
    rounds: tuple[StarRound, ...]
    stop: str
    because: str
    final: int
    adapter: str | None  # relative to the run's folder
    comparison: PairedTest | None
    outcome: str
    notes: tuple[str, ...]

    def summary(self) -> str:
        reached = [self.start, *(one.accuracy for one in self.rounds if one.accuracy is not None)]
        path = " -> ".join(f"{one.value:.3f}" for one in reached)
        return f"StarRun({len(self.rounds)} rounds, accuracy {path}: {self.outcome}; ended by {self.stop!r})"

    def _rows(self) -> list[list[Any]]:
        rows: list[list[Any]] = [["start", "", "", "", "", "", "", _share(self.start), ""]]
        for one in self.rounds:
            told = one.versus_previous
            rows.append(
                [
                    str(one.number),
                    one.asked,
                    one.sampled,
                    one.correct,
                    one.solved,
                    one.kept,
                    one.train,
                    _share(one.accuracy) if one.accuracy is not None else "not trained",
                    f"{told.difference.value:+.3f}: {told.outcome}" if told is not None else "",
                ]
            )
            if one.control is not None:
                control = one.control
                rows.append(
                    [
                        f"{one.number}, control",
                        "",
                        "",
                        "",
                        "",
                        control.solutions,
                        "",
                        _share(control.accuracy) if control.accuracy is not None else "not trained",
                        f"round minus control {control.versus.difference.value:+.3f}: {control.versus.outcome}"
                        if control.versus is not None
                        else control.because,
                    ]
                )
        return rows

    def _groups(self) -> tuple[list[str], list[list[Any]]]:
        columns = [("start", self.start_by_group)]
        columns += [(f"round {one.number}", one.by_group) for one in self.rounds if one.by_group is not None]
        names = list(self.start_by_group)
        rows = [[name, *(f"{right[name][0]} of {right[name][1]}" for _, right in columns)] for name in names]
        return ["group", *(title for title, _ in columns)], rows

    def _tail(self) -> list[tuple[str, str]]:
        asked = self.options
        told = [
            ("model", asked.model + (f" with {asked.initial_adapter}" if asked.initial_adapter else "")),
            ("problems", f"{asked.data}: {self.pool} to learn from, held out {self.split}"),
            ("sampling", f"{asked.samples} a problem at temperature {asked.temperature:g}, seed {asked.seed}"),
            ("strategy", asked.strategy),
            ("ended", f"{self.stop}: {self.because}"),
        ]
        for one in self.rounds:
            passes = "; ".join(f"pass@{k} {value!r}" for k, value in one.pass_at.items())
            told.append((f"round {one.number}", passes))
            told.append((f"round {one.number}", f"{one.correct} right, {one.luck}"))
            if one.best_step == 0:
                told.append((f"round {one.number}", ZERO))
            if one.control is not None:
                told.append((f"round {one.number}, control", one.control.because))
        if self.comparison is not None:
            told.append(("against the start", f"{self.comparison.difference!r}; {self.comparison.because}"))
        told.append(("outcome", self.outcome))
        if self.adapter is not None:
            told.append(("adapter", f"{self.adapter} (round {self.final})"))
        return [*told, *(("note", one) for one in self.notes)]

    def to_text(self) -> str:
        lines = [self.summary(), *_text_table(_COLUMNS, self._rows())]
        columns, rows = self._groups()
        if rows:
            lines += ["", *_text_table(columns, rows)]
        lines += ["", *(f"{label:<18} {value}" for label, value in self._tail())]
        return "\n".join(plain(line) for line in lines)

    def to_html(self) -> str:
        columns, rows = self._groups()
        points = [("start", self.start)]
        points += [(f"round {one.number}", one.accuracy) for one in self.rounds if one.accuracy is not None]
        controls = {
            f"round {one.number}": one.control.accuracy
            for one in self.rounds
            if one.control is not None and one.control.accuracy is not None
        }
        return (
            table_html(_COLUMNS, self._rows(), caption=f"Self-taught reasoning: {self.outcome}")
            + accuracy_picture(points, controls)
            + (table_html(columns, rows, caption="Right answers by group") if rows else "")
            + table_html(("", "STaR run"), self._tail())
        )


def _share(measured: Measurement) -> str:
    low, high = measured.interval if measured.interval is not None else (measured.value, measured.value)
    return f"{measured.value:.3f} [{low:.3f}, {high:.3f}]"


def _text_table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    lines = [[plain(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
