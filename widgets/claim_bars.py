"""A null distribution with what was observed, and bars with their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
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
    resizable,
    scale,
)
from geonb.widgets.claim_text import LINE, numbers, wrapped
from geonb.widgets.svg import Picture

_TAILS = ("upper", "lower", "both")


@resizable
def histogram_picture(
    null_values: Iterable[float],
    marks: Sequence[tuple[Any, ...]],
    *,
    x_title: str,
    null: str = "null",
    tail: str = "upper",
    bins: int | None = None,
    title: str = "",
    note: str = "",
    width: int = WIDTH,
    height: int = 200,
) -> str:
    """The draws of a null as grey bars, the 95 % of them in the middle darker, and each observed value with its p.

    A mark is (name, value) or (name, value, p). A p that is not given is (1 + draws at least as far out) / (1 + draws);
    `tail` says what is far out: "upper", "lower", or "both" (twice the smaller). Raises `InputError` for fewer than two
    finite draws, for another tail and for another shape of mark.

    >>> histogram_picture(random_words, [("semantic primes", 0.9175)], x_title="CKA", tail="lower")    # doctest: +SKIP
    """
    draws = sorted(value for value in numbers(null_values, "the null") if math.isfinite(value))
    if len(draws) < 2:
        raise InputError(f"a null of {len(draws)} finite draws was given; allowed are two and more.")
    if tail not in _TAILS:
        raise InputError(f"the tail {tail!r} was given; allowed are {', '.join(_TAILS)}.")
    if bins is not None and not 1 <= bins <= 500:
        raise InputError(f"{bins} bins were given; allowed are 1 to 500.")
    seen = [_observed(mark, draws, tail) for mark in marks]
    picture, top = begin(title, note, width)
    low, high = _quantile(draws, 0.025), _quantile(draws, 0.975)
    # pale over pale is darker
    entries = [(f"{null} ({len(draws)} draws)", GREY, "pale"), ("the middle 95 % of them", GREY, "dark")]
    top = legend(picture, top, entries)
    count = bins or min(40, max(8, round(2 * len(draws) ** (1 / 3))))
    step = (draws[-1] - draws[0]) / count or 1.0
    counts = [0] * count
    for value in draws:
        counts[min(count - 1, int((value - draws[0]) / step))] += 1
    y = Scale(0, 1.06 * max(counts), top + height, top)
    values = [draws[0], draws[0] + step * count, *(value for _, value in seen)]
    x = scale(values, left_of(y, "draws of the null"), width - EDGE, margin=0.03)
    named = [(x.at(value), name, COLOURS[(place + 1) % len(COLOURS)]) for place, (name, value) in enumerate(seen)]
    top, draw_flags = flags(picture, named, top, EDGE, width - EDGE)
    y.start, y.end = top + height, top
    bottom = draw_axes(picture, x, y, x_title, "draws of the null")
    for place, number in enumerate(counts):
        start, end = draws[0] + step * place, draws[0] + step * (place + 1)
        for first, last, opacity in ((start, end, 0.4), (max(start, low), min(end, high), 0.6)):
            if number and first < last:
                left, right = x.at(first), x.at(last)
                picture.rectangle(
                    left, y.at(number), max(1.0, right - left - 0.6), y.start - y.at(number), GREY, opacity=opacity
                )
    draw_flags(y.start)
    return finish(picture, bottom)


@resizable
def bar_picture(
    groups: Sequence[tuple[str, Any]] | Mapping[str, Any],
    *,
    y_title: str,
    threshold: float | None = None,
    threshold_name: str = "threshold",
    null: str = "null",
    log_y: bool = False,
    title: str = "",
    note: str = "",
    width: int = WIDTH,
    height: int = 240,
) -> str:
    """Bars with their intervals, side by side within each group; the null of each is a hollow grey ring.

    A group is (name, measurement), or (name, {series: measurement}); a plain number stands for a measurement without an
    interval, None for what was not measured. Bars start at 0, or at the foot of a log axis. Raises `InputError` for no bar.

    >>> bar_picture({"n = 15": {"in sample": one, "held out": two}}, y_title="CKA")    # doctest: +SKIP
    """
    pairs = list(groups.items() if isinstance(groups, Mapping) else groups)
    table = [(name, dict(one) if isinstance(one, Mapping) else {"": one}) for name, one in pairs]
    series = list(dict.fromkeys(name for _, bars in table for name in bars))
    made = [(name, [_bar(bars.get(one), name) for one in series]) for name, bars in table]
    known = [one for _, bars in made for one in bars if one is not None and math.isfinite(one.value)]
    if not known:
        raise InputError("a picture of bars was given no finite number; allowed is at least one.")
    picture, top = begin(title, note, width)
    entries = [(name, COLOURS[place % len(COLOURS)], "box") for place, name in enumerate(series) if name]
    entries += [(null, "currentColor", "ring")] if any(one.null is not None for one in known) else []
    entries += [] if threshold is None else [(f"{threshold_name}: {threshold:.4g}", "currentColor", "dash")]
    top = legend(picture, top, entries) + 4
    values = [v for one in known for v in (one.value, *(one.interval or ()), *([] if one.null is None else [one.null]))]
    y = scale([*values, *([] if threshold is None else [threshold])], top + height, top, log=log_y, zero=not log_y)
    x = Scale(0, 1, left_of(y, y_title), width - EDGE)
    draw_axes(picture, x, y, "", y_title, x_ticks=False)
    base = y.start if log_y else y.at(0)
    picture.parts.append(f'<line x1="{x.start:.1f}" x2="{x.end:.1f}" y1="{base:.1f}" y2="{base:.1f}" class="a"/>')
    slot = (x.end - x.start) / len(made)
    bar = min(46.0, 0.82 * slot / len(series))
    below = y.start
    for place, (name, bars) in enumerate(made):
        middle = x.start + slot * (place + 0.5)
        for index, one in enumerate(bars):
            at = middle + bar * (index - (len(series) - 1) / 2)
            _draw_bar(picture, y, at, bar, base, one, COLOURS[index % len(COLOURS)])
        for line_number, line in enumerate(wrapped(name, slot - 6, most=4), 1):
            picture.text(middle, y.start + 4 + LINE * line_number, line, anchor="middle")
            below = max(below, y.start + 4 + LINE * line_number)
    if threshold is not None:
        picture.line([x.start, x.end], [y.at(threshold)] * 2, "currentColor", dash="5 3")
    return finish(picture, below + 10)


# -- parts ------------------------------------------------------------------------------------------------------------


def _observed(mark: Any, draws: Sequence[float], tail: str) -> tuple[str, float]:
    if not isinstance(mark, tuple | list) or len(mark) not in (2, 3) or not isinstance(mark[0], str):
        raise InputError("a mark of a null was of another shape; allowed is (name, value), or (name, value, p).")
    found = mark[1].value if isinstance(mark[1], Measurement) else float(mark[1])
    if not math.isfinite(found):
        raise InputError(f"{mark[0]!r} was observed as {found}; allowed is any finite number.")
    if len(mark) == 3:
        p = float(mark[2])
    else:
        above = (1 + sum(draw >= found for draw in draws)) / (1 + len(draws))
        below = (1 + sum(draw <= found for draw in draws)) / (1 + len(draws))
        p = {"upper": above, "lower": below, "both": min(1.0, 2 * min(above, below))}[tail]
    return f"{mark[0]}: {found:.4g}, p = {p:.2g}", found


def _quantile(draws: Sequence[float], share: float) -> float:
    place = share * (len(draws) - 1)
    lower = int(place)
    upper = min(lower + 1, len(draws) - 1)
    return draws[lower] + (draws[upper] - draws[lower]) * (place - lower)


def _bar(given: Any, name: str) -> Measurement | None:
    if given is None or isinstance(given, Measurement):
        return given
    (value,) = numbers([given], f"the bar {name!r}")
    return Measurement(value=value, interval=None, n=1, null=None, unit="", operator="")


def _draw_bar(
    picture: Picture, y: Scale, at: float, bar: float, base: float, one: Measurement | None, colour: str
) -> None:
    if one is None or math.isnan(one.value) or (y.log and not one.value > 0):
        picture.text(at, base - 4, "–", anchor="middle")
        return
    end = y.at(one.value)
    picture.rectangle(at - 0.42 * bar, min(base, end), 0.84 * bar, abs(end - base), colour, opacity=0.85)
    if one.interval is not None and not any(map(math.isnan, one.interval)):
        low, high = (y.at(value) for value in one.interval)
        picture.line([at, at], [low, high], "currentColor", width=1.6)
        for edge in (low, high):
            picture.line([at - 4, at + 4], [edge, edge], "currentColor", width=1.6)
    if one.null is not None and math.isfinite(one.null):
        picture.dot(at, y.at(one.null), "currentColor", radius=5.5, hollow=True)
