"""Runs side by side: what each says of itself, where their plans differ, and paired intervals on shared examples.

Everything is read from the folders, so runs that go on, died half way or are gone stand beside finished ones: what a
folder cannot say is None, with a sentence. An interval speaks of other examples like these, not of other seeds.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.geometry.statistics import paired_bootstrap
from geonb.record_tables import table_html
from geonb.records import Record, plain
from geonb.train.run_facts import Look, RunFacts, look

FIRST, SECOND, NEITHER = "first is lower", "second is lower", "no significant difference"
NOT_COMPARABLE = "not comparable"
_TASK, _RETENTION = "task", "retention"
_ERROR_RATE = 0.05
# fifteen pairs of six runs are still read; beyond that, each against the first
_ALL_PAIRS_UP_TO = 6
# resamples per pair tested: a level widened for m pairs then has as many resamples in its tails as an unwidened one
_RESAMPLES = 2000
# below this many examples percentile intervals of a mean are visibly too narrow (convention)
_FEW = 20
_CAVEAT = (
    "An interval is over the held-out examples: it says nothing of another training seed, and each run chose its "
    "adapter by its loss on those very examples."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair(Record):
    """Two adapters on the same examples: `difference` is the loss of the second minus that of the first."""

    first: str
    second: str
    quantity: str  # "task" or "retention"
    difference: Measurement | None
    verdict: str
    because: str

    @property
    def sentence(self) -> str:
        """The verdict with the name of the run that won, where one did."""
        lower = {FIRST: self.first, SECOND: self.second}.get(self.verdict)
        return f"{lower} is lower" if lower is not None else self.verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsCompared(Record):
    """Runs side by side; `differences` holds, run by run, what of the plans is not the same (None without a plan)."""

    runs: tuple[RunFacts, ...]
    pairs: tuple[Pair, ...]
    differences: dict[str, tuple]

    def summary(self) -> str:
        counts = [(name, sum(pair.verdict in verdicts for pair in self.pairs)) for name, verdicts in _COUNTED]
        told = ", ".join(f"{count} {name}" for name, count in counts if count)
        return f"RunsCompared({len(self.runs)} runs, {len(self.pairs)} pairs: {told})"

    def to_text(self) -> str:
        parts = [f"{len(self.runs)} runs compared (losses in nats per token, intervals in brackets)"]
        parts.append(_text_table(_RUN_COLUMNS, [_run_row(run) for run in self.runs]))
        parts += [f"  {run.label}: {run.problem}" for run in self.runs if run.problem]
        if self.differences:
            parts += ["", "What differs in the plans"]
            parts.append(_text_table(("", *(run.label for run in self.runs)), self._differing_rows()))
        parts += ["", "Pairs on the same examples (second minus first)"]
        for pair in self.pairs:
            parts.append(f"  {pair.quantity}, {pair.second} minus {pair.first}: {pair.sentence}")
            shown = f"{pair.difference!r}; " if pair.difference is not None else ""
            parts.append(f"      {shown}{pair.because}")
        parts += ["", _CAVEAT]
        # a name from a file must not steer the terminal; the line breaks are this method's own
        return "\n".join(plain(line) for part in parts for line in part.split("\n"))

    def to_html(self) -> str:
        tables = table_html(
            (*_RUN_COLUMNS, "note"), [(*_run_row(run), run.problem) for run in self.runs], caption="Runs compared"
        )
        if self.differences:
            columns = ("", *(run.label for run in self.runs))
            tables += table_html(columns, self._differing_rows(), caption="What differs in the plans")
        return tables + table_html(
            ("first", "second", "loss", "second minus first", "verdict", "because"),
            [
                (
                    pair.first,
                    pair.second,
                    pair.quantity,
                    repr(pair.difference) if pair.difference is not None else "",
                    pair.sentence,
                    pair.because,
                )
                for pair in self.pairs
            ],
            caption=f"Pairs on the same examples. {_CAVEAT}",
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The comparison that `data` describes; a row of another length than the runs is an `InputError`."""
        found = super(RunsCompared, cls).from_dict(data)
        for name, values in found.differences.items():
            if not isinstance(values, tuple) or len(values) != len(found.runs):
                raise InputError(
                    f"RunsCompared has {plain(name)[:40]!r} in the field 'differences'; allowed is one value for each of "
                    f"the {len(found.runs)} runs: is this file of another version?"
                )
        return found

    def _differing_rows(self) -> list[tuple[str, ...]]:
        return [
            (
                name,
                *(
                    "unknown" if run.model is None else _shown(value)
                    for run, value in zip(self.runs, values, strict=True)
                ),
            )
            for name, values in self.differences.items()
        ]


