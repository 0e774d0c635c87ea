"""The still picture of a CoordinateMap: kernel ordered by label, two-dimensional map, and silhouettes against permuted labels."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from geonb.coordinates.clusters import CoordinateClusters, Separation
from geonb.widgets.svg import PALETTE, Axis, Picture

COLOURS = tuple(PALETTE[name] for name in ("blue", "vermilion", "green", "purple", "orange", "sky", "grey"))
_WIDTH, _TOP, _SIDE, _LEFT, _MAP = 960, 66, 330, 128, 540
_MOST = 72  # rows of the heat map
_NAMED = 60  # places with a name
_SHADES = 20


def coordinate_picture(record: CoordinateClusters) -> str:
    """Left k of every two coordinates, right their map with names, below the silhouettes beside 95 % of permuted labels."""
    order = ordered(record)
    labels = list(record.found.by_label)
    sides = [("coordinates, 1 - k", record.found)]
    sides += [(record.control_name, record.control)] if record.control is not None else []
    picture = Picture(_WIDTH, _TOP + _SIDE + 108 + 26 * len(sides), title="Coordinates", hints=False)
    for index, line in enumerate(textwrap.wrap(record.sentence, 130)[:2]):
        picture.text(16, 20 + 16 * index, line, kind="t" if index == 0 else "m")
    _heat(picture, record, order, labels)
    _map(picture, record, labels)
    _silhouettes(picture, sides)
    return picture.svg()


def ordered(record: CoordinateClusters) -> list[int]:
    """The items by label, and within a label from the one most like the others of it to the least."""
    places = range(len(record.names))

    def near(item: int) -> float:
        own = [record.kernel[item][other] for other in places if record.labels[other] == record.labels[item]]
        return sum(own) / len(own)

    rank = {label: place for place, label in enumerate(record.found.by_label)}
    return sorted(places, key=lambda item: (rank[record.labels[item]], -near(item)))


def colour_of(labels: Sequence[str], label: str) -> tuple[str, bool]:
    """A label's colour, and whether its marks are hollow: from the eighth on the colours come again, hollow."""
    place = list(labels).index(label)
    return COLOURS[place % len(COLOURS)], place >= len(COLOURS)


