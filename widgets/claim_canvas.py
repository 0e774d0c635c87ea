"""What the pictures of claims share: scales with honest ticks, axes, marks, flags, legends."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from geonb.errors import InputError
from geonb.widgets.claim_text import LINE, text_width, wrapped
from geonb.widgets.svg import PALETTE, Axis, Picture, number

COLOURS = tuple(PALETTE[name] for name in ("blue", "vermilion", "green", "purple", "orange", "sky"))
GREY = PALETTE["grey"]
WIDTH, EDGE = 760, 16
_BOXES = {"pale": 0.4, "dark": 0.76, "box": 1.0}  # how dense each is
# one path each, drawn at a point: a shape tells groups apart where colours do not
SHAPES = ("", "m-3 -3h6v6h-6z", "m0 -4l4 4l-4 4l-4 -4z", "m-4 3h8l-4 -7z", "m-3 -3l6 6m0 -6l-6 6", "m-4 0h8m-4 -4v8")


def look(place: int) -> tuple[str, str]:
    """Colour and shape of the group at `place`; thirty-six differ."""
    return COLOURS[place % len(COLOURS)], SHAPES[(place + place // len(COLOURS)) % len(SHAPES)]


class Drawing(str):
    """SVG text that can be drawn again at another width, so that its letters keep their size in a grid."""

    redraw: Callable[[int], Drawing]


def resizable(draw: Callable[..., str]) -> Callable[..., Drawing]:
    """A picture function with the keyword `width` whose answer knows how to be drawn at another one."""

    @functools.wraps(draw)
    def drawn(*args: Any, **given: Any) -> Drawing:
        drawing = Drawing(draw(*args, **given))
        drawing.redraw = lambda width: drawn(*args, **{**given, "width": width})
        return drawing

    return drawn


# -- scales -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Scale(Axis):
    """An axis with at least two ticks, never more than fit, whose texts differ from each other."""

    def ticks(self) -> list[float]:
        found = Axis.ticks(self)
        if self.log and len(found) < 2:
            # less than one decade
            found = [tick for tick in Axis(self.low, self.high, 0, 1).ticks() if tick > 0]
        room = max(2, int(abs(self.end - self.start) / (44 if self.start < self.end else 20)))
        step = math.ceil(len(found) / room)
        return found[::step]

    def texts(self) -> list[tuple[float, str]]:
        """Each tick with its text."""
        ticks = self.ticks()
        if self.log or len(ticks) < 2:
            return [(tick, number(tick)) for tick in ticks]
        step, largest = ticks[1] - ticks[0], max(map(abs, ticks))
        if largest >= 1e5 or step < 1e-4:
            digits = max(1, math.ceil(math.log10(largest / step)) + 1)
            return [(tick, f"{tick:.{digits}g}") for tick in ticks]
        places = max(0, -math.floor(math.log10(step) + 1e-9))
        # no minus before a zero
        return [(tick, f"{round(tick, places) + 0.0:.{places}f}") for tick in ticks]


def scale(
    values: Iterable[float],
    start: float,
    end: float,
    *,
    log: bool = False,
    zero: bool = False,
    limits: tuple[float, float] | None = None,
    margin: float = 0.05,
) -> Scale:
    """A scale that holds the finite values (the positive ones where it is logarithmic) with some room, or `limits`."""
    if limits is not None:
        if not (limits[0] < limits[1] and all(map(math.isfinite, limits)) and (limits[0] > 0 or not log)):
            raise InputError(
                f"the limits {limits} were given; allowed are two growing numbers, positive on a log scale."
            )
        return Scale(float(limits[0]), float(limits[1]), start, end, log)
    # beyond these the ends of a scale are no numbers any more
    known = [value for value in values if abs(value) <= 1e100 and (value >= 1e-200 or not log)]
    if log:
        low, high = (math.log10(min(known)), math.log10(max(known))) if known else (0.0, 1.0)
        room = max(margin * (high - low), 0.03)
        return Scale(10 ** (low - room), 10 ** (high + room), start, end, True)
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    low, high = (min(low, 0.0), max(high, 0.0)) if zero else (low, high)
    room = margin * (high - low) or 0.1 * abs(high) or 0.5
    return Scale(low - (room if low or not zero else 0.0), high + (room if high or not zero else 0.0), start, end)


# -- the frame --------------------------------------------------------------------------------------------------------


def begin(title: str, note: str, width: int) -> tuple[Picture, float]:
    """An empty picture with its title and note, and where the next thing may stand."""
    if width < 240:
        raise InputError(f"the width {width} was given; allowed are 240 pixels and more.")
    picture = Picture(width, 0, title=title, hints=False)
    at = 8.0
    for line in wrapped(title, width - 2 * EDGE, bold=True):
        at += 16
        picture.text(EDGE, at, line, kind="t")
    for line in wrapped(note, width - 2 * EDGE, most=4):
        at += LINE + 1
        picture.text(EDGE, at, line)
    return picture, at + 8


def finish(picture: Picture, bottom: float) -> str:
    """The picture, as high as what is in it."""
    picture.height = math.ceil(bottom)
    return picture.svg()


def left_of(y: Scale, title: str) -> float:
    """How many pixels the texts left of an upright scale need."""
    lines = wrapped(title, abs(y.start - y.end), most=2)
    return EDGE + LINE * len(lines) + max((text_width(text) for _, text in y.texts()), default=0.0) + 8


def draw_ticks(picture: Picture, x: Scale, top: float, bottom: float) -> None:
    """Upright grid lines with their texts below, as many of these as do not touch each other or the edge."""
    used = 0.0
    for tick, text in x.texts():
        at, half = x.at(tick), text_width(text) / 2
        picture.parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" class="g"/>')
        middle = min(at, picture.width - 2 - half)
        if middle - half >= used:
            picture.text(middle, bottom + 15, text, anchor="middle")
            used = middle + half + 4


def draw_axes(picture: Picture, x: Scale, y: Scale, x_title: str, y_title: str, *, x_ticks: bool = True) -> float:
    """Grid, tick texts and titles; says where the next thing below may stand."""
    for tick, text in y.texts():
        at = y.at(tick)
        picture.parts.append(f'<line x1="{x.start:.1f}" x2="{x.end:.1f}" y1="{at:.1f}" y2="{at:.1f}" class="g"/>')
        picture.text(x.start - 6, at + 4, text, anchor="end")
    if x_ticks:
        draw_ticks(picture, x, y.end, y.start)
    picture.parts.append(f'<line x1="{x.start:.1f}" x2="{x.end:.1f}" y1="{y.start:.1f}" y2="{y.start:.1f}" class="a"/>')
    for place, line in enumerate(wrapped(y_title, abs(y.start - y.end), most=2)):
        picture.text(EDGE + 8 + LINE * place, (y.start + y.end) / 2, line, anchor="middle", rotate=True)
    bottom = y.start + (17 if x_ticks else 4)
    for line in wrapped(x_title, x.end - EDGE, most=2):
        bottom += LINE
        middle = (x.start + x.end) / 2
        half = text_width(line) / 2
        picture.text(min(middle, picture.width - EDGE / 2 - half), bottom, line, anchor="middle")
    return bottom + 8


def legend(picture: Picture, top: float, entries: Sequence[tuple[str, str, str]]) -> float:
    """(name, colour, kind) in rows that wrap; kind is "line", "dash", "pale", "dark", "box", "ring" or a shape of SHAPES."""
    x, y = float(EDGE), top + 10
    for name, colour, kind in entries:
        (name,) = wrapped(name, picture.width - 2 * EDGE - 24, most=1) or [""]
        if x > EDGE and x + 24 + text_width(name) > picture.width - EDGE:
            x, y = float(EDGE), y + LINE + 3
        if kind in ("line", "dash"):
            picture.line([x, x + 16], [y - 4] * 2, colour, width=2.2, dash="4 3" if kind == "dash" else "")
        elif kind in _BOXES:
            picture.rectangle(x, y - 9, 14, 10, colour, opacity=_BOXES[kind])
        elif kind == "ring":
            picture.dot(x + 8, y - 4, colour, radius=5, hollow=True)
        else:
            points(picture, [(x + 8, y - 4)], colour, kind)
        picture.text(x + 21, y, name)
        x += 21 + text_width(name) + 18
    return y + 8 if entries else top


def points(picture: Picture, at: Sequence[tuple[float, float]], colour: str, shape: str = "", *, opacity=1.0) -> None:
    """Many marks of one kind as one path, which keeps a picture of a thousand points small."""
    if not at:
        return
    path = "".join(f"M{x:.1f} {y:.1f}{shape or 'h0'}" for x, y in at)
    closed = "z" in shape
    paint = f'fill="{colour}" stroke="none"' if closed else f'fill="none" stroke="{colour}"'
    wide = "1.8" if shape else "6.5"
    faint = f' opacity="{opacity:.2f}"' if opacity < 1 else ""
    picture.parts.append(f'<path d="{path}" {paint} stroke-width="{wide}" stroke-linecap="round"{faint}/>')


def flags(
    picture: Picture, marks: Sequence[tuple[float, str, str]], top: float, left: float, right: float
) -> tuple[float, Callable[[float], None]]:
    """Names above upright lines at (pixel, name, colour), in as many rows as keep them apart.

    Returns where the plot may begin and what draws the names with their lines, down to a given height.
    """
    waiting = []
    for x, name, colour in marks:
        (text,) = wrapped(name, right - left - 8, most=1) or [""]
        length = text_width(text)
        to_right = x + 5 + length <= right or x - 5 - length < left
        start = max(left, min(x + 5, right - length)) if to_right else x - 5 - length
        waiting.append((start, start + length, x, text, colour))
    rows: list[list[Any]] = []
    while waiting:
        row: list[Any] = []
        for one in list(waiting):
            others = [other[2] for other in waiting if other is not one]
            clear = not any(one[0] - 3 < x < one[1] + 3 for x in others)
            if clear and all(one[0] > other[1] + 8 or one[1] < other[0] - 8 for other in row):
                row.append(one)
        row = row or waiting[:1]
        waiting = [one for one in waiting if one not in row]
        rows.append(row)
    below = top + (LINE + 2) * len(rows)

    def draw(bottom: float) -> None:
        for level, row in enumerate(rows):
            baseline = below - 4 - (LINE + 2) * level
            for start, end, x, text, colour in row:
                picture.line([x, x], [baseline - 9, bottom], colour, width=1.6, dash="5 3")
                if end < x:
                    picture.text(x - 5, baseline, text, anchor="end")
                else:
                    picture.text(start, baseline, text)

    return below + 2, draw


def spread(wanted: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Middles as near as may be to `wanted` for boxes of the given heights that do not overlap, inside low to high."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    placed = [0.0] * len(wanted)
    at = low
    for index in order:
        placed[index] = max(wanted[index], at + heights[index] / 2)
        at = placed[index] + heights[index] / 2
    at = max(high, low + sum(heights))
    for index in reversed(order):
        placed[index] = min(placed[index], at - heights[index] / 2)
        at = placed[index] - heights[index] / 2
    return placed
