"""Every other way of fine-tuning in one still picture: geonb's loss over its, a dot for each cell."""

from __future__ import annotations

from collections.abc import Sequence

from geonb.widgets.svg import PALETTE, MarkedAxis, Picture
from geonb.workbench.benchmark.rivals import RivalResult

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 940, 330, 250, 26, 74
_LOWEST, _ROOM = 0.25, 1.06
_SHARES = (0.25, 0.35, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0)


def rivals_picture(found: Sequence[RivalResult]) -> str:
    """geonb's validation loss over each rival's, one dot a cell and a bar at the mean, the strongest rival on top.

    Left of 1 geonb is ahead. A hollow dot is a cell in which the rival's best rate has no worse neighbour on both sides; a
    ratio below 0.25 is a dot at the edge.
    """
    shown = [one for one in found if one.cells or one.diverged]
    bottom = _TOP + _ROW * max(1, len(shown)) + 4
    picture = Picture(_WIDTH, bottom + 46, title="Other ways of fine-tuning", hints=False)
    picture.text(16, 20, "Other ways of fine-tuning: geonb's loss over theirs", kind="t")
    picture.text(
        16,
        38,
        "One dot a cell; left of 1 geonb is ahead. Damage (rise on base text) and time (with the search): geonb's over theirs.",
    )
    ratios = [cell.ratio for one in shown for cell in one.cells]
    if not ratios:
        picture.text(_LEFT, _TOP + 18, "No cell has geonb and another rival yet.")
        return picture.svg()
    low, high = max(_LOWEST, min(ratios) / _ROOM), max(1.1, max(ratios) * _ROOM)
    x = MarkedAxis(min(low, 0.9), high, _LEFT, _WIDTH - _RIGHT, log=True, marks=_SHARES)
    picture.axes(x, MarkedAxis(0, 1, bottom, _TOP - 4), x_label="loss ratio")
    picture.line([x.at(1.0)] * 2, [_TOP - 4, bottom], PALETTE["grey"], width=1.6, dash="4 3")
    columns = (_WIDTH - 186, _WIDTH - 100, _WIDTH - 16)
    for column, name in zip(columns, ("win/tie/loss", "damage", "time"), strict=True):
        picture.text(column, _TOP - 10, name, anchor="end")
    for place, one in enumerate(shown):
        at = _TOP + _ROW * (place + 0.5) + 2
        picture.text(_LEFT - 10, at + 4, one.rival, anchor="end")
        if one.geometric_mean is None:
            picture.text(_LEFT + 8, at + 4, "diverged in every cell")
            continue
        mean = x.at(one.geometric_mean)
        picture.rectangle(min(mean, x.at(1.0)), at - 7, abs(mean - x.at(1.0)), 14, PALETTE["vermilion"], opacity=0.3)
        for cell in one.cells:
            waits = one.edges > 0 and not cell.rival_interior
            picture.dot(x.at(cell.ratio), at, PALETTE["blue"], hollow=waits, radius=3.2)
        prices = (
            f"{one.wins}/{one.ties}/{one.losses}",
            "" if one.damage is None else f"{one.damage:.2f}",
            "" if one.cost is None else f"{one.cost:.2f}",
        )
        for column, text in zip(columns, prices, strict=True):
            if text:
                picture.text(column, at + 4, text, anchor="end")
    return picture.svg()
