"""What the rows of the zero-knob benchmark say of the radius and of other forms of the step, as Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping

from geonb.claims.markdown import markdown_table, percent_text
from geonb.claims.zero_knob import deciding_rows, judged, plain_rows
from geonb.workbench.benchmark.arm import BUDGETS, DEFAULT, STRICT
from geonb.workbench.benchmark.cells import half_width, rise, rows_by_cell
from geonb.workbench.benchmark.design import DIALLED, LONG, QUICK, SEEDS, SHORT, Cell
from geonb.workbench.benchmark.dial import DIAL, FORMS, RADII, beside_scaled, dial_results
from geonb.workbench.benchmark.forms import GROWING, form_results, growing_radius
from geonb.workbench.benchmark.job import Row

Rows = Mapping[str, Row]


def radius_table(rows: Rows) -> str:
    """The three radii over the cells that decide."""
    table = [
        [
            one.radius, str(one.cells), f"{one.geometric_mean:.3f}", f"{one.worst:.3f}",
            f"{one.wins}/{one.ties}/{one.losses}", str(one.half_damage), percent_text(one.looked_at_regret),
            percent_text(one.other_regret),
        ]
        for one in judged(rows).radii
    ]  # fmt: skip
    head = (
        "R",
        "cells",
        "mean ratio",
        "worst",
        "win/tie/loss",
        "half damage",
        "worst regret where chosen",
        "elsewhere",
    )
    return markdown_table(head, table)


def radius_seeds_table(rows: Rows) -> str:
    """The other budgets beside the default, paired by seed, in every cell where all three have every seed."""
    table = []
    for cell, group in rows_by_cell(plain_rows(rows)).items():
        by_run = {(row.job.arm.key, row.job.seed): row for row in group}
        said = []
        for name in ("strict", "open"):
            pairs = [(by_run.get((BUDGETS[name].key, seed)), by_run.get((DEFAULT.key, seed))) for seed in SEEDS]
            known = [(a, b) for a, b in pairs if a and b and a.validation and b.validation]
            if len(known) < len(SEEDS):
                break
            losses = [math.log((a.validation or 0.0) / (b.validation or 0.0)) for a, b in known]
            rises = sum(rise(a) for a, _ in known) / sum(rise(b) for _, b in known)
            said += [_signed(statistics.mean(losses), half_width(losses)), f"{rises:.2f}"]
        else:
            table.append([cell, *said])
    head = ("cell", "strict: ln loss ratio", "rise", "open: ln loss ratio", "rise")
    return markdown_table(head, table)


def budgets_headline(rows: Rows) -> str:
    """What each budget of a plan is worth, and why not to scale an adapter afterwards, in one paragraph."""
    said = []
    found = {one.arm: one for one in judged(rows).radii}
    for name in ("strict", "balanced", "open"):
        one = found.get(BUDGETS[name].key)
        if one is not None and one.geometric_mean is not None:
            noted = ", the default," if BUDGETS[name] == DEFAULT else ""
            said.append(
                f"`--budget {name}`{noted} has {one.geometric_mean:.3f} of that rival's loss in the mean and at most half of "
                f"its damage in {one.half_damage} of {one.cells} cells."
            )
    by_run = {(row.cell, row.job.arm.key): row for row in deciding_rows(plain_rows(rows)).values() if row.job.seed == 0}
    ratios = []
    for (cell, key), row in by_run.items():
        larger = by_run.get((cell, DEFAULT.key))
        if key == STRICT.key and larger is not None and (loss := beside_scaled(row, larger)) is not None:
            ratios.append(math.exp(loss))
    if ratios:
        said.append(
            f"A balanced adapter that is scaled after training until it forgets as little as a strict one has "
            f"{statistics.median(ratios):.2f} of that one's loss in the median ({min(ratios):.2f} to {max(ratios):.2f})."
        )
    return "\n".join(said) or "There is no cell to compare yet."


def forms_table(rows: Rows) -> str:
    """Forms of the step beside the default, over the quick cells and all seeds."""
    table = []
    for one in form_results(rows, [cell.job(DEFAULT) for cell in QUICK], SEEDS):
        intervals = [_signed(one.loss, one.loss_half_width), _signed(one.rise, one.rise_half_width)]
        table.append([one.form, f"{one.pairs} of {one.asked}", *intervals, one.verdict])
    return markdown_table(("form", "pairs", "d", "q", "verdict"), table)


def growing_table(rows: Rows) -> str:
    """The radius that grows with T beside the default, in short runs and in long ones, and cell by cell."""
    named = {f"T = {_horizons(cells)}": cells for cells in (SHORT, LONG)}
    named |= {cell.job(DEFAULT).cell: (cell,) for cells in (SHORT, LONG) for cell in cells}
    table = []
    for name, cells in named.items():
        (one,) = form_results(
            rows, [cell.job(DEFAULT) for cell in cells], SEEDS, lambda horizon: {GROWING: growing_radius(horizon)}
        )
        intervals = [_signed(one.loss, one.loss_half_width), _signed(one.rise, one.rise_half_width)]
        table.append([name, f"{one.pairs} of {one.asked}", *intervals])
    return markdown_table(("cells", "pairs", "d", "q"), table)


def _horizons(cells: Iterable[Cell]) -> str:
    return " and ".join(map(str, sorted({cell.horizon for cell in cells})))


def dial_table(rows: Rows) -> str:
    """Forms of the step beside the product at the radius where that forgets as much."""
    table = []
    for one in dial_results(rows, [cell.job(DEFAULT) for cell in DIALLED], SEEDS):
        table.append(
            [one.form, f"{one.pairs} of {one.asked}", str(one.beyond), _signed(one.loss, one.half_width), one.verdict]
        )
    return markdown_table(("form", "pairs", "outside the dial", "e", "verdict"), table)


def dialled_table(rows: Rows) -> str:
    """Loss and rise on base text of every arm of the dial and every form, means over the seeds."""
    named = {f"one side, R = {radius}": arm for radius, arm in zip(RADII, DIAL, strict=True)} | FORMS
    table = []
    for name, arm in named.items():
        said = []
        for cell in DIALLED:
            group = [rows.get(cell.job(arm, seed).key) for seed in SEEDS]
            known = [row for row in group if row is not None and row.validation is not None]
            loss = statistics.mean(row.validation or 0.0 for row in known) if known else None
            said.append("" if loss is None else f"{loss:.3f} (+{statistics.mean(map(rise, known)):.2f})")
        table.append([name, *said])
    return markdown_table(("arm", *(cell.domain for cell in DIALLED)), table)


def _signed(mean: float | None, half_width: float | None) -> str:
    return "" if mean is None or half_width is None else f"{mean:+.3f} ± {half_width:.3f}"