def kernel_colour(k: float) -> str:
    """White at 0, blue to 1, orange to -1, in 20 shades to either side."""
    share = round(min(1.0, abs(k)) * _SHADES) / _SHADES
    far = (0, 60, 120) if k >= 0 else (200, 90, 0)
    # the square root keeps the small values, which most of them are, apart
    red, green, blue = (round(255 + (one - 255) * math.sqrt(share)) for one in far)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _heat(picture: Picture, record: CoordinateClusters, order: list[int], labels: list[str]) -> None:
    shown = order if len(order) <= _MOST else [order[place * len(order) // _MOST] for place in range(_MOST)]
    more = "" if len(shown) == len(order) else f", {len(shown)} of {len(order)}"
    picture.text(_LEFT, _TOP - 12, f"Kernel k, by label{more}", kind="t")
    step = _SIDE / len(shown)
    cells: dict[str, list[str]] = {}
    for row, item in enumerate(shown):
        for column, other in enumerate(shown):
            x, y = _LEFT + step * column, _TOP + step * row
            # a path for each shade: a rectangle a cell would be four times the text
            cells.setdefault(kernel_colour(record.kernel[item][other]), []).append(
                f"M{x:.1f} {y:.1f}h{step:.1f}v{step:.1f}h-{step:.1f}"
            )
    for colour, parts in cells.items():
        if colour != "#ffffff":
            picture.parts.append(f'<path d="{"".join(parts)}" fill="{colour}"/>')
    edge = _LEFT + _SIDE
    picture.line([_LEFT, edge, edge, _LEFT, _LEFT], [_TOP, _TOP, _TOP + _SIDE, _TOP + _SIDE, _TOP], "#999", width=1)
    start = 0
    for label in labels:
        size = sum(record.labels[item] == label for item in shown)
        if not size:
            continue
        y, height = _TOP + step * start, step * size
        colour, hollow = colour_of(labels, label)
        picture.rectangle(_LEFT - 9, y + 0.5, 6, height - 1, colour, opacity=0.45 if hollow else 1.0)
        picture.text(_LEFT - 14, y + height / 2 + 4, _short(label, 18), anchor="end")
        start += size
        if start < len(shown):
            at = _TOP + step * start
            picture.line([_LEFT, edge], [at, at], "#777", width=0.8)
            picture.line([_LEFT + step * start] * 2, [_TOP, _TOP + _SIDE], "#777", width=0.8)
    x = Axis(-1, 1, _LEFT, _LEFT + 160)
    for place in range(41):
        k = (place - 20) / 20
        picture.rectangle(x.at(k) - 2, _TOP + _SIDE + 10, 4.5, 8, kernel_colour(k))
    for k in (-1, 0, 1):
        picture.text(x.at(k), _TOP + _SIDE + 31, f"{k}", anchor="middle")
    picture.text(x.end + 12, _TOP + _SIDE + 18, "k")


def _map(picture: Picture, record: CoordinateClusters, labels: list[str]) -> None:
    picture.text(_MAP, _TOP - 12, f"Map of sqrt(2 - 2k); its two axes show {record.shown:.0%}", kind="t")
    xs, ys = ([place[axis] for place in record.places] for axis in (0, 1))
    # one scale for both axes, or distances would lie
    half = 0.56 * max(max(xs) - min(xs), max(ys) - min(ys), 1e-9)
    centre = ((max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2)
    x = Axis(centre[0] - half, centre[0] + half, _MAP + 30, _MAP + 30 + _SIDE)
    y = Axis(centre[1] - half, centre[1] + half, _TOP + _SIDE, _TOP)
    right, left = _MAP + 395, _MAP
    picture.line([left, right, right, left, left], [_TOP, _TOP, _TOP + _SIDE, _TOP + _SIDE, _TOP], "#999", width=1)
    marks = [(x.at(a), y.at(b)) for a, b in record.places]
    for (at, up), label in zip(marks, record.labels, strict=True):
        colour, hollow = colour_of(labels, label)
        picture.dot(at, up, colour, radius=4, hollow=hollow)
    boxes = [(at - 4, up - 4, at + 4, up + 4) for at, up in marks]
    left_out = 0
    for index, (at, up) in enumerate(marks):
        name = _short(record.names[index], 22)
        wide = 5.7 * len(name)
        ways = (
            (7, 4, 0.0),
            (-7, 4, 1.0),
            (0, -8, 0.5),
            (0, 16, 0.5),
            (6, -7, 0.0),
            (6, 15, 0.0),
            (-6, -7, 1.0),
            (-6, 15, 1.0),
        )
        for dx, dy, share in ways:
            box = (at + dx - share * wide, up + dy - 9, at + dx + (1 - share) * wide, up + dy + 2)
            inside = box[0] > left + 1 and box[2] < right - 1 and box[1] > _TOP and box[3] < _TOP + _SIDE
            others = [one for place, one in enumerate(boxes) if place != index]
            if index < _NAMED * 4 and inside and not any(_meet(box, one) for one in others):
                anchor = {0.0: "start", 0.5: "middle", 1.0: "end"}[share]
                picture.text(at + dx, up + dy, name, anchor=anchor)
                boxes.append(box)
                break
        else:
            left_out += 1
    if left_out:
        picture.text(right, _TOP + _SIDE + 16, f"{left_out} names did not find room", anchor="end")


def _silhouettes(picture: Picture, sides: list[tuple[str, Separation]]) -> None:
    top, start, end = _TOP + _SIDE + 72, 240, 640
    picture.text(16, top - 12, "Silhouette of the labels", kind="t")
    picture.rectangle(start, top - 20, 16, 6, "#bbb")
    picture.text(start + 21, top - 13, "95 % of permuted labels")
    picture.dot(start + 174, top - 17, PALETTE["blue"], radius=4)
    picture.text(start + 183, top - 13, "measured, 95 %")
    ends = [
        value
        for _, one in sides
        for value in (*one.null_interval, *(one.silhouette.interval or ()), one.silhouette.value)
    ]
    margin = 0.05 * (max(*ends, 0) - min(*ends, 0) or 1)
    x = Axis(min(*ends, 0) - margin, max(*ends, 0) + margin, start, end)
    bottom = top + 26 * len(sides)
    for tick in x.ticks():
        picture.line([x.at(tick)] * 2, [top, bottom], "#ddd", width=1)
        picture.text(x.at(tick), bottom + 14, f"{tick:.3g}", anchor="middle")
    for index, (name, one) in enumerate(sides):
        at = top + 26 * (index + 0.5)
        low, high = one.null_interval
        picture.text(start - 12, at + 4, _short(name, 34), anchor="end")
        picture.rectangle(x.at(low), at - 6, max(2.0, x.at(high) - x.at(low)), 12, "#bbb")
        if one.silhouette.interval is not None:
            picture.line([x.at(end) for end in one.silhouette.interval], [at, at], PALETTE["blue"], width=2.5)
        picture.dot(x.at(one.silhouette.value), at, PALETTE["blue"], radius=4.5)
        picture.text(end + 16, at + 4, f"{one.silhouette.value:.3f}, permuted {low:.3f} to {high:.3f}, p {one.p:.2g}")


def _meet(first: Sequence[float], second: Sequence[float]) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def coordinate_figure(record: CoordinateClusters, title: str) -> Any:
    """The heat map and the map as a plotly figure."""
    from plotly.subplots import make_subplots

    from geonb.widgets.figures import literal, themed

    order, labels = ordered(record), list(record.found.by_label)
    names = [literal(record.names[item]) for item in order]
    figure = make_subplots(rows=1, cols=2, subplot_titles=("kernel k", f"map, {record.shown:.0%} of the distances"))
    figure.add_heatmap(
        z=[[record.kernel[item][other] for other in order] for item in order], x=names, y=names, zmin=-1, zmax=1, zmid=0,
        colorscale=[[0.0, "#c85a00"], [0.5, "#ffffff"], [1.0, "#003c78"]], colorbar={"x": 0.45}, row=1, col=1,
    )  # fmt: skip
    for label in labels:
        colour, hollow = colour_of(labels, label)
        items = [item for item in range(len(record.names)) if record.labels[item] == label]
        figure.add_scatter(
            x=[record.places[item][0] for item in items], y=[record.places[item][1] for item in items],
            text=[literal(record.names[item]) for item in items], mode="markers", name=literal(label),
            marker={"color": colour, "size": 9, "symbol": "circle-open" if hollow else "circle"}, row=1, col=2,
        )  # fmt: skip
    figure.update_yaxes(autorange="reversed", row=1, col=1)
    figure.update_yaxes(scaleanchor="x2", row=1, col=2)
    return themed(figure, title=title, height=560)
