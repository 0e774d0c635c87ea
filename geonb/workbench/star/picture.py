"""Accuracy by round as a still picture: points with their intervals, the null control beside them."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from geonb.geometry.measurement import Measurement

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 460, 220, 48, 16, 16, 36
_INK, _POINT, _CONTROL = "#777", "#1f77b4", "#d62728"


def accuracy_picture(points: Sequence[tuple[str, Measurement]], controls: Mapping[str, Measurement]) -> str:
    """An <img> with an SVG inside it: nothing in it can run, and a notebook shows it without a kernel.

    The axis begins at 0 and ends above the highest interval, so that small differences look small.
    """
    tops = [
        (one.interval or (one.value, one.value))[1] for one in (*(value for _, value in points), *controls.values())
    ]
    top = next(limit for limit in (0.1, 0.2, 0.3, 0.5, 0.75, 1.0) if limit >= min(1.0, max(tops)))
    step = (_WIDTH - _LEFT - _RIGHT) / max(1, len(points))

    def across(place: int) -> float:
        return _LEFT + step * (place + 0.5)

    def down(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * min(value, top) / top

    parts = []
    for share in (0, 0.5, 1):
        y = down(top * share)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_INK}" opacity="0.3"/>'
        )
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="{_INK}">{top * share:g}</text>')
    line = " ".join(f"{across(place):.1f},{down(one.value):.1f}" for place, (_, one) in enumerate(points))
    parts.append(f'<polyline points="{line}" fill="none" stroke="{_POINT}" opacity="0.5"/>')
    for place, (label, one) in enumerate(points):
        parts.append(_point(across(place), one, down, _POINT))
        parts.append(
            f'<text x="{across(place):.1f}" y="{_HEIGHT - 14}" text-anchor="middle" fill="{_INK}">'
            f"{html.escape(label)}</text>"
        )
        if label in controls:
            parts.append(_point(across(place) + 14, controls[label], down, _CONTROL))
    if controls:
        parts.append(
            f'<text x="{_WIDTH - _RIGHT}" y="{_TOP}" text-anchor="end" fill="{_CONTROL}">control: wrong answers kept</text>'
        )
    drawing = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">{"".join(parts)}</svg>'
    )
    told = "; ".join(f"{label} {one.value:.3f}" for label, one in points)
    return f'<img alt="{html.escape(f"held-out accuracy by round: {told}")}" src="data:image/svg+xml,{quote(drawing)}">'


def _point(x: float, one: Measurement, down, colour: str) -> str:
    low, high = one.interval if one.interval is not None else (one.value, one.value)
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{down(low):.1f}" y2="{down(high):.1f}" stroke="{colour}" stroke-width="2"/>'
        f'<circle cx="{x:.1f}" cy="{down(one.value):.1f}" r="4" fill="{colour}"/>'
    )
