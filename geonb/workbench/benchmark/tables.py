"""What the rows say over all cells: how geonb's arm fares against tuned AdamW, at each radius, and every setting's regret."""

from __future__ import annotations

import html
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from geonb.errors import InputError
from geonb.records import Record
from geonb.workbench.benchmark.arm import ZERO_KNOB
from geonb.workbench.benchmark.cells import (
    CellResult,
    gaps,
    geometric_mean,
    is_tuned_lora,
    judge_cell,
    median,
    rows_by_cell,
)
from geonb.workbench.benchmark.design import LOOKED_AT, MAIN, SEEDS, SMALL, ZERO_KNOB_ARMS
from geonb.workbench.benchmark.job import Job, Row
from geonb.workbench.benchmark.rivals import RivalResult, ratio_text, rival_results

_RADIUS_NAMES = dict(zip((arm.key for arm in ZERO_KNOB_ARMS), ("sigma_max", "sigma_k", "3 sigma_k"), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Regret(Record):
    """One fixed setting used for everything: how far above the best arm of each cell its loss lies.

    The cells are the main ones, embedded and llama-1m at T = 200 and batch 16, where the whole grid of settings is asked;
    all cells where the rows hold none of these.
    """

    arm: str
    cells: int
    mean: float  # of loss / best loss - 1
    worst: float
    worst_cell: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Radius(Record):
    """geonb's arm at one radius, over every cell in which it and a tuned AdamW were run.

    The regrets are over the cells that have all three radii at seed 0: first those that choose the default radius, then
    those that test the choice.
    """

    arm: str
    radius: str
    cells: int
    geometric_mean: float | None  # of loss / rival's loss
    worst: float | None
    wins: int  # these three: of the cells with three seeds
    ties: int
    losses: int
    half_damage: int  # cells where the rise on base text is at most half of the rival's
    ahead: int  # cells where it lies below every scaled rival at equal loss on base text
    looked_at_regret: float | None  # worst over the looked-at domains of the two main models at T = 200
    other_regret: float | None  # worst over every other cell


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroKnobResults(Record):
    """Every cell in which `arm` and a tuned AdamW were run, the three radii, and the regret of each fixed setting."""

    arm: str
    rows: int
    cells: tuple[CellResult, ...]
    regrets: tuple[Regret, ...]
    radii: tuple[Radius, ...]
    rivals: tuple[RivalResult, ...]  # AdamW-LoRA and the other ways of fine-tuning, in the cells that have any of these
    chosen_radius: str | None  # the arm of the least worst regret over the looked-at cells: the rule's default
    geometric_mean: float | None  # of the ratios
    worst: float | None
    wins: int  # these three: of the cells with three seeds
    ties: int
    losses: int
    half_damage: int  # cells where the rise on base text is at most half of the rival's
    tuning_ratio: float | None  # median over cells: seconds of the rival's tuning over one run of the arm
    memory_ratio: float | None  # median over cells: bytes of the arm's state over the rival's
    largest_over_budget: float | None  # of ||dW||_2 / R over every row of a bounded method

    def summary(self) -> str:
        if self.geometric_mean is None:
            return f"ZeroKnobResults({self.rows} rows, no cell to compare yet)"
        return (
            f"ZeroKnobResults({self.arm}: {self.geometric_mean:.3f} of the best AdamW's loss over {len(self.cells)} cells, "
            f"worst {self.worst:.3f})"
        )

    def counts(self) -> str:
        """Wins, ties and losses, damage, memory and the price of the rival's tuning in one sentence each."""
        if not self.cells:
            return "There is no cell to compare yet."
        single = len(self.cells) - self.wins - self.ties - self.losses
        dominated = sum(one.dominated for one in self.cells)
        said = [
            f"{self.wins} wins, {self.ties} ties, {self.losses} losses; {single} cells with fewer than three seeds tell neither.",
            f"The rise on base text is at most half of the rival's in {self.half_damage} of {len(self.cells)} cells.",
            f"In {dominated} of them an adapter of AdamW, scaled or not, fits no worse and forgets no more.",
        ]
        if self.tuning_ratio is not None:
            said.append(
                f"Tuning the rival took {self.tuning_ratio:.1f} times the seconds of one run of the arm (median)."
            )
        if self.memory_ratio is not None:
            said.append(f"The arm's state between steps is {self.memory_ratio:.2f} of the rival's bytes (median).")
        if self.largest_over_budget is not None:
            said.append(f"The largest ||dW||_2 / R of any bounded run is {self.largest_over_budget:.4f}.")
        return "\n".join(said)

    def to_text(self) -> str:
        parts = [self.summary(), self.counts()]
        for title, head, table in self._tables():
            parts += ["", title, _text_table(head, table)]
        return "\n".join(parts)

    def to_html(self) -> str:
        return "".join(_html_table(title, head, table) for title, head, table in self._tables())

    def _tables(self) -> list[tuple[str, Sequence[str], list[list[str]]]]:
        """Title, head and rows of every table that has rows."""
        found = [
            ("Fit: validation loss in nats a token, and bits per byte", _FIT_HEAD, list(map(_fit, self.cells))),
            (
                "Price: rise on base text over the rival's, loss against its scaled adapters, and what its choice cost",
                _PRICE_HEAD,
                list(map(_price, self.cells)),
            ),
            (
                "The radius R: loss over the best AdamW's, and worst regret",
                _RADIUS_HEAD,
                list(map(_radius, self.radii)),
            ),
            (
                "One fixed setting for everything: loss above the best of each cell",
                ("setting", "cells", "mean", "worst", "where"),
                [
                    [one.arm, str(one.cells), _percent(one.mean), _percent(one.worst), one.worst_cell]
                    for one in self.regrets
                ],
            ),
            (
                "Other ways of fine-tuning: the arm's loss over theirs, the strongest first",
                _RIVAL_HEAD,
                list(map(_rival, self.rivals)),
            ),
        ]
        return [entry for entry in found if entry[2]]


_FIT_HEAD = ("cell", "best AdamW", "loss", "its loss", "ratio", "difference", "bits/byte", "exact %")
_PRICE_HEAD = ("cell", "damage", "frontier", "one run", "tuning", "runs", "state MB", "its MB")
_RIVAL_HEAD = ("rival", "cells", "mean", "best", "worst", "win/tie/loss", "damage", "memory", "time")
_RADIUS_HEAD = ("R", "cells", "mean", "worst", "win/tie/loss", "half damage", "ahead", "chosen on", "tested on")


def _fit(one: CellResult) -> list[str]:
    width = "" if one.half_width is None else f" ± {one.half_width:.3f}"
    return [
        one.cell,
        one.rival.removeprefix("adamw ") + ("" if one.rival_interior else " (edge)"),
        f"{one.validation:.3f}",
        f"{one.rival_validation:.3f}",
        f"{one.ratio:.3f}",
        f"{one.difference:+.3f}{width} {one.verdict}",
        f"{_shown(one.bits_per_byte)} / {_shown(one.rival_bits_per_byte)}",
        f"{100 * one.exact:.0f} / {100 * one.rival_exact:.0f}",
    ]


def _price(one: CellResult) -> list[str]:
    return [
        one.cell,
        _shown(one.damage),
        _shown(one.frontier, "+.3f") + (" dominated" if one.dominated else ""),
        f"{one.seconds:.0f} s",
        f"{one.tuning_seconds:.0f} s",
        str(one.tuning_runs),
        f"{one.state_bytes / 1e6:.1f}",
        f"{one.rival_state_bytes / 1e6:.1f}",
    ]


def _radius(one: Radius) -> list[str]:
    return [
        one.radius,
        str(one.cells),
        _shown(one.geometric_mean, ".3f"),
        _shown(one.worst, ".3f"),
        f"{one.wins}/{one.ties}/{one.losses}",
        f"{one.half_damage} of {one.cells}",
        f"{one.ahead} of {one.cells}",
        _percent(one.looked_at_regret),
        _percent(one.other_regret),
    ]


def _rival(one: RivalResult) -> list[str]:
    ratios = (one.geometric_mean, one.best, one.worst, one.damage, one.memory, one.cost)
    mean, best, worst, *prices = map(ratio_text, ratios)
    return [
        one.rival,
        str(len(one.cells)) + (f", {one.diverged} diverged" if one.diverged else ""),
        mean,
        best,
        worst,
        f"{one.wins}/{one.ties}/{one.losses}",
        *prices,
    ]


def _shown(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else f"{value:{form}}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _text_table(head: Sequence[str], rows: list[list[str]]) -> str:
    table = [list(head), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table)
    return "\n".join(f"  {line}" for line in lines)


def _html_table(title: str, head: Sequence[str], rows: list[list[str]]) -> str:
    """A table without a style in every cell: a notebook holds one with a row for each of a hundred cells."""
    lines = []
    for kind, row in (("th", head), *(("td", row) for row in rows)):
        first, *others = (html.escape(text) for text in row)
        cells = "".join(f"<{kind}>{text}</{kind}>" for text in others)
        lines.append(f'<tr><{kind} style="text-align:left">{first}</{kind}>{cells}</tr>')
    style = "border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:90%;white-space:nowrap"
    caption = f'<caption style="text-align:left;font-weight:600;padding:4px 0">{html.escape(title)}</caption>'
    return f'<table cellpadding="4" style="{style}">{caption}{"".join(lines)}</table>'


def results(rows: Mapping[str, Row], arm: str = "frank-wolfe") -> ZeroKnobResults:
    """Compare the arm with the key `arm` in every cell that has it and an AdamW-LoRA; the rival is chosen at seed 0.

    The rival is the best of all AdamW arms of the cell, at any rank up to the tail's, by the loss of seed 0 alone: its
    other seeds are then no part of its choice. Of a model that was trained more than once the one with the most rows
    counts. Raises `InputError` for an arm that no row has.
    """
    known = sorted({row.job.arm.key for row in rows.values() if row.job.arm.method in ZERO_KNOB})
    if rows and arm not in known:
        raise InputError(f"the arm {arm!r} was given; the rows have {', '.join(known) or 'none of geonb'}.")
    by_cell = rows_by_cell(rows)
    cells = _judged(by_cell, arm)
    bounded = [row.over_budget for row in rows.values() if row.over_budget is not None]
    radii = _radii(by_cell)
    return ZeroKnobResults(
        arm=arm,
        rows=len(rows),
        cells=tuple(cells),
        regrets=tuple(_regrets(_main(by_cell, [one.cell for one in cells]))),
        radii=tuple(radii),
        rivals=rival_results(rows, arm, seeds=len(SEEDS)),
        chosen_radius=_safest(radii),
        geometric_mean=geometric_mean([one.ratio for one in cells]),
        worst=max((one.ratio for one in cells), default=None),
        wins=_count(cells, "win"),
        ties=_count(cells, "tie"),
        losses=_count(cells, "loss"),
        half_damage=_half_damage(cells),
        tuning_ratio=median(one.tuning_seconds / one.seconds for one in cells if one.seconds > 0),
        memory_ratio=median(one.state_bytes / one.rival_state_bytes for one in cells if one.rival_state_bytes > 0),
        largest_over_budget=max(bounded) if bounded else None,
    )


def chosen_radius(rows: Mapping[str, Row]) -> str | None:
    """The key of geonb's arm at the radius of the least worst regret over the looked-at cells; None where none has all three."""
    return _safest(_radii(rows_by_cell(rows)))


def _safest(radii: Iterable[Radius]) -> str | None:
    known = [(one.looked_at_regret, one.arm) for one in radii if one.looked_at_regret is not None]
    return min(known)[1] if known else None


def chose_the_radius(job: Job) -> bool:
    """Whether a cell belongs to those on which the default radius is chosen; every other one tests the choice."""
    return _is_main(job) and job.domain in LOOKED_AT


def _is_main(job: Job) -> bool:
    return job.model in (MAIN, SMALL) and job.is_plain and (job.horizon, job.batch) == (200, 16)


def _main(by_cell: Mapping[str, list[Row]], cells: list[str]) -> dict[str, list[Row]]:
    """The main cells among `cells`; all of them where none is."""
    main = [cell for cell in cells if _is_main(by_cell[cell][0].job)]
    return {cell: by_cell[cell] for cell in main or cells}


def _judged(by_cell: Mapping[str, list[Row]], arm: str) -> list[CellResult]:
    found = (judge_cell(cell, group, arm) for cell, group in by_cell.items())
    return [one for one in found if one is not None]


def _radii(by_cell: Mapping[str, list[Row]]) -> list[Radius]:
    found = []
    # other rivals are asked in some cells alone, and no arm that is asked later may move what a radius is judged by
    gap_of = {cell: gaps([row for row in group if _is_of_the_rule(row)]) for cell, group in by_cell.items()}
    shared = {cell for cell, of in gap_of.items() if all(key in of for key in _RADIUS_NAMES)}
    for key, name in _RADIUS_NAMES.items():
        cells = _judged(by_cell, key)

        def worst_regret(accept: Callable[[Job], bool], key: str = key) -> float | None:
            return max((gap_of[cell][key] for cell in shared if accept(by_cell[cell][0].job)), default=None)

        if cells:
            found.append(
                Radius(
                    arm=key,
                    radius=name,
                    cells=len(cells),
                    geometric_mean=geometric_mean([one.ratio for one in cells]),
                    worst=max(one.ratio for one in cells),
                    wins=_count(cells, "win"),
                    ties=_count(cells, "tie"),
                    losses=_count(cells, "loss"),
                    half_damage=_half_damage(cells),
                    ahead=sum(one.frontier is not None and one.frontier < 0 for one in cells),
                    looked_at_regret=worst_regret(chose_the_radius),
                    other_regret=worst_regret(lambda job: not chose_the_radius(job)),
                )
            )
    return found


def _is_of_the_rule(row: Row) -> bool:
    return row.job.arm.key in _RADIUS_NAMES or is_tuned_lora(row.job.arm)


def _count(cells: Iterable[CellResult], verdict: str) -> int:
    return sum(one.verdict == verdict and one.seeds >= len(SEEDS) for one in cells)


def _half_damage(cells: Iterable[CellResult]) -> int:
    return sum(one.damage is not None and one.damage <= 0.5 for one in cells)


def _regrets(by_cell: Mapping[str, list[Row]]) -> list[Regret]:
    """Of every arm that was run in all these cells at seed 0, sorted by its worst."""
    found: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for cell, group in by_cell.items():
        for key, gap in gaps(group).items():
            found[key].append((gap, cell))
    regrets = [
        Regret(
            arm=key,
            cells=len(those),
            mean=statistics.mean(gap for gap, _ in those),
            worst=max(those)[0],
            worst_cell=max(those)[1],
        )
        for key, those in found.items()
        if len(those) == len(by_cell)
    ]
    return sorted(regrets, key=lambda one: one.worst)
