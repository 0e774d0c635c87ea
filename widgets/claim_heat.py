"""A table of numbers as heat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from geonb.errors import InputError
from geonb.widgets.claim_canvas import EDGE, WIDTH, Scale, begin, finish, resizable
from geonb.widgets.claim_text import LINE, numbers, text_width, wrapped
from geonb.widgets.svg import Picture, escape, heat_colour, on_heat


@resizable
def heat_picture(
    matrix: Any,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    unit: str,
    x_title: str = "",
    y_title: str = "",
    limits: tuple[float, float] | None = None,
    centre: float | None = None,
    title: str = "",
    note: str = "",
    width: int = WIDTH,
) -> str:
    """A table of numbers as colour, pale for little and dark for much, with the number in each cell that has room.

    With `centre` the colours go from orange (below) over white to blue (above). NaN is an empty cell. Raises `InputError`
    for a matrix that has another shape than its names.

    >>> heat_picture(cka, layers, layers, unit="debiased CKA", limits=(0, 1))    # doctest: +SKIP
    """
    table = [numbers(line, "the matrix") for line in matrix]
    if not rows or not columns or len(table) != len(rows) or any(len(line) != len(columns) for line in table):
        given = f"{len(table)} rows of {sorted({len(line) for line in table})} numbers"
        raise InputError(f"{given} were given with {len(rows)} and {len(columns)} names; allowed are equal numbers.")
    known = [value for line in table for value in line if math.isfinite(value)]
    low, high = limits or (min(known, default=0.0), max(known, default=1.0))
    if centre is not None and limits is None:
        reach = max(abs(low - centre), abs(high - centre)) or 1.0
        low, high = centre - reach, centre + reach
    if not low <= high:
        raise InputError(f"the limits {limits} were given; allowed are two growing numbers.")
    colour, on = _colours(low, high, centre)
    picture, top = begin(title, note, width)
    room = min(0.3 * width, 8 + max(map(text_width, rows)))
    left = EDGE + room + (LINE + 6 if y_title else 0)
    cell = min(90.0, (width - EDGE - 82 - left) / len(columns))
    if cell < 3:
        raise InputError(
            f"{len(columns)} columns were given, too many for {width} pixels; allowed are fewer, or a wider picture."
        )
    tall = min(30.0, max(15.0, cell)) if len(rows) <= 40 else max(4.0, 600 / len(rows))
    every = math.ceil(LINE / tall)
    flat = max(map(text_width, columns)) <= cell - 4
    top += 6 if flat else 0
    across = left + cell * len(columns)
    bottom = top + tall * len(rows)
    # counts are told as counts
    told = "{:.0f}".format if all(value == round(value) for value in known) else _number
    fits = all(text_width(told(value)) <= cell - 4 for value in known) and tall >= 14
    for i, line in enumerate(table):
        middle = top + tall * (i + 0.5)
        if i % every == 0:
            (name,) = wrapped(rows[i], room - 8, most=1) or [""]
            picture.text(left - 6, middle + 4, name, anchor="end")
        for j, value in enumerate(line):
            if not math.isfinite(value):
                picture.text(left + cell * (j + 0.5), middle + 4, "–", anchor="middle")
                continue
            picture.rectangle(left + cell * j, top + tall * i, cell - 0.5, tall - 0.5, colour(value))
            if fits:
                _in_cell(picture, left + cell * (j + 0.5), middle + 4, told(value), on(value))
    below = _column_names(picture, columns, left, cell, bottom, flat)
    if x_title:
        below += LINE + 4
        picture.text((left + across) / 2, below, x_title, anchor="middle")
    if y_title:
        picture.text(EDGE + 8, (top + bottom) / 2, y_title, anchor="middle", rotate=True)
    end = _colour_bar(picture, across + 14, top, max(bottom, top + 70), low, high, colour, unit)
    return finish(picture, max(below, end) + 10)


def _number(value: float) -> str:
    return (
        f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 0.01 or value == 0 else f"{value:.0e}"
    )


def _colours(low: float, high: float, centre: float | None) -> tuple[Any, Any]:
    def share(value: float) -> float:
        return (value - low) / (high - low) if high > low else 0.5

    if centre is None:
        return lambda value: heat_colour(share(value)), lambda value: on_heat(share(value))

    def two_sided(value: float) -> tuple[float, tuple[int, int, int]]:
        above = value >= centre
        reach = (high - centre) if above else (centre - low)
        return min(1.0, abs(value - centre) / reach) if reach > 0 else 0.0, (0, 90, 160) if above else (190, 85, 0)

    def paint(value: float) -> str:
        amount, (red, green, blue) = two_sided(value)
        return "#" + "".join(f"{round(255 + (part - 255) * amount):02x}" for part in (red, green, blue))

    return paint, lambda value: "#fff" if two_sided(value)[0] > 0.6 else "#111"


def _in_cell(picture: Picture, x: float, y: float, text: str, colour: str) -> None:
    picture.parts.append(
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" style="fill:{colour}">{escape(text)}</text>'
    )


def _column_names(
    picture: Picture, columns: Sequence[str], left: float, cell: float, bottom: float, flat: bool
) -> float:
    if flat:
        for j, name in enumerate(columns):
            picture.text(left + cell * (j + 0.5), bottom + 14, name, anchor="middle")
        return bottom + 16
    every, longest = math.ceil(LINE / cell), 0.0
    for j, name in enumerate(columns):
        if j % every == 0:
            (short,) = wrapped(name, 130, most=1) or [""]
            longest = max(longest, text_width(short))
            picture.text(left + cell * (j + 0.5) + 4, bottom + 7, short, anchor="end", rotate=True)
    return bottom + longest + 10


def _colour_bar(
    picture: Picture, left: float, top: float, bottom: float, low: float, high: float, colour: Any, unit: str
) -> float:
    pieces = 24
    axis = Scale(low, high if high > low else low + 1, bottom, top)
    for place in range(pieces):
        value = low + (high - low) * (place + 0.5) / pieces
        start = bottom - (bottom - top) * (place + 1) / pieces
        picture.rectangle(left, start, 10, (bottom - top) / pieces + 0.4, colour(value))
    for tick, text in axis.texts():
        picture.text(left + 14, axis.at(tick) + 4, text)
    at = bottom + 6
    for line in wrapped(unit, picture.width - left - 4, most=4):
        at += LINE
        picture.text(left, at, line)
    return at
