"""The still pictures of the zero-knob benchmark: loss against rate, fit against retention, and regret."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from geonb.errors import InputError
from geonb.widgets.svg import PALETTE, Axis, MarkedAxis, Picture, escape
from geonb.workbench.benchmark.arm import OPEN, STRICT, THREE, ZERO_KNOB
from geonb.workbench.benchmark.cells import is_tuned_lora, rise, rows_by_cell, scaled_points
from geonb.workbench.benchmark.domains import DOMAINS
from geonb.workbench.benchmark.job import Job, Row
from geonb.workbench.benchmark.tables import Regret, ZeroKnobResults

_WIDTH, _COLUMNS, _LEFT, _GAP = 940, 3, 64, 52
_PANEL_WIDTH = (_WIDTH - _LEFT - 16 - _GAP * (_COLUMNS - 1)) / _COLUMNS
_PANEL_HEIGHT, _TOP, _ROW = 168.0, 78, 246.0
# how far above the best loss of a panel is shown at least and at most: beyond, a run is an arrow at the edge
_LEAST, _MOST = 1.12, 1.6
_LOSS = "validation loss, nats a token"
_RANKS = {"tail": "blue", "32": "sky", "8": "grey"}
# drawn in this order, each level line narrower than the last, so that none hides another
_RADII = {
    OPEN.key: ("R = σ_max", "vermilion", 3.8),
    THREE.key: ("R = 3 σₖ", "orange", 2.5),
    STRICT.key: ("R = σₖ", "green", 1.5),
}


def slices(rows: Mapping[str, Row]) -> list[tuple[str, int, int]]:
    """(model, horizon, batch) of every picture that the rows allow, those with the most domains first."""
    found: dict[tuple[str, int, int], set[str]] = {}
    for job in (row.job for row in rows.values()):
        if _is_of(job, job.model, job.horizon, job.batch):
            found.setdefault((job.model, job.horizon, job.batch), set()).add(job.domain)
    return sorted(found, key=lambda one: (-len(found[one]), one))


def rate_picture(rows: Mapping[str, Row], model: str, *, horizon: int = 200, batch: int = 16) -> str:
    """AdamW-LoRA's validation loss over its learning rate, one panel a domain, with geonb's arm as level lines.

    The lowest dot has a ring. A run far above the panel's best loss is an arrow at the edge, one that diverged a cross.
    Raises `InputError` where no row belongs to the slice.
    """
    groups = _panels(rows, model, horizon, batch)
    rates = sorted({row.job.arm.rate or 1.0 for group in groups.values() for row in _rivals(group)}) or [1e-3, 1e-2]
    # whole decades where there is no room for all
    marks = tuple(rate for rate in rates if len(rates) <= 5 or abs(math.log10(rate) % 1) < 1e-6)

    def draw(picture: Picture, group: list[Row], left: float, top: float) -> None:
        ours, rivals = _ours(group), _rivals(group)
        x = MarkedAxis(rates[0] / 1.6, rates[-1] * 1.6, left, left + _PANEL_WIDTH, log=True, marks=marks)
        decades = Axis(math.log10(x.low), math.log10(x.high), x.start, x.end)
        y = _loss_axis(ours.values(), rivals, top)
        picture.axes(x, y, x_label="learning rate of AdamW", y_label=_LOSS if left == _LEFT else "")
        for rank, colour in _RANKS.items():
            tried = sorted((row for row in rivals if row.job.arm.rank == rank), key=lambda row: row.job.arm.rate or 0.0)
            at = [(row.job.arm.rate or 1.0, row.validation) for row in tried]
            known = [(math.log10(rate), loss) for rate, loss in at if loss is not None]
            _line(picture, decades, y, known, PALETTE[colour], width=1.8)
            for rate, loss in at:
                if loss is None or loss > y.high:
                    _mark(picture, x.at(rate), top + 9, "✕" if loss is None else "↑", PALETTE[colour])
                else:
                    picture.dot(x.at(rate), y.at(loss), PALETTE[colour], radius=3)
        for key, (_, colour, width) in _RADII.items():
            if key in ours and (loss := ours[key].validation) is not None and loss <= y.high:
                picture.line([x.start, x.end], [y.at(loss)] * 2, PALETTE[colour], width=width)
        tuned = [row for row in rivals if row.validation is not None]
        if tuned:
            chosen = min(tuned, key=lambda row: row.validation or 0.0)
            picture.dot(
                x.at(chosen.job.arm.rate or 1.0), y.at(chosen.validation or 0.0), "#333", radius=6.5, hollow=True
            )

    legend = _radii_legend() + [(f"AdamW, rank {rank}", PALETTE[colour]) for rank, colour in _RANKS.items()]
    title = "Fit against the learning rate: geonb has none, and is a level line"
    return _multiples(groups, title, _of(model, horizon, batch), legend, draw)


def frontier_picture(rows: Mapping[str, Row], model: str, *, horizon: int = 200, batch: int = 16) -> str:
    """Validation loss over the rise of the loss on base text, one panel a domain: lower and further left is better.

    Each blue line is one AdamW adapter scaled after training from 0 to 1 (its dot); the bold one has the lowest loss.
    geonb's three radii are large points, joined by a dashed line. Raises `InputError` where no row belongs to the slice.
    """
    groups = _panels(rows, model, horizon, batch)

    def draw(picture: Picture, group: list[Row], left: float, top: float) -> None:
        ours = {key: row for key, row in _ours(group).items() if row.validation is not None}
        rivals = sorted(
            (row for row in _rivals(group) if row.validation is not None), key=lambda row: -(row.validation or 0)
        )
        base = group[0].base["retention"]
        reach = [rise(row) for row in (*ours.values(), *rivals[-1:])]
        y = _loss_axis(ours.values(), rivals, top)
        # some adapters better the base text a little before they harm it
        least = [kept - base for row in rivals for kept, loss in scaled_points(row) if loss <= y.high]
        right = 1.25 * max([*reach, 0.1])
        x = Axis(max(min([*reach, *least, 0.0]), -right), right, left, left + _PANEL_WIDTH)
        picture.axes(x, y, x_label="rise of the loss on base text, nats", y_label=_LOSS if left == _LEFT else "")
        for row in rivals:
            bold = row is rivals[-1]
            colour = PALETTE["blue"] if bold else PALETTE["sky"]
            points = [(kept - base, loss) for kept, loss in scaled_points(row)]
            _line(picture, x, y, points, colour, width=2.2 if bold else 1.1)
            if rise(row) <= x.high and (row.validation or 0.0) <= y.high:
                picture.dot(x.at(rise(row)), y.at(row.validation or 0.0), colour, radius=3.5 if bold else 2.2)
        points = sorted((rise(row), row.validation or 0.0) for row in ours.values())
        _line(picture, x, y, points, "#555", width=1.2, dash="3 3")
        for key, (_, colour, _width) in _RADII.items():
            if key in ours and (ours[key].validation or 0.0) <= y.high:
                picture.dot(x.at(rise(ours[key])), y.at(ours[key].validation or 0.0), PALETTE[colour], radius=5.5)

    legend = [
        *_radii_legend(),
        ("the best AdamW, scaled from 0 to 1", PALETTE["blue"]),
        ("the other AdamW adapters", PALETTE["sky"]),
    ]
    title = "Fit against forgetting: lower and further left is better"
    return _multiples(groups, title, _of(model, horizon, batch), legend, draw)


def regret_picture(found: ZeroKnobResults, *, most: int = 12) -> str:
    """Worst (pale) and mean (full) loss above the best of each cell, one pair of bars a fixed setting, the safest first."""
    shown = _safest(found.regrets, most)
    left, row, top = 230, 26, 62
    bottom = top + row * max(1, len(shown)) + 4
    picture = Picture(_WIDTH, bottom + 46, title="Regret of fixed settings", hints=False)
    picture.text(16, 20, "One setting for everything: how far above the best of each cell", kind="t")
    cells = shown[0].cells if shown else 0
    picture.text(
        16, 38, f"Loss over the best loss of the cell, minus 1, in the {cells} cells in which all of these were run."
    )
    if not shown:
        picture.text(left, top + 18, "No cell to compare yet.")
        return picture.svg()
    picture.legend(560, 20, [("geonb", PALETTE["vermilion"]), ("rivals", PALETTE["blue"])])
    picture.text(_WIDTH - 16, 20, "full bar: mean; pale bar: worst", anchor="end")
    finite = [100 * one.worst for one in shown if math.isfinite(one.worst)]
    x = Axis(0, 1.02 * max([*finite, 1.0]), left, _WIDTH - 260)
    picture.axes(x, MarkedAxis(0, 1, bottom, top - 4))
    picture.text((x.start + x.end) / 2, bottom + 33, "percent above the best", anchor="middle")
    columns = ((x.end + 60, "mean", "end"), (x.end + 118, "worst", "end"), (x.end + 132, "in the cell of", "start"))
    for column, name, anchor in columns:
        picture.text(column, top - 8, name, anchor=anchor)
    for place, one in enumerate(shown):
        at = top + row * (place + 0.5) + 2
        colour = PALETTE["vermilion" if one.arm.split(" ")[0] in ZERO_KNOB else "blue"]
        picture.text(left - 8, at + 4, setting_name(one.arm), anchor="end")
        end = x.at(100 * one.worst) if math.isfinite(one.worst) else x.end
        picture.rectangle(left, at - 8, end - left, 16, colour, opacity=0.3)
        if math.isfinite(one.mean):
            picture.rectangle(left, at - 8, x.at(100 * one.mean) - left, 16, colour)
        model, domain = [*one.worst_cell.split("/"), "", ""][:2]
        worst = f"{100 * one.worst:.1f} %" if math.isfinite(one.worst) else "diverged"
        mean = f"{100 * one.mean:.1f} %" if math.isfinite(one.mean) else ""
        for (column, _, anchor), text in zip(columns, (mean, worst, f"{domain}, {model}"), strict=True):
            if text:
                picture.text(column, at + 4, text, anchor=anchor)
    return picture.svg()


def setting_name(key: str) -> str:
    """An arm's key as a reader says it.

    >>> setting_name("adamw rate=0.003 rank=32")
    'AdamW, rate 0.003, rank 32'
    """
    if key in _RADII:
        return f"geonb, {_RADII[key][0]}"
    method, *settings = key.split(" ")
    if method == "adamw" and not any(one.startswith("rank=") for one in settings):
        settings.append("rank=tail")
    return ", ".join(
        [{"adamw": "AdamW"}.get(method, method), *(one.replace("=", " ").replace("_", " ") for one in settings)]
    )


# -- panels -----------------------------------------------------------------------------------------------------------


def _panels(rows: Mapping[str, Row], model: str, horizon: int, batch: int) -> dict[str, list[Row]]:
    """The rows at seed 0 of each domain of a slice, in the order of the domains."""
    groups = {}
    for group in rows_by_cell(rows).values():
        job = group[0].job
        first = [row for row in group if row.job.seed == 0]
        if _is_of(job, model, horizon, batch) and _lowest(first) < math.inf:
            groups[job.domain] = first
    if not groups:
        known = "; ".join(f"{name} T = {steps} batch {size}" for name, steps, size in slices(rows)) or "none"
        raise InputError(f"{model} T = {horizon} batch {batch} was given, of which no row is there; there are {known}.")
    order = list(DOMAINS)
    return dict(sorted(groups.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def _is_of(job: Job, model: str, horizon: int, batch: int) -> bool:
    # a cell whose plan believed in another horizon, or whose loss was scaled, has a longer name
    return job.cell == f"{model}/{job.domain}/T{horizon}/b{batch}"


def _ours(group: Iterable[Row]) -> dict[str, Row]:
    return {row.job.arm.key: row for row in group if row.job.arm.key in _RADII}


def _rivals(group: Iterable[Row]) -> list[Row]:
    return [row for row in group if is_tuned_lora(row.job.arm) and row.job.arm.rank in _RANKS]


def _lowest(rows: Iterable[Row]) -> float:
    return min((row.validation for row in rows if row.validation is not None), default=math.inf)


def _radii_legend() -> list[tuple[str, str]]:
    return [(f"geonb, {name}", PALETTE[colour]) for name, colour, _ in reversed(_RADII.values())]


def _loss_axis(ours: Iterable[Row], rivals: Iterable[Row], top: float) -> Axis:
    """The losses of geonb's radii, of the best rival and of the better half of the others, with some room."""
    first = [row.validation for row in ours if row.validation is not None]
    second = [row.validation for row in rivals if row.validation is not None]
    best = min([*first, *second])
    wanted = 1.06 * max([*first, statistics.median(second)] if second else first)
    # the ring around the best rival is in the picture however far above it is
    highest = max(min(_MOST * best, max(_LEAST * best, wanted)), 1.06 * min(second, default=0.0))
    return Axis(best * 0.97, highest, top + _PANEL_HEIGHT, top)


