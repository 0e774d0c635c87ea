"""Tables of records as HTML that reads the same wherever it is shown."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

_SENTENCE = 60  # characters of a cell above which its column wraps


def table_html(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, caption: str = "") -> str:
    """An HTML table of escaped cells, styled inline so that it reads the same wherever it is shown."""
    cell = "padding:2px 10px;text-align:{};white-space:nowrap"
    # a reason is read whole, in lines of its own, not by scrolling a page sideways
    sentence = "padding:2px 10px;text-align:left;white-space:pre-wrap;min-width:24em;vertical-align:top"
    title = "padding:2px 10px;text-align:left;white-space:normal;vertical-align:bottom"
    head = "".join(
        f'<th style="{title};border-bottom:1px solid #8888">{html.escape(str(name))}</th>' for name in columns
    )
    shown = [[_shown(value) for value in row] for row in rows]
    wraps = {place for row in shown for place, (_, text) in enumerate(row) if len(text) > _SENTENCE}
    body = []
    for row in shown:
        styles = (sentence if place in wraps else cell.format(side) for place, (side, _) in enumerate(row))
        cells = (f'<td style="{style}">{html.escape(text)}</td>' for style, (_, text) in zip(styles, row, strict=True))
        body.append(f"<tr>{''.join(cells)}</tr>")
    above = (
        f'<caption style="text-align:left;font-weight:600;padding:4px 0">{html.escape(caption)}</caption>'
        if caption
        else ""
    )
    return (
        '<table style="border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:90%">'
        f"{above}<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    )


def _shown(value: Any) -> tuple[str, str]:
    """The side to which a cell is aligned, and its text."""
    side = "right" if isinstance(value, int | float) and not isinstance(value, bool) else "left"
    return side, f"{value:.4g}" if isinstance(value, float) else ("" if value is None else str(value))
