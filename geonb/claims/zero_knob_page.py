"""The rows of the zero-knob benchmark as Markdown: tables and sentences that fill the marked blocks of a page.

A block stands between `<!-- zero-knob: NAME -->` and `<!-- zero-knob: end -->`; what is between them is written by
`geonb benchmark table --write PAGE`, so that no figure of a page is older than its rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from geonb.claims.markdown import markdown_table, percent_text
from geonb.claims.zero_knob import deciding_rows, default_arm, judged, plain_rows, runs_lacking
from geonb.claims.zero_knob_radius import (
    budgets_headline,
    dial_table,
    dialled_table,
    forms_table,
    growing_table,
    radius_seeds_table,
    radius_table,
)
from geonb.errors import InputError
from geonb.records import atomic_write
from geonb.workbench.benchmark.arm import DEFAULT
from geonb.workbench.benchmark.cells import CellResult, rows_by_cell
from geonb.workbench.benchmark.conditions import DATA, WEIGHTS, parted
from geonb.workbench.benchmark.design import BROKEN, SEEDS, best_adamw
from geonb.workbench.benchmark.domains import BASE
from geonb.workbench.benchmark.job import Job, Row
from geonb.workbench.benchmark.rivals import PLAIN, ratio_text, rival_results
from geonb.workbench.benchmark.tables import results

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


def settings_table(rows: Rows) -> str:
    """Every setting that was run in all main cells, used for everything: the five whose worst is the least."""
    table = [
        [one.arm, str(one.cells), percent_text(one.mean), percent_text(one.worst), one.worst_cell]
        for one in judged(rows).regrets[:8]
    ]
    return markdown_table(("one setting for everything", "cells", "mean regret", "worst", "where"), table)


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
    return markdown_table(head, table)


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
    return markdown_table(("condition", "domain", "geonb", "AdamW", ""), table)


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
    "radius over seeds": radius_seeds_table,
    "budgets": budgets_headline,
    "settings": settings_table,
    "rivals headline": rivals_headline,
    "rivals": rivals_table,
    "forms": forms_table,
    "dial": dial_table,
    "growing": growing_table,
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
    return markdown_table(head, table)


def _both(row: Row) -> str:
    return "diverged" if row.validation is None else f"{row.validation:.3f} ({row.retention:.2f})"


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _span(values: Iterable[int]) -> str:
    found = sorted(set(values))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"
