"""Small self-contained SVG charts: axes, lines, ribbons, heat; readable in light and dark, no script, no network."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

# Okabe-Ito: tells eight series apart for every common kind of colour vision
PALETTE = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "sky": "#56B4E9",
    "purple": "#CC79A7",
    "grey": "#7f7f7f",
}

# currentColor follows the page's text, so one picture serves both schemes
_STYLE = (
    "text{font:11px system-ui,sans-serif;fill:currentColor}"
    ".t{font-weight:600;font-size:13px}.g{stroke:currentColor;stroke-opacity:.15}.a{stroke:currentColor;stroke-opacity:.6}"
    ".m{fill-opacity:.7}"
)


# what XML cannot hold in any form: one such character in a name would break the whole picture
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def escape(text: str) -> str:
    """Text as it may stand in a picture: markup escaped, characters that XML forbids replaced.

    >>> escape("<b>\\x00")
    '&lt;b&gt;\ufffd'
    """
    return html.escape(_FORBIDDEN.sub("\ufffd", text))


@dataclass(slots=True)
class Axis:
    """A linear or logarithmic scale from data to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of `value`, kept inside the axis."""
        low, high, x = self.low, self.high, value
        if self.log:
            low, high, x = math.log10(low), math.log10(high), math.log10(max(value, self.low))
        share = (x - low) / (high - low) if high > low else 0.5
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Powers of ten (with 2 and 5 where they are few), or about five round numbers."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = (1,) if last - first > 3 else (1, 2, 5)
            return [s * 10.0**e for e in range(first, last + 1) for s in steps if self.low <= s * 10.0**e <= self.high]
        span = self.high - self.low
        # beyond these no step between two numbers is a number
        if not 1e-300 < span < math.inf:
            return [self.low]
        step = 10 ** math.floor(math.log10(span / 4))
        step = next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 6)
        first = math.ceil(self.low / step)
        return [step * n for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


@dataclass(slots=True)
class MarkedAxis(Axis):
    """An axis whose ticks are given; those beyond it are left out."""

    marks: tuple[float, ...] = ()

    def ticks(self) -> list[float]:
        return [mark for mark in self.marks if self.low <= mark <= self.high]


def number(value: float) -> str:
    """A tick's short text."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


@dataclass(slots=True)
class Picture:
    """An SVG under construction; `svg()` closes it."""

    width: int
    height: int
    title: str = ""
    hints: bool = True  # tooltips: an <img> shows none, and they are a third of the text
    parts: list[str] = field(default_factory=list)

    def text(
        self, x: float, y: float, text: str, *, anchor: str = "start", kind: str = "m", rotate: bool = False
    ) -> None:
        """Escaped text."""
        turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if rotate else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}"{turn}>{escape(text)}</text>'
        )

    def rectangle(
        self, x: float, y: float, width: float, height: float, fill: str, *, hint: str = "", opacity=1.0
    ) -> None:
        """A filled box with an optional tooltip."""
        inside = f"<title>{escape(hint)}</title>" if hint and self.hints else ""
        see_through = f' fill-opacity="{opacity:.2f}"' if opacity < 1 else ""
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{max(0.0, height):.1f}" '
            f'fill="{fill}"{see_through}>{inside}</rect>'
        )

    def line(
        self, xs: Sequence[float], ys: Sequence[float], colour: str, *, width: float = 1.6, dash: str = ""
    ) -> None:
        """A polyline; points that are not finite break it."""
        path, pen = [], "M"
        for x, y in zip(xs, ys, strict=True):
            if not (math.isfinite(x) and math.isfinite(y)):
                pen = "M"
                continue
            path.append(f"{pen}{x:.1f} {y:.1f}")
            pen = "L"
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<path d="{"".join(path)}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>')

    def curve(self, x: Axis, y: Axis, xs, ys, colour: str, *, width: float = 1.6, dash: str = "") -> None:
        """A polyline of data on two axes; what is not finite, or not positive on a log axis, breaks it."""
        usable = [float(value) if not (y.log and not value > 0) else math.nan for value in ys]
        pixels = [y.at(value) if math.isfinite(value) else math.nan for value in usable]
        self.line([x.at(float(value)) for value in xs], pixels, colour, width=width, dash=dash)

    def dot(
        self, x: float, y: float, colour: str, hint: str = "", *, radius: float = 3.5, hollow: bool = False
    ) -> None:
        """A round mark with a tooltip."""
        fill = "none" if hollow else colour
        self.parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{fill}" stroke="{colour}" stroke-width="1.4">'
            f"{f'<title>{escape(hint)}</title>' if hint and self.hints else ''}</circle>"
        )

    def axes(self, x: Axis, y: Axis, *, x_label: str = "", y_label: str = "", x_ticks: bool = True) -> None:
        """Grid lines, tick labels and axis titles."""
        for tick in y.ticks():
            at = y.at(tick)
            self.parts.append(f'<line x1="{x.start}" x2="{x.end}" y1="{at:.1f}" y2="{at:.1f}" class="g"/>')
            self.text(x.start - 6, at + 4, number(tick), anchor="end")
        for tick in x.ticks():
            at = x.at(tick)
            self.parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y.start}" y2="{y.end}" class="g"/>')
            if x_ticks:
                self.text(at, y.start + 15, number(tick), anchor="middle")
        self.parts.append(f'<line x1="{x.start}" x2="{x.end}" y1="{y.start}" y2="{y.start}" class="a"/>')
        if x_label:
            self.text((x.start + x.end) / 2, y.start + 31, x_label, anchor="middle")
        if y_label:
            self.text(x.start - 46, (y.start + y.end) / 2, y_label, anchor="middle", rotate=True)

    def legend(self, x: float, y: float, entries: Sequence[tuple[str, str]]) -> None:
        """Colour and name of each series, in one row."""
        for name, colour in entries:
            self.rectangle(x, y - 8, 16, 4, colour)
            self.text(x + 20, y, name)
            x += 32 + 6.4 * len(name)

    def svg(self) -> str:
        """The finished picture."""
        name = f"<title>{escape(self.title)}</title>" if self.title else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'width="100%" style="max-width:{self.width}px"><style>{_STYLE}</style>{name}{"".join(self.parts)}</svg>'
        )


# cividis turned round: pale is little, dark is much, for every common kind of colour vision
_CIVIDIS = (
    (254, 232, 56), (225, 204, 85), (195, 179, 105), (165, 156, 116), (138, 134, 120),
    (112, 113, 115), (87, 93, 109), (59, 73, 108), (18, 53, 112), (0, 34, 78),
)  # fmt: skip


def heat_colour(share: float) -> str:
    """A sequential scale from pale yellow (0) to dark blue (1), in 40 shades so that neighbours can be joined."""
    place = round(min(1.0, max(0.0, share)) * 40) / 40 * (len(_CIVIDIS) - 1)
    index = min(len(_CIVIDIS) - 2, int(place))
    first, second, local = _CIVIDIS[index], _CIVIDIS[index + 1], place - index
    red, green, blue = (round(a + (b - a) * local) for a, b in zip(first, second, strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}"


def on_heat(share: float) -> str:
    """The colour of text on `heat_colour(share)`."""
    return "#fff" if share > 0.45 else "#111"
