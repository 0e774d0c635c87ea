"""Named curves with bands and marked lines, and groups of points with a fitted line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.widgets.claim_canvas import (
    COLOURS,
    EDGE,
    GREY,
    WIDTH,
    Scale,
    begin,
    draw_axes,
    finish,
    flags,
    left_of,
    legend,
    look,
    points,
    resizable,
    scale,
    spread,
)
from geonb.widgets.claim_text import LINE, figure, numbers, text_width, wrapped
from geonb.widgets.svg import Picture

# of marked lines: the text's own, which no curve has
_INK = "currentColor"
_MOST_DOTS, _MOST_POINTS, _MOST_LINE = 40, 1500, 600


@dataclass(frozen=True, slots=True)
class _Curve:
    name: str
    xs: list[float]
    ys: list[float]
    low: list[float] | None
    high: list[float] | None


@resizable
def curve_picture(
    curves: Sequence[tuple[Any, ...]] | Mapping[str, tuple[Any, ...]],
    *,
    x_title: str,
    y_title: str,
    log_x: bool = False,
    log_y: bool = False,
    marks: Sequence[tuple[str, float, str]] = (),
    nulls: Sequence[str] = (),
    title: str = "",
    note: str = "",
    x_limits: tuple[float, float] | None = None,
    y_limits: tuple[float, float] | None = None,
    zero: bool = False,
    width: int = WIDTH,
    height: int = 260,
) -> str:
    """Curves named at their right ends, with a band each where lo and hi are given; `nulls` are grey and dashed.

    A curve is (name, xs, ys) or (name, xs, ys, (los, his)), or a mapping from names to the rest; what is not finite, or
    not positive on a log axis, is a gap. A mark is ("x" or "y", value, name): an upright or a level dashed line. `zero`
    keeps 0 on the upright axis, and `height` is that of the plot alone in pixels. Raises `InputError` for lengths that
    differ and for unknown marks.

    >>> curve_picture([("trained", layers, ids, (low, high))], x_title="layer", y_title="TwoNN")    # doctest: +SKIP
    """
    made = [_curve(one) for one in ([(k, *v) for k, v in curves.items()] if isinstance(curves, Mapping) else curves)]
    if not made:
        raise InputError("a picture of curves was given none; allowed is at least one (name, xs, ys).")
    upright, level = _marks(marks)
    missing = set(nulls) - {one.name for one in made}
    if missing:
        raise InputError(f"the null {sorted(missing)[0]!r} was named; allowed are names of curves that were given.")
    picture, top = begin(title, note, width)
    colours = iter(COLOURS * (1 + len(made) // len(COLOURS)))
    paint = [GREY if one.name in nulls else next(colours) for one in made]
    room = min(
        0.3 * width, 20 + max(text_width(name) for name in [*(one.name for one in made), *(m[1] for m in level)])
    )
    right = width - EDGE - room
    heights = [value for one in made for values in (one.ys, one.low or [], one.high or []) for value in values]
    y = scale([*heights, *(value for value, _ in level)], top + height, top, log=log_y, limits=y_limits, zero=zero)
    x = scale(
        [value for one in made for value in one.xs] + [value for value, _ in upright],
        left_of(y, y_title), right, log=log_x, limits=x_limits, margin=0.02,
    )  # fmt: skip
    named = [(x.at(value), name, _INK) for value, name in upright]
    top, draw_flags = flags(picture, named, top, x.start, width - EDGE)
    y.start, y.end = top + height, top
    bottom = draw_axes(picture, x, y, x_title, y_title)
    for one, colour in zip(made, paint, strict=True):
        _band(picture, x, y, one, colour)
    for value, _ in level:
        picture.line([x.start, x.end], [y.at(value)] * 2, _INK, dash="5 3")
    draw_flags(y.start)
    ends: list[tuple[float, str, str, str]] = []
    for one, colour in zip(made, paint, strict=True):
        visible = _draw(picture, x, y, one, colour, "6 3" if one.name in nulls else "")
        if visible:
            ends.append((y.at(visible[-1][1]), one.name, colour, "6 3" if one.name in nulls else ""))
    ends += [(y.at(value), name, _INK, "5 3") for value, name in level]
    _end_names(picture, ends, x.end, room, top - 4, y.start + 6)
    return finish(picture, bottom)


@resizable
def scatter_picture(
    groups: Sequence[tuple[Any, ...]] | Mapping[str, tuple[Any, ...]],
    *,
    x_title: str,
    y_title: str,
    fit: bool = False,
    correlation: Measurement | str | None = None,
    diagonal: bool = False,
    log_x: bool = False,
    log_y: bool = False,
    marks: Sequence[tuple[str, float, str]] = (),
    title: str = "",
    note: str = "",
    width: int = WIDTH,
    height: int = 300,
) -> str:
    """Points of each group (name, xs, ys) in a colour and a shape of its own, with what they say of each other in words.

    `fit` draws the least-squares line through all points, in the scales of the axes; `correlation` is a `Measurement`
    or a text; `diagonal` the line of equality. Of more than 1500 points a group, every k-th is drawn, and the picture
    says so. Raises `InputError` for lengths that differ.

    >>> scatter_picture({"q_proj": (tails, stable)}, x_title="tail_dims", y_title="stable rank", fit=True)  # doctest: +SKIP
    """
    made = [_curve(one) for one in ([(k, *v) for k, v in groups.items()] if isinstance(groups, Mapping) else groups)]
    if not made:
        raise InputError("a picture of points was given no group; allowed is at least one (name, xs, ys).")
    upright, level = _marks(marks)
    picture, top = begin(title, note, width)
    steps = [max(1, math.ceil(len(one.xs) / _MOST_POINTS)) for one in made]
    entries = [
        (
            f"{one.name} ({len(one.xs)}{f', one in {step} drawn' if step > 1 else ''})",
            *look(place),
        )
        for place, (one, step) in enumerate(zip(made, steps, strict=True))
    ]
    top = legend(picture, top, entries)
    if correlation is not None:
        told = (
            correlation
            if isinstance(correlation, str)
            else f"{correlation.unit} = {figure(correlation.value, correlation.interval)}, n = {correlation.n}"
        )
        for line in wrapped(told, width - 2 * EDGE):
            top += LINE
            picture.text(EDGE, top, line, kind="t")
        top += 8
    room = max((text_width(name) + 20 for _, name in level), default=0.0)
    both = [value for one in made for value in (*one.xs, *one.ys)] if diagonal else []
    ys = [value for one in made for value in one.ys]
    y = scale([*both, *ys, *(value for value, _ in level)], top + height, top, log=log_y)
    xs = [value for one in made for value in one.xs]
    x = scale(
        [*both, *xs, *(value for value, _ in upright)],
        left_of(y, y_title),
        width - EDGE - min(room, 0.3 * width),
        log=log_x,
    )
    named = [(x.at(value), name, _INK) for value, name in upright]
    top, draw_flags = flags(picture, named, top, x.start, width - EDGE)
    y.start, y.end = top + height, top
    bottom = draw_axes(picture, x, y, x_title, y_title)
    draw_flags(y.start)
    for value, _ in level:
        picture.line([x.start, x.end], [y.at(value)] * 2, _INK, dash="5 3")
    if diagonal:
        low, high = max(x.low, y.low), min(x.high, y.high)
        if low < high:
            picture.line([x.at(low), x.at(high)], [y.at(low), y.at(high)], GREY, dash="2 3")
    for place, (one, step) in enumerate(zip(made, steps, strict=True)):
        usable = [(a, b) for a, b in zip(one.xs, one.ys, strict=True) if _is_on(x, a) and _is_on(y, b)][::step]
        colour, shape = look(place)
        see_through = 0.55 if len(usable) > 150 else 0.85
        points(picture, [(x.at(a), y.at(b)) for a, b in usable], colour, shape, opacity=see_through)
    if fit:
        _fitted(picture, x, y, [pair for one in made for pair in zip(one.xs, one.ys, strict=True)])
    ends = [(y.at(value), name, _INK, "5 3") for value, name in level]
    _end_names(picture, ends, x.end, min(room, 0.3 * width), top - 4, y.start + 6)
    return finish(picture, bottom)


def _curve(given: Any) -> _Curve:
    if not isinstance(given, tuple | list) or len(given) not in (3, 4) or not isinstance(given[0], str):
        raise InputError(
            "a curve or group of points was of another shape; allowed is (name, xs, ys), or with (los, his)."
        )
    name, xs, ys = given[0], numbers(given[1], given[0]), numbers(given[2], given[0])
    low, high = None, None
    if len(given) == 4 and given[3] is not None:
        if len(given[3]) != 2:
            raise InputError(f"the band of {name!r} has {len(given[3])} parts; allowed are two: (los, his).")
        low, high = (numbers(values, name) for values in given[3])
    for values in (ys, low, high):
        if values is not None and len(values) != len(xs):
            raise InputError(
                f"{name!r} was given {len(xs)} xs and {len(values)} other values; allowed are equal numbers."
            )
    return _Curve(name, xs, ys, low, high)


def _marks(marks: Sequence[tuple[str, float, str]]) -> tuple[list[tuple[float, str]], list[tuple[float, str]]]:
    for mark in marks:
        if len(mark) != 3 or mark[0] not in ("x", "y") or not math.isfinite(mark[1]):
            raise InputError(f'the mark {mark!r} was given; allowed is ("x" or "y", a finite number, its name).')
    upright, level = ([(float(value), name) for axis, value, name in marks if axis == wanted] for wanted in "xy")
    return upright, level


def _is_on(axis: Scale, value: float) -> bool:
    return math.isfinite(value) and (value > 0 or not axis.log) and axis.low <= value <= axis.high


def _band(picture: Picture, x: Scale, y: Scale, one: _Curve, colour: str) -> None:
    if one.low is None or one.high is None:
        return
    run: list[tuple[float, float, float]] = []
    for place in [*range(len(one.xs)), None]:
        if place is not None:
            at, low, high = one.xs[place], one.low[place], one.high[place]
            if _is_on(x, at) and not math.isnan(low) and not math.isnan(high):
                run.append((x.at(at), y.at(low), y.at(high)))
                continue
        if len(run) == 1:
            picture.line([run[0][0]] * 2, run[0][1:], colour, width=1.6)
        elif run:
            there = "L".join(f"{at:.1f} {high:.1f}" for at, _, high in run)
            back = "L".join(f"{at:.1f} {low:.1f}" for at, low, _ in reversed(run))
            picture.parts.append(f'<path d="M{there}L{back}z" fill="{colour}" fill-opacity="0.18"/>')
        run = []


def _draw(picture: Picture, x: Scale, y: Scale, one: _Curve, colour: str, dash: str) -> list[tuple[float, float]]:
    """Draws the curve, cut where it leaves the plot; returns the points that lie in it."""
    pairs = list(zip(one.xs, one.ys, strict=True))
    step = max(1, math.ceil(len(pairs) / _MOST_LINE))
    kept = [pair if _is_on(x, pair[0]) and _is_on(y, pair[1]) else (math.nan, math.nan) for pair in pairs]
    # the first and last stay whatever is left out between
    kept = kept if step == 1 else [*kept[:-1][::step], kept[-1]]
    visible = [pair for pair in kept if math.isfinite(pair[0])]
    xs = [x.at(a) if math.isfinite(a) else math.nan for a, _ in kept]
    ys = [y.at(b) if math.isfinite(b) else math.nan for _, b in kept]
    picture.line(xs, ys, colour, width=2, dash=dash)
    if len(visible) <= _MOST_DOTS:
        points(picture, [(x.at(a), y.at(b)) for a, b in visible], colour)
    return visible


def _end_names(
    picture: Picture, ends: Sequence[tuple[float, str, str, str]], edge: float, room: float, low: float, high: float
) -> None:
    """Names beside the right ends of their lines, apart from each other."""
    lines = [wrapped(name, room - 14) for _, name, _, _ in ends]
    heights = [LINE * len(one) + 2.0 for one in lines]
    for middle, (_, _, colour, dash), told in zip(
        spread([at for at, *_ in ends], heights, low, high), ends, lines, strict=True
    ):
        picture.line([edge + 3, edge + 12], [middle] * 2, colour, width=3, dash="3 2" if dash else "")
        for place, line in enumerate(told):
            picture.text(edge + 16, middle + 4 + LINE * (place - (len(told) - 1) / 2), line)


def _fitted(picture: Picture, x: Scale, y: Scale, pairs: Sequence[tuple[float, float]]) -> None:
    def to(axis: Scale, value: float) -> float:
        return math.log10(value) if axis.log else value

    at = [(to(x, a), to(y, b)) for a, b in pairs if _is_on(x, a) and _is_on(y, b)]
    if len(at) < 2:
        return
    centre_x, centre_y = (sum(values) / len(at) for values in zip(*at, strict=True))
    spread_x = sum((a - centre_x) ** 2 for a, _ in at)
    if spread_x == 0:
        return
    slope = sum((a - centre_x) * (b - centre_y) for a, b in at) / spread_x
    # in forty pieces, so that it is cut where it leaves the plot
    first, last = min(a for a, _ in at), max(a for a, _ in at)
    xs, ys = [], []
    for place in range(41):
        a = first + (last - first) * place / 40
        b = centre_y + slope * (a - centre_x)
        value = 10**b if y.log and b < 300 else b
        xs.append(x.at(10**a if x.log else a))
        ys.append(y.at(value) if _is_on(y, value) else math.nan)
    picture.line(xs, ys, "currentColor", width=1.6)
