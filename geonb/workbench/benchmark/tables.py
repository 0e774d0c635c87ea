"""What the rows say: the zero-knob arm beside the best tuned AdamW of each cell, regret, and the frontier of retention."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from geonb.errors import InputError
from geonb.records import Record, table_html
from geonb.workbench.benchmark.arm import ZERO_KNOB
from geonb.workbench.benchmark.job import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult(Record):
    """One cell: geonb's arm beside the AdamW-LoRA of the lowest validation loss there, over the seeds that both have.

    `ratio` is validation loss over the rival's; `damage` the rise of the loss on base text over the rival's rise (below
    one: forgets less; None where the rival did not forget). `difference` is the mean paired difference in nats and
    `half_width` its 95 % interval by Student's t over seeds, None with one seed. `frontier` is the validation loss minus
    that of the rivals' scaled adapters at equal loss on base text (below zero: ahead), None where theirs do not reach it.
    """

    cell: str
    arm: str
    rival: str
    rival_interior: bool  # the rival's rate has a worse neighbour on both sides
    seeds: int
    validation: float
    rival_validation: float
    ratio: float
    difference: float
    half_width: float | None
    verdict: str  # "win", "loss" or "tie" where the seeds can tell; "lower" or "higher" with one seed
    damage: float | None
    exact: float
    rival_exact: float
    frontier: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Regret(Record):
    """One fixed setting used for everything: how far above the best arm of each cell its loss lies."""

    arm: str
    cells: int
    mean: float  # of loss / best loss - 1
    worst: float
    worst_cell: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroKnobResults(Record):
    """Every cell in which `arm` and a tuned AdamW were run, with the regret of each fixed setting."""

    arm: str
    rows: int
    cells: tuple[CellResult, ...]
    regrets: tuple[Regret, ...]
    geometric_mean: float | None  # of the ratios
    worst: float | None
    largest_over_budget: float | None  # of ||dW||_2 / R over every row of a bounded method

    def summary(self) -> str:
        if self.geometric_mean is None:
            return f"ZeroKnobResults({self.rows} rows, no cell to compare yet)"
        return (
            f"ZeroKnobResults({self.arm}: {self.geometric_mean:.3f} of the best AdamW's loss over {len(self.cells)} cells, "
            f"worst {self.worst:.3f})"
        )

    def _table(self) -> list[list[str]]:
        return [
            [
                one.cell,
                one.rival + ("" if one.rival_interior else " (edge)"),
                f"{one.validation:.3f}",
                f"{one.rival_validation:.3f}",
                f"{one.ratio:.3f}",
                _difference(one),
                "" if one.damage is None else f"{one.damage:.2f}",
                "" if one.frontier is None else f"{one.frontier:+.3f}",
                f"{100 * one.exact:.0f} / {100 * one.rival_exact:.0f}",
            ]
            for one in self.cells
        ]

    def to_text(self) -> str:
        head = ["cell", "best AdamW", "loss", "its loss", "ratio", "difference", "damage", "frontier", "exact %"]
        table = [head, *self._table()]
        widths = [max(len(row[column]) for row in table) for column in range(len(head))]
        lines = [self.summary(), ""]
        lines += [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table
        ]
        if self.regrets:
            lines += ["", "One fixed setting for everything: loss above the best of each cell"]
            lines += [
                f"  {one.arm:44} mean {100 * one.mean:5.1f} %  worst {100 * one.worst:5.1f} % ({one.worst_cell})"
                for one in self.regrets
            ]
        return "\n".join(lines)

    def to_html(self) -> str:
        head = ["cell", "best AdamW", "loss", "its loss", "ratio", "difference", "damage", "frontier", "exact %"]
        regrets = [
            [one.arm, str(one.cells), f"{100 * one.mean:.1f} %", f"{100 * one.worst:.1f} %", one.worst_cell]
            for one in self.regrets
        ]
        return table_html(head, self._table()) + table_html(
            ["one setting for all", "cells", "mean regret", "worst", "where"], regrets
        )


def _difference(one: CellResult) -> str:
    width = "" if one.half_width is None else f" ± {one.half_width:.3f}"
    return f"{one.difference:+.3f}{width} {one.verdict}"


def results(rows: Mapping[str, Row], arm: str = "frank-wolfe") -> ZeroKnobResults:
    """Compare the arm with the key `arm` in every cell that has it and an AdamW-LoRA; the rival is chosen at seed 0.

    The rival is the best of all AdamW arms of the cell, at any rank up to the tail's, by the loss of seed 0 alone: its
    other seeds are then no part of its choice. Of a model that was trained more than once the one with the most rows
    counts. Raises `InputError` for an arm that no row has.
    """
    known = sorted({row.job.arm.key for row in rows.values() if row.job.arm.method in ZERO_KNOB})
    if rows and arm not in known:
        raise InputError(f"the arm {arm!r} was given; the rows have {', '.join(known) or 'none of geonb'}.")
    # a model or a data set that was made anew is another one: what it gave is compared with its own kind
    grouped: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows.values():
        grouped[row.cell, row.model_digest].append(row)
    by_cell = {cell: group for (cell, _), group in sorted(grouped.items(), key=lambda item: len(item[1]))}
    cells = [found for cell, group in sorted(by_cell.items()) if (found := _cell(cell, group, arm)) is not None]
    ratios = [one.ratio for one in cells]
    bounded = [row.over_budget for row in rows.values() if row.over_budget is not None]
    return ZeroKnobResults(
        arm=arm,
        rows=len(rows),
        cells=tuple(cells),
        regrets=tuple(_regrets([by_cell[one.cell] for one in cells])),
        geometric_mean=math.exp(statistics.mean(math.log(ratio) for ratio in ratios)) if ratios else None,
        worst=max(ratios) if ratios else None,
        largest_over_budget=max(bounded) if bounded else None,
    )


def _is_rival(row: Row) -> bool:
    arm = row.job.arm
    return arm.method == "adamw" and arm.form == "lora" and arm.targets == "all" and row.validation is not None


def _cell(cell: str, group: list[Row], arm: str) -> CellResult | None:
    ours = {row.job.seed: row for row in group if row.job.arm.key == arm and row.validation is not None}
    if 0 not in ours:
        return None
    data = ours[0].data_digest
    tuned = [row for row in group if row.job.seed == 0 and row.data_digest == data and _is_rival(row)]
    if not tuned:
        return None
    best = min(tuned, key=lambda row: row.validation or 0.0)
    theirs = {row.job.seed: row for row in group if row.job.arm == best.job.arm and row.validation is not None}
    seeds = [
        seed
        for seed in sorted(ours)
        if seed in theirs and ours[seed].data_digest == theirs[seed].data_digest
    ]  # fmt: skip
    first = [ours[seed].validation or 0.0 for seed in seeds]
    second = [theirs[seed].validation or 0.0 for seed in seeds]
    differences = [a - b for a, b in zip(first, second, strict=True)]
    half_width = _half_width(differences)
    difference = statistics.mean(differences)
    if half_width is None:
        verdict = "lower" if difference < 0 else "higher"
    else:
        verdict = "tie" if abs(difference) <= half_width else ("win" if difference < 0 else "loss")
    rises = [(_rise(ours[seed]), _rise(theirs[seed])) for seed in seeds]
    suffered = sum(b for _, b in rises)
    return CellResult(
        cell=cell,
        arm=arm,
        rival=best.job.arm.key,
        rival_interior=_is_interior(best, tuned),
        seeds=len(seeds),
        validation=statistics.mean(first),
        rival_validation=statistics.mean(second),
        ratio=statistics.mean(first) / statistics.mean(second),
        difference=difference,
        half_width=half_width,
        verdict=verdict,
        damage=sum(a for a, _ in rises) / suffered if suffered > 0 else None,
        exact=statistics.mean(ours[seed].exact or 0.0 for seed in seeds),
        rival_exact=statistics.mean(theirs[seed].exact or 0.0 for seed in seeds),
        frontier=_ahead(ours[0], tuned),
    )


def _half_width(values: list[float]) -> float | None:
    """Half of Student's 95 % interval of the mean; None below two values."""
    from scipy.stats import t

    if len(values) < 2:
        return None
    return float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5


