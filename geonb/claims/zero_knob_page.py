"""The rows of the zero-knob benchmark as Markdown: tables and sentences that fill the marked blocks of a page.

A block stands between `<!-- zero-knob: NAME -->` and `<!-- zero-knob: end -->`; what is between them is written by
`geonb benchmark table --write PAGE`, so that no figure of a page is older than its rows.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from geonb.claims.zero_knob import bracketed_rows, deciding_rows, default_arm, plain_rows, runs_lacking
from geonb.errors import InputError
from geonb.records import atomic_write
from geonb.workbench.benchmark.arm import BUDGETS, DEFAULT, STRICT
from geonb.workbench.benchmark.cells import CellResult, rise, rows_by_cell
from geonb.workbench.benchmark.conditions import DATA, WEIGHTS, parted
from geonb.workbench.benchmark.design import BROKEN, DIALLED, QUICK, SEEDS, best_adamw
from geonb.workbench.benchmark.dial import DIAL, RADII, beside_scaled, dial_results
from geonb.workbench.benchmark.dial import FORMS as DIAL_FORMS
from geonb.workbench.benchmark.domains import BASE
from geonb.workbench.benchmark.forms import form_results
from geonb.workbench.benchmark.job import Job, Row
from geonb.workbench.benchmark.rivals import PLAIN, ratio_text, rival_results
from geonb.workbench.benchmark.tables import ZeroKnobResults, results

_BLOCK = re.compile(r"<!-- zero-knob: (?P<name>[\w -]*) -->\n(?P<body>.*?)<!-- zero-knob: end -->", re.S)
# losses of one seed that lie closer are called level
_LEVEL = 0.01

Rows = Mapping[str, Row]


def fill(page: str, rows: Rows) -> str:
    """`page` with every marked block written anew from `rows`; the rest is left as it is, to the byte.

    Raises `InputError` for a block that is not known, a mark without its end, and a page without a block.
    """

    def written(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in BLOCKS:
            raise InputError(f"the page has a block {name!r}; allowed are {', '.join(BLOCKS)}.")
        return f"<!-- zero-knob: {name} -->\n{BLOCKS[name](rows)}\n<!-- zero-knob: end -->"

    filled, count = _BLOCK.subn(written, page)
    marks = page.count("<!-- zero-knob: ")
    if count == 0 or marks != 2 * count:
        raise InputError(
            f"the page has {marks} marks of zero-knob; allowed are pairs of `<!-- zero-knob: NAME -->` and "
            "`<!-- zero-knob: end -->`, at least one, each on a line."
        )
    return filled


def fill_pages(pages: Sequence[Path], rows: Rows) -> list[Path]:
    """Fill every page in its place, or none; returns those that changed. Raises `InputError` as `fill` does."""
    filled = {}
    for page in pages:
        try:
            before = page.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{page} was given; allowed is a Markdown page that can be read ({error}).") from None
        try:
            after = fill(before, rows)
        except InputError as error:
            raise InputError(f"{page}: {error}") from None
        if after != before:
            filled[page] = after
    for page, text in filled.items():
        atomic_write(page, text)
    return list(filled)


def judged(rows: Rows) -> ZeroKnobResults:
    """The default arm over the cells that decide and whose rival is tuned: what the rule speaks of."""
    deciding = deciding_rows(plain_rows(rows))
    arm = default_arm(rows)
    return results(bracketed_rows(deciding, arm), arm)


def headline(rows: Rows) -> str:
    """What the rule's cells say, in one paragraph."""
    found = judged(rows)
    if found.geometric_mean is None or found.worst is None:
        return "There is no cell to compare yet."
    cells = found.cells
    tested = [one for one in cells if one.seeds >= len(SEEDS)]
    verdicts = [one.verdict for one in tested]
    jobs = [group[0].job for cell, group in rows_by_cell(rows).items() if cell in {one.cell for one in cells}]
    models = len({job.model for job in jobs})
    regret = {one.arm: one.worst for one in found.regrets}
    ours = regret.pop(found.arm, None)
    # only of settings that were run in every main cell, which a file of few rows may not have
    fixed = min((worst for arm, worst in regret.items() if arm.startswith("adamw ")), default=None)
    lacking = runs_lacking(rows)
    steps, batches = _span(job.horizon for job in jobs), _span(job.batch for job in jobs)
    said = [
        f"Its geometric mean over {len(cells)} cells ({models} models, T = {steps}, batch {batches}) is "
        f"{found.geometric_mean:.3f} of that rival's loss, the worst {found.worst:.3f}.",
        f"Of the {len(tested)} cells with three paired seeds it wins {verdicts.count('win')}, ties {verdicts.count('tie')} and "
        f"loses {verdicts.count('loss')}.",
        f"It forgets at most half of what the rival does in {found.half_damage} of {len(cells)} cells.",
    ]
    if ours is not None and fixed is not None:
        said.append(
            f"Used for everything, it is at worst {100 * ours:.1f} % above the best of a cell, the safest fixed AdamW "
            f"{100 * fixed:.0f} %."
        )
    if shares := [row.over_budget for row in rows.values() if row.over_budget is not None]:
        said.append(f"The largest ||dW||_2 / R of any checked step of any run is {max(shares):.3f}.")
    said.append(
        f"Of the runs that the rule asks for, {lacking or 'none'} {'are' if lacking > 1 else 'is'} known to lack."
    )
    return "\n".join(said)


