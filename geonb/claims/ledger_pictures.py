"""The ledger's small pictures, as inline SVG: a published figure beside ours, and the verdicts by paper."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence

from geonb.claims.checks import Check
from geonb.claims.ledger import DECISIONS, Ledger
from geonb.claims.reference import PublishedFigure, told_figure
from geonb.records import plain

# a decision of DECISIONS -> its class in the page's style, and in a picture of its own
CLASSES = {decision: f"d{place}" for place, decision in enumerate(DECISIONS)}
# in the order of DECISIONS; told apart by the colour-blind too, and readable on light and dark
COLOURS = ("#009E73", "#3A7CA5", "#B57B00", "#D55E00", "#7f7f7f", "#A58FBF", "#9b1c1c", "#c4c9d1")
_WIDTH, _HEIGHT, _SIDE = 260, 46, 14
_BAR_WIDTH, _BAR_ROW, _BAR_LABEL = 720, 24, 190


def colour_rules(scope: str = "") -> str:
    """The CSS that fills each decision's part of a bar."""
    return "".join(
        f"{scope}.{CLASSES[decision]}{{fill:{colour}}}" for decision, colour in zip(DECISIONS, COLOURS, strict=True)
    )


def figure_picture(figure: PublishedFigure | None, check: Check | None) -> str:
    """Published as a hollow mark, ours as a full one with its interval, the rule's threshold as a dashed line.

    On one axis from the lowest to the highest of them: logarithmic where all are above 0 and a thousand times apart. What
    is not finite is drawn to the edge. "" where there is nothing finite to draw.
    """
    published = () if figure is None else (figure.published, *(figure.interval or ()))
    ours = () if check is None or check.measured is None else (check.measured, *(check.interval or ()))
    limits = () if check is None else (check.threshold,)
    finite = [value for value in (*published, *ours, *limits) if math.isfinite(value)]
    if not (published or ours) or not any(map(math.isfinite, (*published, *ours))):
        return ""
    across, low, high, is_log = _axis(finite)
    parts = [f'<line x1="{_SIDE}" x2="{_WIDTH - _SIDE}" y1="30" y2="30" class="axis"/>']
    for value, side, anchor in ((low, _SIDE, "start"), (high, _WIDTH - _SIDE, "end")):
        parts.append(f'<text x="{side}" y="43" text-anchor="{anchor}">{value:.3g}</text>')
    if is_log:
        parts.append(f'<text x="{_WIDTH / 2:.0f}" y="43" text-anchor="middle">log</text>')
    if check is not None:
        x = across(check.threshold)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="34" class="rule"/>')
    if figure is not None:
        parts.append(_ends(figure.interval, across, 10, "published"))
        parts.append(f'<circle cx="{across(figure.published):.1f}" cy="10" r="4.5" class="published"/>')
    if check is not None and check.measured is not None and not math.isnan(check.measured):
        parts.append(_ends(check.interval, across, 22, "ours"))
        parts.append(f'<circle cx="{across(check.measured):.1f}" cy="22" r="4.5" class="ours"/>')
    return _svg(_WIDTH, _HEIGHT, _told(figure, check), "".join(parts))


def verdict_bars(ledger: Ledger, *, standalone: bool = False) -> str:
    """How many claims of each paper came to which decision, as stacked bars; `standalone` carries its colours along."""
    papers = ledger.papers()
    largest = max((len(rows) for rows in papers.values()), default=1)
    unit = (_BAR_WIDTH - _BAR_LABEL - 40) / largest
    parts, told = [], []
    for place, (paper, rows) in enumerate(papers.items()):
        x, y = float(_BAR_LABEL), place * _BAR_ROW + 4
        parts.append(f'<text x="{_BAR_LABEL - 8}" y="{y + 13}" text-anchor="end">{_safe(paper)}</text>')
        for decision in DECISIONS:
            count = sum(row.decision == decision for row in rows)
            if not count:
                continue
            title = f"{paper}: {count} {decision}"
            told.append(title)
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{max(1.0, count * unit - 1):.1f}" height="17" '
                f'class="{CLASSES[decision]}"><title>{_safe(title)}</title></rect>'
            )
            x += count * unit
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 13}">{len(rows)}</text>')
    top = len(papers) * _BAR_ROW + 14
    x = float(_BAR_LABEL)
    for decision in ledger.counts():
        parts.append(f'<rect x="{x:.1f}" y="{top}" width="11" height="11" class="{CLASSES[decision]}"/>')
        parts.append(f'<text x="{x + 15:.1f}" y="{top + 10}">{_safe(decision)}</text>')
        x += 30 + 7 * len(decision)
    style = ""
    if standalone:
        style = (
            "<style>text{fill:#5b6678;font:12px system-ui,sans-serif}@media (prefers-color-scheme:dark){text{fill:#9aa6b8}}"
            f"{colour_rules()}</style>"
        )
    width = max(_BAR_WIDTH, math.ceil(x))
    return _svg(width, top + 18, f"Verdicts by paper: {'; '.join(told)}", style + "".join(parts))


def _axis(values: Sequence[float]) -> tuple[Callable[[float], float], float, float, bool]:
    """Where a value lies from left to right, the ends of the axis, and whether it is logarithmic."""
    low, high = min(values), max(values)
    is_log = low > 0 and high / low >= 1000
    shape = math.log10 if is_log else float
    first, last = shape(low), shape(high)
    # halves first: the difference of two large numbers of opposite sign may be no number
    pad = (last / 2 - first / 2) * 0.16 or abs(first) * 0.1 or 1.0
    # an end of the axis is a number too
    largest = 308.2 if is_log else 1.7e308
    first, last = max(first - pad, -largest), min(last + pad, largest)
    room = _WIDTH - 2 * _SIDE

    def across(value: float) -> float:
        if not math.isfinite(value):
            return _WIDTH - 2 if value > 0 else 2
        share = (shape(value) / 2 - first / 2) / (last / 2 - first / 2)
        return _SIDE + room * min(max(share, 0.0), 1.0)

    return across, (10**first if is_log else first), (10**last if is_log else last), is_log


def _ends(interval: tuple[float, float] | None, across: Callable[[float], float], y: int, name: str) -> str:
    if interval is None or any(map(math.isnan, interval)):
        return ""
    return f'<line x1="{across(interval[0]):.1f}" x2="{across(interval[1]):.1f}" y1="{y}" y2="{y}" class="{name}"/>'


def _told(figure: PublishedFigure | None, check: Check | None) -> str:
    """What the picture shows, for those who do not see it."""
    parts = [] if figure is None else [f"published {figure.told()}"]
    if check is not None:
        ours = told_figure(check.measured, check.interval, check.n, check.unit)
        parts += [f"ours {ours}", f"rule {check.comparison} {check.threshold:.4g}"]
    return "; ".join(parts)


def _svg(width: int, height: int, told: str, inside: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="{_safe(told)}"><title>{_safe(told)}</title>{inside}</svg>'
    )


def _safe(text: str) -> str:
    return html.escape(plain(text), quote=True)