def _rise(row: Row) -> float:
    return (row.retention or 0.0) - row.base["retention"]


def _is_interior(best: Row, tuned: Iterable[Row]) -> bool:
    rates = [row.job.arm.rate or 0.0 for row in tuned if row.job.arm.rank == best.job.arm.rank]
    return min(rates) < (best.job.arm.rate or 0.0) < max(rates)


def _ahead(row: Row, rivals: Iterable[Row]) -> float | None:
    """Loss of `row` minus the lowest that a scaled rival has at the same loss on base text, by linear interpolation.

    The curve of a scaled adapter is convex and its chords lie above it, which flatters `row` a little. None where no
    rival's curve reaches that loss on base text.
    """
    reached = []
    for rival in rivals:
        points = [(rival.base["retention"], rival.base["validation"])]
        points += [(kept, loss) for _, loss, kept in rival.frontier]
        points.append((rival.retention or 0.0, rival.validation or 0.0))
        points.sort()
        if rival.frontier and row.retention is not None and points[0][0] <= row.retention <= points[-1][0]:
            kept, losses = zip(*points, strict=True)
            reached.append(float(np.interp(row.retention, kept, losses)))
    return (row.validation or 0.0) - min(reached) if reached else None


def _regrets(groups: list[list[Row]]) -> list[Regret]:
    """Of every arm that was run in all cells at seed 0, sorted by its worst."""
    gaps: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for group in groups:
        first = [row for row in group if row.job.seed == 0]
        losses = {row.job.arm.key: row.validation for row in first if row.data_digest == first[0].data_digest}
        best = min(loss for loss in losses.values() if loss is not None)
        for key, loss in losses.items():
            gaps[key].append((math.inf if loss is None else loss / best - 1, group[0].cell))
    found = [
        Regret(
            arm=key,
            cells=len(those),
            mean=statistics.mean(gap for gap, _ in those),
            worst=max(those)[0],
            worst_cell=max(those)[1],
        )
        for key, those in gaps.items()
        if len(those) == len(groups)
    ]
    return sorted(found, key=lambda one: one.worst)
