"""The still picture of an export table: how large each form is, and how far it moved the next-token distribution."""

from __future__ import annotations

import math

from geonb.widgets.svg import PALETTE, Axis, Picture
from geonb.widgets.view import picture_html
from geonb.workbench.export.record import GapTable

_ROW, _TOP, _LABEL, _LEAST = 24, 58, 190, 1e-12
_STATE = {"passed": "green", "failed": "vermilion", "unavailable": "grey"}


def gap_picture(table: GapTable) -> str:
    """One row a form: its megabytes as a bar, its mean KL (nats, log axis) as a dot, the bare base's as a dashed line.

    A KL of zero stands at the left end. A form that could not be made has its reason in the table's text.
    """
    rows = table.rows
    height = _TOP + _ROW * len(rows) + 44
    picture = Picture(860, height, title="Exports", hints=False)
    picture.text(_LABEL, 18, "Size (MB)", kind="t")
    picture.text(470, 18, "Mean KL to base + adapter (nats per token)", kind="t")
    bottom = _TOP + _ROW * len(rows)
    sizes = [row.bytes / 1e6 for row in rows if row.bytes] or [1.0]
    size = Axis(0, 1.1 * max(*sizes, table.base_bytes / 1e6), _LABEL, 430)
    nulls = [row.kl_mean.null for row in rows if row.kl_mean is not None and row.kl_mean.null]
    top_kl = max([*nulls, *(row.kl_mean.value for row in rows if row.kl_mean is not None), 1e-3])
    kl = Axis(_LEAST, 3 * top_kl, 470, 840, log=True)
    for axis, ticks in ((size, size.ticks()), (kl, kl.ticks()[::3])):
        for tick in ticks:
            picture.line([axis.at(tick)] * 2, [_TOP - 6, bottom], "#ddd", width=1)
            picture.text(axis.at(tick), bottom + 14, f"{tick:.3g}", anchor="middle")
    picture.line([size.at(table.base_bytes / 1e6)] * 2, [_TOP - 6, bottom], "#555", width=1, dash="4 3")
    picture.text(size.at(table.base_bytes / 1e6), _TOP - 12, "base", anchor="middle")
    if nulls:
        picture.line([kl.at(max(nulls))] * 2, [_TOP - 6, bottom], "#555", width=1, dash="4 3")
        picture.text(kl.at(max(nulls)), _TOP - 12, "no adapter at all", anchor="end")
    for place, row in enumerate(rows):
        at = _TOP + _ROW * (place + 0.5)
        colour = PALETTE[_STATE.get(row.verdict, "grey")]
        picture.text(_LABEL - 10, at + 4, row.target, anchor="end")
        if row.bytes:
            picture.rectangle(size.start, at - 7, size.at(row.bytes / 1e6) - size.start, 14, PALETTE["blue"])
        if row.kl_mean is None or not math.isfinite(row.kl_mean.value):
            picture.text(kl.start, at + 4, row.verdict)
            continue
        picture.dot(kl.at(max(row.kl_mean.value, _LEAST)), at, colour, radius=5)
    return picture.svg()


def gap_html(table: GapTable) -> str:
    """The picture as an image that any page or notebook shows."""
    return picture_html(gap_picture(table), alt=f"Exports of {table.adapter}")
