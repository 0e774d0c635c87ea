"""The still picture of an AdapterCard: one row a matrix, its size against sigma_k and the random adapter."""

from __future__ import annotations

import textwrap
from typing import Any

from geonb.widgets.svg import PALETTE, Axis, Picture

_WIDTH, _ROWS, _TOP = 920, 64, 98
VERDICT_COLOUR = {
    "inside": "green",
    "beyond": "vermilion",
    "broken": "vermilion",
    "unmoved": "orange",
    "unmeasured": "grey",
}


def adapter_picture(view: Any) -> str:
    """Bars with the random adapter's interval, and the rank that is used of the rank declared."""
    audit, rows = view.audit, view.rows()
    shown = rows if len(rows) <= _ROWS else [rows[index * len(rows) // _ROWS] for index in range(_ROWS)]
    step = 17 if len(shown) <= 32 else 11
    findings = audit.findings[:6]
    height = 138 + step * len(shown) + 18 * len(findings)
    picture = Picture(_WIDTH, height, title=f"Adapter {audit.folder}", hints=False)
    colour = PALETTE[VERDICT_COLOUR.get(audit.scale_verdict, "grey")]
    picture.dot(18, 15, colour, radius=6)
    for index, line in enumerate(textwrap.wrap(f"{audit.scale_verdict}: {audit.because}", 112)[:2]):
        picture.text(32, 20 + 16 * index, line, kind="t" if index == 0 else "m")
    more = "" if len(shown) == len(rows) else f", {len(shown)} of {len(rows)} matrices"
    picture.text(
        32, 54,
        f"r {audit.declared_rank}, alpha {audit.declared_alpha}, scale {audit.scale_rule}, base {audit.base}{more}"[:150],
    )  # fmt: skip
    sizes = [value for row in shown for value in (row["size"], row["null"]) if value and value > 0]
    if view.is_relative:
        sizes.append(1.0)
    for index, row in enumerate(shown):
        y = _TOP + step * (index + 0.5)
        picture.text(322, y + 4, row["name"][-52:], anchor="end")
        if row["size"] is None or row["size"] <= 0:
            picture.text(336, y + 4, "did not move" if not row["moved"] else "not measured")
    if sizes:
        _bars(picture, view, shown, Axis(min(sizes) / 1.4, max(sizes) * 1.4, 330, 690, log=True), step)
    _ranks(picture, shown, step)
    for index, one in enumerate(findings):
        at = 132 + step * len(shown) + 18 * index
        picture.text(18, at, f"{one.kind}: {one.subject}: {one.because}"[:160])
    return picture.svg()


def _bars(picture: Picture, view: Any, shown: list[dict[str, Any]], x: Axis, step: int) -> None:
    top, bottom = _TOP, _TOP + step * len(shown)
    unit = "||dW||₂ / σₖ" if view.is_relative else "||dW||₂"
    picture.legend(330, 78, [(unit, PALETTE["blue"]), ("random adapter", PALETTE["grey"])])
    for tick in x.ticks():
        picture.line([x.at(tick), x.at(tick)], [top, bottom], "#ccc", width=1)
        picture.text(x.at(tick), bottom + 15, f"{tick:.3g}", anchor="middle")
    if view.is_relative and x.low < 1 < x.high:
        picture.line([x.at(1), x.at(1)], [top - 4, bottom], PALETTE["vermilion"], dash="4 3")
        picture.text(x.at(1), top - 6, "σₖ", anchor="middle")
    for index, row in enumerate(shown):
        y = top + step * (index + 0.5)
        if row["size"] is None or row["size"] <= 0:
            continue
        picture.rectangle(
            x.start, y - step * 0.3, x.at(row["size"]) - x.start, step * 0.6, PALETTE["blue"], opacity=0.8
        )
        picture.line([x.at(row["null_low"]), x.at(row["null_high"])], [y, y], PALETTE["grey"], width=5)
        picture.dot(x.at(row["null"]), y, "#333", radius=2)


def _ranks(picture: Picture, shown: list[dict[str, Any]], step: int) -> None:
    top, start, end = _TOP, 712, 850
    picture.text(start, 78, "rank used of declared", kind="t")
    largest = max((row["rank"] for row in shown), default=1) or 1
    for index, row in enumerate(shown):
        y = top + step * (index + 0.5)
        width = (end - start) * row["rank"] / largest
        picture.rectangle(start, y - step * 0.3, width, step * 0.6, PALETTE["grey"], opacity=0.3)
        if row["rank_used"] is not None:
            used = (end - start) * row["rank_used"] / largest
            picture.rectangle(start, y - step * 0.3, used, step * 0.6, PALETTE["green"], opacity=0.85)
            if step > 12:
                picture.text(end + 4, y + 4, f"{row['rank_used']:.0f}/{row['rank']}")
