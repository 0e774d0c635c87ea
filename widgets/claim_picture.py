"""The pictures of a claim's notebook: intervals against a threshold, curves, points, null distributions, bars, heat.

>>> from geonb.widgets import claim_picture as pictures
>>> pictures.show(pictures.interval_picture([("held out", found)], threshold=0.9, unit="CKA"), "CKA")  # doctest: +SKIP
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from geonb.errors import InputError
from geonb.widgets.claim_bars import bar_picture, histogram_picture
from geonb.widgets.claim_canvas import EDGE, Drawing, begin, finish, resizable
from geonb.widgets.claim_curves import curve_picture, scatter_picture
from geonb.widgets.claim_heat import heat_picture
from geonb.widgets.claim_intervals import interval_picture
from geonb.widgets.view import picture_html

__all__ = [
    "bar_picture",
    "curve_picture",
    "heat_picture",
    "histogram_picture",
    "interval_picture",
    "scatter_picture",
    "show",
    "small_multiples",
]
_GAP = 12
_SIZE = re.compile(r'<svg [^>]*?viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>')


def show(svg: str, alt: str) -> Any:
    """A picture as what the last line of a notebook cell shows; `alt` says in words what is to be seen.

    Raises `InputError` for empty words and for what is no SVG.
    """
    from IPython.display import HTML

    if not isinstance(svg, str) or _SIZE.match(svg) is None:
        raise InputError(
            f"show was given a {type(svg).__name__} that is no picture; allowed is what a picture function returns."
        )
    if not alt.strip():
        raise InputError("a picture was shown with no words for who cannot see it: say in `alt` what it shows.")
    return HTML(picture_html(svg, alt=alt))


@resizable
def small_multiples(
    pictures: Sequence[str], *, columns: int = 2, title: str = "", note: str = "", width: int = 940
) -> str:
    """Pictures in a grid; those of this module are drawn again at the width of a column, others are scaled to it.

    Raises `InputError` for no picture, and for more columns than 240 pixels each allow.

    >>> small_multiples([curve_picture(c, x_title="layer", y_title="TwoNN") for c in by_pool])    # doctest: +SKIP
    """
    if not pictures or any(_SIZE.match(svg) is None for svg in pictures):
        raise InputError(
            "a grid was given no picture, or what is none; allowed is a list of what picture functions return."
        )
    most = (width - 2 * EDGE + _GAP) // (240 + _GAP)
    if not 1 <= columns <= most:
        raise InputError(f"a grid was given {columns} columns; allowed are 1 to {most} at a width of {width} pixels.")
    grid, top = begin(title, note, width)
    column = (width - _GAP * (columns - 1)) // columns
    for first in range(0, len(pictures), columns):
        tallest = 0.0
        for place, svg in enumerate(pictures[first : first + columns]):
            svg = svg.redraw(column) if isinstance(svg, Drawing) else svg
            opening = _SIZE.match(svg)
            assert opening is not None
            wide, high = float(opening[1]), float(opening[2])
            height = high * column / wide
            left = place * (column + _GAP)
            # an svg inside an svg keeps its own measure; its style sheet is the same as that of the grid
            inner = re.sub(r"^<style>.*?</style>", "", svg[opening.end() :])
            grid.parts.append(
                f'<svg x="{left}" y="{top:.1f}" width="{column}" height="{height:.1f}" viewBox="0 0 {wide:g} {high:g}">{inner}'
            )
            tallest = max(tallest, height)
        top += tallest + _GAP
    return finish(grid, top)