def _of(model: str, horizon: int, batch: int) -> str:
    return f"{model}, T = {horizon}, batch {batch}, seed 0"


def _multiples(
    groups: Mapping[str, list[Row]],
    title: str,
    of: str,
    legend: Sequence[tuple[str, str]],
    draw: Callable[[Picture, list[Row], float, float], None],
) -> str:
    lines = -(-len(groups) // _COLUMNS)
    picture = Picture(_WIDTH, round(_TOP + _ROW * lines - 14), title=f"{title} ({of})", hints=False)
    picture.text(16, 20, title, kind="t")
    picture.text(_WIDTH - 16, 20, of, anchor="end")
    picture.legend(16, 42, legend)
    for place, (domain, group) in enumerate(groups.items()):
        left = _LEFT + (place % _COLUMNS) * (_PANEL_WIDTH + _GAP)
        top = _TOP + (place // _COLUMNS) * _ROW
        picture.text(left, top - 7, domain, kind="t")
        draw(picture, group, left, top)
    return picture.svg()


def _mark(picture: Picture, x: float, y: float, sign: str, colour: str) -> None:
    picture.parts.append(
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" style="fill:{colour};font-weight:700">{escape(sign)}</text>'
    )


def _line(
    picture: Picture,
    x: Axis,
    y: Axis,
    points: Sequence[tuple[float, float]],
    colour: str,
    *,
    width: float,
    dash: str = "",
) -> None:
    """The polyline through `points`, cut where it leaves the panel to the right or at the top."""
    xs: list[float] = []
    ys: list[float] = []
    left = False  # whether the line has left the panel since its last point
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        low, high = 0.0, 1.0
        for start, end, limit in ((x0, x1, x.high), (y0, y1, y.high)):
            if start > limit and end > limit:
                low, high = 1.0, 0.0
            elif start > limit:
                low = max(low, (start - limit) / (start - end))
            elif end > limit:
                high = min(high, (limit - start) / (end - start))
        if low >= high:
            left = True
            continue
        if low > 0 or not xs or left:
            xs += [math.nan, x.at(x0 + (x1 - x0) * low)]
            ys += [math.nan, y.at(y0 + (y1 - y0) * low)]
        xs.append(x.at(x0 + (x1 - x0) * high))
        ys.append(y.at(y0 + (y1 - y0) * high))
        left = high < 1
    if xs:
        picture.line(xs, ys, colour, width=width, dash=dash)


def _safest(regrets: Sequence[Regret], most: int) -> list[Regret]:
    """The first `most`, and geonb's arms wherever they stand."""
    kept = [one for place, one in enumerate(regrets) if place < most or one.arm.split(" ")[0] in ZERO_KNOB]
    return kept
