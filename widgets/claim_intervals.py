"""Measured figures with their intervals and nulls, one a line, against a threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.widgets.claim_canvas import EDGE, GREY, WIDTH, Scale, begin, draw_ticks, finish, legend, resizable, scale
from geonb.widgets.claim_text import LINE, figure, text_width, wrapped
from geonb.widgets.svg import PALETTE, Picture


@resizable
def interval_picture(
    rows: Sequence[str | tuple[Any, ...]],
    *,
    threshold: float | None = None,
    sides: tuple[str, str] = ("", ""),
    unit: str = "",
    title: str = "",
    note: str = "",
    null: str = "null",
    log: bool = False,
    limits: tuple[float, float] | None = None,
    width: int = WIDTH,
) -> str:
    """One line a row: a dot with its interval, its null as a hollow grey ring, and a dashed line at the threshold.

    A row is (label, `Measurement` or None) or (label, measurement, name of its null); a string alone heads the rows
    below it. `sides` says what it means to lie left and right of the threshold. What lies outside `limits` is an arrow
    at the edge. Raises `InputError` where a row is none of these.

    >>> interval_picture([("seed 0", found)], threshold=0.9, sides=("refuted", "holds"), unit="CKA")  # doctest: +SKIP
    """
    table = [_row(row, null) for row in rows]
    found = [one for _, one, _ in table if one is not None]
    if not found:
        raise InputError("a picture of intervals was given no measurement; allowed is at least one row that has one.")
    if threshold is not None and not math.isfinite(threshold):
        raise InputError(f"the threshold {threshold} was given; allowed is any finite number.")
    picture, top = begin(title, note, width)
    names = list(dict.fromkeys(name for _, one, name in table if one is not None and one.null is not None))
    if len(names) == 1:
        top = legend(picture, top, [(names[0], GREY, "ring")])
    elif names:
        table = [
            (f"{label} (○ {name})" if one is not None and one.null is not None else label, one, name)
            for label, one, name in table
        ]
    told = ["" if name is None else _told(one) for _, one, name in table]
    # headings keep to the column of the labels, where no line crosses them
    room = min(0.36 * width, 4 + max(text_width(label, bold=name is None) for label, _, name in table))
    start, end = EDGE + room + 12, width - EDGE - 14 - max(map(text_width, told))
    lines = [wrapped(label, room, bold=name is None) or [""] for label, _, name in table]
    if end - start < 0.3 * width:
        # no column for the figures: each under its label
        lines = [[*label, *wrapped(text, room)] for label, text in zip(lines, told, strict=True)]
        end, told = width - EDGE, [""] * len(told)
    known = [
        value
        for one in found
        for value in (one.value, *(one.interval or ()), *([] if one.null is None else [one.null]))
    ]
    x = scale([*known, *([] if threshold is None else [threshold])], start, end, log=log, limits=limits)
    line_top = top
    if threshold is not None:
        line_top, top = _words(picture, x, threshold, sides, top)
    heights = [max(24.0, LINE * len(one) + 10) for one in lines]
    bottom = top + sum(heights) + 2
    after = _ground(picture, x, top, bottom, unit)
    if threshold is not None:
        picture.line([x.at(threshold)] * 2, [line_top, bottom], PALETTE["vermilion"], dash="5 3")
    at = top
    for (_, one, name), label, text, height in zip(table, lines, told, heights, strict=True):
        middle = at + height / 2
        for place, line in enumerate(label):
            baseline = middle + 4 + LINE * (place - (len(label) - 1) / 2)
            picture.text(EDGE, baseline, line, kind="t" if name is None else "m")
        picture.text(end + 14, middle + 4, text)
        if one is not None:
            _mark(picture, x, middle, one)
        at += height
    return finish(picture, after)


def _row(row: Any, null: str) -> tuple[str, Measurement | None, str | None]:
    """Label, measurement and name of the null; that name is None for a heading."""
    if isinstance(row, str):
        return row, None, None
    label, found, name = [*row, null][:3] if isinstance(row, tuple | list) and len(row) in (2, 3) else (None, row, None)
    if not isinstance(label, str) or not isinstance(name, str) or not isinstance(found, Measurement | None):
        raise InputError(
            f"a row of an interval picture was a {type(row).__name__} of another shape; allowed are (label, Measurement), "
            "(label, Measurement, name of its null), and a string as a heading."
        )
    return label, found, name


def _told(one: Measurement | None) -> str:
    if one is None or math.isnan(one.value):
        return "not measured"
    return f"{figure(one.value, one.interval)}  n = {one.n}"


def _words(picture: Picture, x: Scale, threshold: float, sides: tuple[str, str], top: float) -> tuple[float, float]:
    """The threshold's figure, and what each side of it means; says where its line and where the plot may begin."""
    at, left, right = x.at(threshold), *sides
    name = f"threshold {threshold:.4g}"
    half = text_width(name) / 2
    picture.text(min(max(at, EDGE + half), picture.width - EDGE - half), top + 11, name, anchor="middle")
    if not left and not right:
        return top + 15, top + 18
    left, right = f"← {left}" if left else "", f"{right} →" if right else ""
    fits = at - 6 - text_width(left) >= EDGE and at + 6 + text_width(right) <= picture.width - EDGE
    if fits:
        picture.text(at - 6, top + 11 + LINE, left, anchor="end")
        picture.text(at + 6, top + 11 + LINE, right)
        return top + 15, top + 20 + LINE
    # no room beside the line for both: on lines of their own, at the ends that they speak of
    below = top + 11
    for text, anchor, place in ((left, "start", EDGE), (right, "end", picture.width - EDGE)):
        for line in wrapped(text, picture.width - 2 * EDGE, most=2):
            below += LINE
            picture.text(place, below, line, anchor=anchor)
    return below + 4, below + 10


def _ground(picture: Picture, x: Scale, top: float, bottom: float, unit: str) -> float:
    draw_ticks(picture, x, top, bottom)
    picture.parts.append(f'<line x1="{x.start:.1f}" x2="{x.end:.1f}" y1="{bottom:.1f}" y2="{bottom:.1f}" class="a"/>')
    after = bottom + 16
    for line in wrapped(unit, picture.width - 2 * EDGE, most=2):
        after += LINE
        half = text_width(line) / 2
        middle = min(max((x.start + x.end) / 2, EDGE + half), picture.width - EDGE - half)
        picture.text(middle, after, line, anchor="middle")
    return after + 8


def _mark(picture: Picture, x: Scale, y: float, one: Measurement) -> None:
    if one.null is not None and math.isfinite(one.null):
        picture.dot(x.at(one.null), y, GREY, radius=6, hollow=True)
    colour = PALETTE["blue"]
    if one.interval is not None and not any(map(math.isnan, one.interval)):
        picture.line([x.at(end) for end in one.interval], [y, y], colour, width=3)
        for end, sign in zip(one.interval, ("low", "high"), strict=True):
            if (end < x.low and sign == "low") or (end > x.high and sign == "high"):
                _arrow(picture, x.at(end), y, colour, -1 if sign == "low" else 1)
    if math.isnan(one.value):
        return
    if x.low <= one.value <= x.high:
        picture.dot(x.at(one.value), y, colour, radius=4)
    else:
        _arrow(picture, x.at(one.value), y, colour, -1 if one.value < x.low else 1)


def _arrow(picture: Picture, at: float, y: float, colour: str, direction: int) -> None:
    tip = at + 5 * direction
    picture.parts.append(
        f'<path d="M{tip:.1f} {y:.1f}L{at - 3 * direction:.1f} {y - 5:.1f}V{y + 5:.1f}z" fill="{colour}"/>'
    )