_COUNTED = (
    ("with a significant difference", (FIRST, SECOND)),
    ("without one", (NEITHER,)),
    ("not comparable", (NOT_COMPARABLE,)),
)


def compare_runs(folders: Iterable[str | Path], *, labels: Sequence[str] | None = None, seed: int = 0) -> RunsCompared:
    """Compare two or more run folders, finished or not; `seed` is that of the bootstrap.

    Losses are compared only where both runs scored the same tokens; with several such pairs of one quantity every
    interval is widened, so that all of them together hold at 95 % (Bonferroni). Raises `InputError` for fewer than two
    folders and for labels of another number; whatever a folder holds or lacks is told in its `RunFacts`.
    """
    paths = [Path(folders)] if isinstance(folders, str | Path) else [Path(folder) for folder in folders]
    if len(paths) < 2:
        raise InputError(
            f"compare was given {len(paths)} run folder{'s' if len(paths) != 1 else ''}; allowed are two or more: "
            "give the -o of another `train run` as well."
        )
    if any("\0" in str(path) for path in paths):
        raise InputError("compare was given a path with a zero byte in it: correct it.")
    if labels is not None and len(labels) != len(paths):
        raise InputError(
            f"compare was given {len(labels)} labels for {len(paths)} run folders; allowed is one label for each "
            "folder: give as many, or none to use the folders' names."
        )
    names = _unique([str(label) for label in labels] if labels is not None else _names(paths))
    looks = [look(path, name) for path, name in zip(paths, names, strict=True)]
    if len(looks) <= _ALL_PAIRS_UP_TO:
        couples = list(itertools.combinations(looks, 2))
    else:
        couples = [(looks[0], other) for other in looks[1:]]
    return RunsCompared(
        runs=tuple(seen.facts for seen in looks),
        pairs=tuple(pair for quantity in (_TASK, _RETENTION) for pair in _pairs(couples, quantity, seed)),
        differences=_differences(looks),
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' names, with as many parents as tell them apart, up to three."""
    parts = [path.resolve().parts for path in paths]
    names: list[str] = []
    for depth in (1, 2, 3):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(set(parts)):
            break
    return names


def _unique(names: list[str]) -> list[str]:
    """The names, with a number behind every one that stood before."""
    found: list[str] = []
    for name in names:
        choices = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
        found.append(next(choice for choice in choices if choice not in found))
    return found


# -- comparing --------------------------------------------------------------------------------------------------------


def _differences(looks: Sequence[Look]) -> dict[str, tuple]:
    read = [seen.numbers for seen in looks if seen.numbers is not None]
    found = {}
    for name in dict.fromkeys(name for numbers in read for name in numbers):
        told = {json.dumps(numbers.get(name), sort_keys=True, default=str) for numbers in read}
        if len(told) > 1:
            found[name] = tuple(seen.numbers.get(name) if seen.numbers is not None else None for seen in looks)
    return found


def _pairs(couples: Sequence[tuple[Look, Look]], quantity: str, seed: int) -> list[Pair]:
    reasons = [_hindrance(first, second, quantity) for first, second in couples]
    # which pairs are tested depends on the examples alone, never on a loss, so counting only those keeps the promise
    tested = reasons.count("")
    return [
        _compared(first, second, quantity, seed, tested)
        if not reason
        else Pair(
            first=first.facts.label,
            second=second.facts.label,
            quantity=quantity,
            difference=None,
            verdict=NOT_COMPARABLE,
            because=reason,
        )
        for (first, second), reason in zip(couples, reasons, strict=True)
    ]


def _scored(seen: Look, quantity: str) -> tuple[str | None, np.ndarray]:
    assert seen.losses is not None
    losses = seen.losses
    digest, values = (
        (losses.evaluation_digest, losses.adapted)
        if quantity == _TASK
        else (losses.retention_digest, losses.adapted_retention)
    )
    return digest, np.asarray(values, dtype=np.float64)


def _hindrance(first: Look, second: Look, quantity: str) -> str:
    """The sentence why this pair cannot be compared, or "" when it can."""
    missing = [seen.missing for seen in (first, second) if seen.losses is None]
    if missing:
        return " and ".join(missing)
    (one, before), (other, after) = _scored(first, quantity), _scored(second, quantity)
    none = [seen.facts.label for seen, digest in ((first, one), (second, other)) if digest is None]
    if none:
        return f"{' and '.join(none)} scored no held-out base text"
    if one != other or len(before) != len(after):
        kind, advice = (
            ("evaluation examples", "plan both with the same data and seed, or with the same --eval-data")
            if quantity == _TASK
            else ("held-out base texts", "they are cut by the model's tokenizer and context, which must be the same")
        )
        return (
            f"the {kind} differ in text, tokens or order ({first.facts.label}: {len(before)}, digest {str(one)[:12]}; "
            f"{second.facts.label}: {len(after)}, digest {str(other)[:12]}): {advice}"
        )
    if len(before) < 2:
        return f"an interval needs two examples, and {len(before)} was scored"
    odd = [seen.facts.label for seen, values in ((first, before), (second, after)) if not np.isfinite(values).all()]
    return f"{' and '.join(odd)} has losses that are not finite" if odd else ""


def _compared(first: Look, second: Look, quantity: str, seed: int, tested: int) -> Pair:
    before, after = _scored(first, quantity)[1], _scored(second, quantity)[1]
    level, resamples = 1 - _ERROR_RATE / tested, _RESAMPLES * tested
    low, high = paired_bootstrap(after, before, rng=np.random.default_rng(seed), confidence=level, resamples=resamples)
    verdict, where = (
        (SECOND, "lies below 0") if high < 0 else (FIRST, "lies above 0") if low > 0 else (NEITHER, "contains 0")
    )
    one, other = first.facts.label, second.facts.label
    because = f"the {_percent(level)} interval of {other} minus {one} over the same {len(before)} examples {where}"
    if tested > 1:
        because += f", widened from 95 % for {tested} pairs (Bonferroni)"
    if len(before) < _FEW:
        because += "; with so few examples such an interval tends to be too narrow"
    return Pair(
        first=one,
        second=other,
        quantity=quantity,
        difference=Measurement(
            value=float(np.mean(after - before)),
            interval=(low, high),
            n=len(before),
            null=0.0,
            unit="nats per token",
            operator=f"mean over examples, paired bootstrap, {_percent(level)}, {resamples} resamples, seed {seed}",
        ),
        verdict=verdict,
        because=because,
    )


def _percent(level: float) -> str:
    return f"{100 * level:.6g} %"


# -- showing ----------------------------------------------------------------------------------------------------------

_RUN_COLUMNS = (
    "run",
    "state",
    "steps",
    "task loss",
    "change on the task",
    "change on retention",
    "max ‖ΔW‖/σ_k",
    "verdict",
)


def _run_row(run: RunFacts) -> tuple[str, ...]:
    loss = ""
    if run.base_loss is not None and run.adapted_loss is not None:
        loss = f"{run.base_loss:.4f} → {run.adapted_loss:.4f}"
    elif run.validation:
        loss = f"{run.validation[-1][1]:.4f} at step {run.validation[-1][0]}"
    return (
        run.label,
        run.state,
        f"{run.steps or 0}/{run.horizon if run.horizon is not None else '?'}" if run.state != "no run" else "",
        loss,
        _change(run.task),
        _change(run.retained),
        f"{run.largest_over_sigma_k:.3g}" if run.largest_over_sigma_k is not None else "",
        run.verdict or "",
    )


def _change(measured: Measurement | None) -> str:
    if measured is None:
        return ""
    interval = f" [{measured.interval[0]:+.4f}, {measured.interval[1]:+.4f}]" if measured.interval else ""
    return f"{measured.value:+.4f}{interval}"


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else str(value)
    if isinstance(value, str):
        # a digest is told apart by its beginning
        return value[:12] if len(value) == 64 and set(value) <= set("0123456789abcdef") else value
    return json.dumps(value, default=str) if isinstance(value, tuple | list | dict) else str(value)


def _text_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [[plain(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(f"  {line}".rstrip() for line in padded)