def cells_table(rows: Rows) -> str:
    """The cells that decide, with those whose rival's rate is still at an edge."""
    deciding = deciding_rows(plain_rows(rows))
    return _cells(results(deciding, default_arm(rows)).cells)


def others_table(rows: Rows) -> str:
    """The cells that were run and decide nothing."""
    plain = plain_rows(rows)
    deciding = deciding_rows(plain)
    others = {key: row for key, row in plain.items() if key not in deciding}
    arm = default_arm(rows)
    there = any(row.job.arm.key == arm for row in others.values())
    return _cells(results(others, arm).cells if there else ())


def radius_table(rows: Rows) -> str:
    """The three radii over the cells that decide."""
    table = [
        [
            one.radius, str(one.cells), f"{one.geometric_mean:.3f}", f"{one.worst:.3f}",
            f"{one.wins}/{one.ties}/{one.losses}", str(one.half_damage), _percent(one.looked_at_regret),
            _percent(one.other_regret),
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
    return _table(head, table)


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


def settings_table(rows: Rows) -> str:
    """Every setting that was run in all main cells, used for everything: the five whose worst is the least."""
    table = [
        [one.arm, str(one.cells), _percent(one.mean), _percent(one.worst), one.worst_cell]
        for one in judged(rows).regrets[:8]
    ]
    return _table(("one setting for everything", "cells", "mean regret", "worst", "where"), table)


def rivals_headline(rows: Rows) -> str:
    """What the other ways of fine-tuning say, in one paragraph."""
    found = rival_results(rows, default_arm(rows), seeds=len(SEEDS))
    others = [one for one in found if one.rival != PLAIN and one.geometric_mean is not None]
    if not others:
        return "No other way of fine-tuning was run yet."
    wins, ties, losses = (sum(getattr(one, name) for one in others) for name in ("wins", "ties", "losses"))
    first = others[0]
    mean, state = (
        first.geometric_mean or 0.0,
        "" if first.memory is None else f", with {ratio_text(first.memory)} of its state",
    )
    said = [
        f"{len(others)} other ways of fine-tuning were run, {sum(one.searched for one in others)} with a searched rate: of "
        f"{wins + ties + losses} comparisons over three seeds it wins {wins}, ties {ties} and loses {losses}.",
        f"The strongest is {first.rival}: in the mean it has {mean:.2f} of that loss{state} between steps.",
    ]
    return "\n".join(said)


def rivals_table(rows: Rows) -> str:
    """The default arm beside every other way of fine-tuning, in the cells that were asked any of them."""
    table = []
    for one in rival_results(rows, default_arm(rows), seeds=len(SEEDS)):
        ratios = (one.geometric_mean, one.best, one.worst, one.damage, one.memory, one.cost)
        mean, best, worst, damage, memory, cost = map(ratio_text, ratios)
        noted = [f"{one.diverged} diverged"] if one.diverged else []
        noted += [f"{one.edges} at an edge"] if one.edges else []
        cells = str(len(one.cells)) + (f" ({', '.join(noted)})" if noted else "")
        spread = best if best == worst else f"{best} to {worst}"
        table.append([one.rival, cells, mean, spread, f"{one.wins}/{one.ties}/{one.losses}", damage, memory, cost])
    head = ("rival", "cells", "loss ratio", "from, to", "win/tie/loss", "damage", "memory", "time with its search")
    return _table(head, table)


def forms_table(rows: Rows) -> str:
    """Forms of the step beside the default, over the quick cells and all seeds."""
    table = []
    for one in form_results(rows, [cell.job(DEFAULT) for cell in QUICK], SEEDS):
        intervals = [
            "" if mean is None else f"{mean:+.3f} ± {width:.3f}"
            for mean, width in ((one.loss, one.loss_half_width), (one.rise, one.rise_half_width))
        ]
        table.append([one.form, f"{one.pairs} of {one.asked}", *intervals, one.verdict])
    return _table(("form", "pairs", "d", "q", "verdict"), table)


def dial_table(rows: Rows) -> str:
    """Forms of the step beside the product at the radius where that forgets as much."""
    table = []
    for one in dial_results(rows, [cell.job(DEFAULT) for cell in DIALLED], SEEDS):
        loss = "" if one.loss is None else f"{one.loss:+.3f} ± {one.half_width:.3f}"
        table.append([one.form, f"{one.pairs} of {one.asked}", str(one.beyond), loss, one.verdict])
    return _table(("form", "pairs", "outside the dial", "e", "verdict"), table)


def dialled_table(rows: Rows) -> str:
    """Loss and rise on base text of every arm of the dial and every form, means over the seeds."""
    named = {f"one side, R = {radius}": arm for radius, arm in zip(RADII, DIAL, strict=True)} | DIAL_FORMS
    table = []
    for name, arm in named.items():
        said = []
        for cell in DIALLED:
            group = [rows.get(cell.job(arm, seed).key) for seed in SEEDS]
            known = [row for row in group if row is not None and row.validation is not None]
            loss = statistics.mean(row.validation or 0.0 for row in known) if known else None
            said.append("" if loss is None else f"{loss:.3f} (+{statistics.mean(map(rise, known)):.2f})")
        table.append([name, *said])
    return _table(("arm", *(cell.domain for cell in DIALLED)), table)


def broken_table(rows: Rows) -> str:
    """Under each condition, geonb's default beside the AdamW that was best without it: loss, and loss on base text."""
    table = []
    for cell in BROKEN:
        reference = best_adamw(cell.without_condition, rows)
        ours = rows.get(cell.job(DEFAULT).key)
        theirs = rows.get(cell.job(reference).key) if reference else None
        if ours is None or theirs is None:
            continue
        ratio = (ours.validation or float("inf")) / (theirs.validation or float("inf"))
        said = "level" if abs(ratio - 1) < _LEVEL else "**loses**" if ratio > 1 else ""
        domain = "documentation" if cell.domain == BASE.name else cell.domain.partition("+")[0]
        table.append([condition(cell.job(DEFAULT)), domain, _both(ours), _both(theirs), said])
    return _table(("condition", "domain", "geonb", "AdamW", ""), table)


def condition(job: Job) -> str:
    """What was made to break the method in `job`, in words."""
    said = []
    if name := parted(job.model)[1]:
        said.append(WEIGHTS[name].title)
    if name := job.domain.partition("+")[2]:
        said.append(DATA[name].title)
    if job.domain == BASE.name:
        said.append("text of the base's own kind")
    if job.horizon != 200:
        said.append(f"{job.horizon} steps")
    if job.planned:
        ratio = job.planned / job.horizon
        said.append(f"T planned {max(ratio, 1 / ratio):g} times too {'long' if ratio > 1 else 'short'}")
    if job.loss_scale != 1:
        said.append(f"loss times {job.loss_scale:g}")
    return ", ".join(said)


BLOCKS: dict[str, Callable[[Rows], str]] = {
    "headline": headline,
    "cells": cells_table,
    "others": others_table,
    "radius": radius_table,
    "budgets": budgets_headline,
    "settings": settings_table,
    "rivals headline": rivals_headline,
    "rivals": rivals_table,
    "forms": forms_table,
    "dial": dial_table,
    "dial points": dialled_table,
    "broken": broken_table,
}


def _cells(cells: Sequence[CellResult]) -> str:
    table = []
    for one in cells:
        width = "" if one.half_width is None else f" ± {one.half_width:.3f} {one.verdict}"
        rival = one.rival.removeprefix("adamw ") + ("" if one.rival_interior else " (edge)")
        losses = [f"{value:.3f}" for value in (one.validation, one.rival_validation, one.ratio)]
        kept = [_shown(one.damage, ".2f"), _shown(one.frontier, "+.3f")]
        table.append([one.cell, rival, *losses, f"{one.difference:+.3f}{width}", *kept])
    head = ("cell", "best AdamW", "loss", "its loss", "ratio", "difference", "damage", "frontier")
    return _table(head, table)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _both(row: Row) -> str:
    return "diverged" if row.validation is None else f"{row.validation:.3f} ({row.retention:.2f})"


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _span(values: Iterable[int]) -> str:
    found = sorted(set(values))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"
