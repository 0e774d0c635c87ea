"""The still picture of a LedgerView: verdicts by paper, then each claim with published against measured."""

from __future__ import annotations

import math

from geonb.claims.checks import Check
from geonb.claims.ledger import DECISIONS, Ledger, LedgerRow
from geonb.claims.ledger_pictures import COLOURS
from geonb.claims.reference import PublishedFigure
from geonb.widgets.claim_canvas import EDGE, GREY, begin, finish, legend, scale
from geonb.widgets.claim_text import LINE, text_width, wrapped
from geonb.widgets.svg import PALETTE, Picture

_WIDTH, _NAME, _PLOT, _ROWS, _PAIRS = 920, 300, 190, 80, 3
_COLOUR: dict[str, str] = dict(zip(DECISIONS, COLOURS, strict=True))


def ledger_picture(ledger: Ledger) -> str:
    """Bars of verdicts, then one line a claim and published figure: hollow published, full ours, dashed the rule's threshold.

    Each line has an axis of its own, logarithmic where its numbers are above 0 and a thousand times apart. Of a claim with
    more than three figures the first three are drawn, of more than eighty claims the first eighty, and the picture says so.
    """
    told = ledger.summary().removeprefix("Ledger(").removesuffix(")")
    picture, top = begin("Ledger of claims", told, _WIDTH)
    top = _bars(picture, ledger, top)
    entries = [("published", GREY, "ring"), ("measured here, with interval", PALETTE["blue"], "")]
    top = legend(picture, top + 4, [*entries, ("threshold of the rule", PALETTE["vermilion"], "dash")])
    left = len(ledger.rows)
    for paper, rows in ledger.papers().items():
        shown = rows[: max(0, _ROWS - (len(ledger.rows) - left))]
        left -= len(shown)
        if not shown:
            continue
        top += 24
        picture.text(EDGE, top, wrapped(paper, _WIDTH - 2 * EDGE, bold=True, most=1)[0] if paper else "", kind="t")
        top += 8
        for row in shown:
            top = _claim(picture, row, top)
    if left:
        top += 18
        picture.text(EDGE, top, f"{left} more claims are in the table.")
    return finish(picture, top + 12)


def _bars(picture: Picture, ledger: Ledger, top: float) -> float:
    papers = ledger.papers()
    if not papers:
        picture.text(EDGE, top + 12, "No claim.")
        return top + 20
    start = EDGE + min(220.0, 8 + max(text_width(name) for name in papers))
    unit = (_WIDTH - EDGE - 34 - start) / max(len(rows) for rows in papers.values())
    for paper, rows in papers.items():
        x = start
        (name,) = wrapped(paper, start - EDGE - 8, most=1) or [""]
        picture.text(start - 8, top + 13, name, anchor="end")
        for decision in DECISIONS:
            count = sum(row.decision == decision for row in rows)
            if count:
                picture.rectangle(x, top + 2, max(1.0, count * unit - 1), 15, _COLOUR[decision])
                x += count * unit
        picture.text(x + 6, top + 13, str(len(rows)))
        top += 21
    return legend(picture, top + 4, [(name, _COLOUR[name], "box") for name in ledger.counts()])


def _claim(picture: Picture, row: LedgerRow, top: float) -> float:
    """One claim; says where the next may stand."""
    pairs = list(zip(row.compared(), row.told(), strict=True))
    picture.rectangle(EDGE, top + 5, 10, 10, _COLOUR.get(row.decision, GREY))
    names = wrapped(f"{row.claim}: {row.decision}", _NAME - 20, most=2)
    for place, line in enumerate(names):
        picture.text(EDGE + 16, top + 14 + LINE * place, line)
    at = top
    for (figure, check), (published, ours) in pairs[:_PAIRS]:
        _plot(picture, figure, check, at + 10)
        words = "; ".join(filter(None, (published and f"published {published}", ours)))
        lines = wrapped(words, _WIDTH - EDGE - (_NAME + _PLOT + 24), most=2)
        for place, line in enumerate(lines):
            picture.text(_NAME + _PLOT + 24, at + 14 + LINE * place, line)
        at += LINE * max(1, len(lines)) + 8
    if not pairs:
        for line in wrapped(row.problem or row.because, _WIDTH - EDGE - _NAME, most=2):
            picture.text(_NAME, at + 14, line)
            at += LINE
        at += 8
    if len(pairs) > _PAIRS:
        picture.text(_NAME + _PLOT + 24, at + 12, f"and {len(pairs) - _PAIRS} more")
        at += LINE + 4
    return max(at, top + LINE * len(names) + 8)


def _plot(picture: Picture, figure: PublishedFigure | None, check: Check | None, y: float) -> None:
    published = () if figure is None else (figure.published, *(figure.interval or ()))
    ours = () if check is None or check.measured is None else (check.measured, *(check.interval or ()))
    known = [one for one in (*published, *ours) if math.isfinite(one)]
    if not known:
        picture.text(_NAME + _PLOT / 2, y + 4, "not measured", anchor="middle")
        return
    limits = () if check is None else (check.threshold,)
    every = [*known, *limits]
    is_log = min(every) > 0 and max(every) / min(every) >= 1000
    x = scale(every, float(_NAME), float(_NAME + _PLOT), log=is_log, margin=0.12)
    picture.parts.append(f'<line x1="{_NAME}" x2="{_NAME + _PLOT}" y1="{y:.1f}" y2="{y:.1f}" class="g"/>')
    for limit in limits:
        picture.line([x.at(limit)] * 2, [y - 9, y + 9], PALETTE["vermilion"], dash="3 2")
    for values, colour, hollow in ((published, GREY, True), (ours, PALETTE["blue"], False)):
        if not values or math.isnan(values[0]):
            continue
        if len(values) == 3 and not any(map(math.isnan, values)):
            picture.line([x.at(values[1]), x.at(values[2])], [y, y], colour, width=2.4)
        picture.dot(x.at(values[0]), y, colour, radius=5.5 if hollow else 3.6, hollow=hollow)
