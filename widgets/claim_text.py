"""Text that fits into a picture, and the text of a number."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from geonb.errors import InputError

LINE = 14  # pixels from one baseline to the next


def text_width(text: str, *, bold: bool = False) -> float:
    """About how many pixels a line takes at 11 px, or at the 13 px of a title; rather too many than too few."""
    pixels = 0.0
    for letter in text:
        if letter in "iljtfrI.,:;'|![]() ":
            pixels += 3.7
        elif letter in "mwMW@%&":
            pixels += 9.6
        elif ord(letter) > 0x2E80:
            pixels += 11.5
        else:
            pixels += 7.4 if letter.isupper() else 6.4
    # the widest of the usual system fonts
    return pixels * (1.3 if bold else 1.06)


def wrapped(text: str, pixels: float, *, bold: bool = False, most: int = 3) -> list[str]:
    """The text in at most `most` lines of `pixels`; words too long for a line are broken, the rest ends in an ellipsis.

    >>> wrapped("a long name of a row", 60)
    ['a long', 'name of a', 'row']
    """
    lines: list[str] = []
    present = ""
    for word in text.split():
        while word:
            candidate = f"{present} {word}" if present else word
            if text_width(candidate, bold=bold) <= pixels:
                present, word = candidate, ""
            elif present:
                lines.append(present)
                present = ""
            else:
                cut = next(
                    (end for end in range(len(word) - 1, 1, -1) if text_width(word[:end], bold=bold) <= pixels), 1
                )
                lines.append(word[:cut])
                word = word[cut:]
    lines += [present] if present else []
    if len(lines) > most:
        last = lines[most - 1]
        while last and text_width(f"{last}…", bold=bold) > pixels:
            last = last[:-1]
        lines = [*lines[: most - 1], f"{last}…"]
    return lines


def figure(value: float, interval: tuple[float, float] | None = None) -> str:
    """A value with its interval, with as many decimals as the interval's width is worth.

    >>> figure(0.98765, (0.97, 0.99))
    '0.988 [0.970, 0.990]'
    """
    span = interval[1] - interval[0] if interval is not None else 0.0
    largest = max(abs(value), *(map(abs, interval) if interval else (0.0,)))
    if not math.isfinite(largest) or not math.isfinite(span) or largest >= 1e5 or (0 < largest < 1e-3) or span <= 0:
        ends = f" [{interval[0]:.4g}, {interval[1]:.4g}]" if interval else ""
        return f"{value:.4g}{ends}"
    # two digits of half its width
    places = min(8, max(0, 1 - math.floor(math.log10(span / 2) + 1e-9)))
    if interval is None:
        return f"{value:.4g}"
    return f"{value:.{places}f} [{interval[0]:.{places}f}, {interval[1]:.{places}f}]"


def numbers(values: Iterable[Any], what: str) -> list[float]:
    """Floats from any sequence of numbers; an `InputError` names `what` where they are none."""
    try:
        found = [math.nan if value is None else float(value) for value in values]
    except (TypeError, ValueError):
        raise InputError(f"{what} holds something that is no number; allowed is a sequence of numbers.") from None
    return found
