"""The still picture of a RunComparison: losses over the steps, and the change of each run with its interval."""

from __future__ import annotations

import math

from geonb.train.compare import RunsCompared
from geonb.widgets.svg import PALETTE, Axis, Picture

COLOURS = tuple(PALETTE[name] for name in ("blue", "vermilion", "green", "purple", "orange", "sky", "grey"))
_WIDTH = 920


def comparison_picture(compared: RunsCompared) -> str:
    """Validation (solid) and retention (dashed) over the steps; change against the base model with 95 % intervals."""
    runs = compared.runs
    row = 22
    top = 330
    picture = Picture(_WIDTH, top + 50 + row * len(runs), title="Runs compared", hints=False)
    picture.text(64, 18, "Loss over the steps: validation solid, held-out base text dashed", kind="t")
    points = [point for run in runs for point in (*run.validation, *run.retention) if math.isfinite(point[1])]
    if points:
        x = Axis(0, max(1, *(step for step, _ in points)), 64, 640)
        losses = [loss for _, loss in points]
        y = Axis(min(losses) * 0.97, max(losses) * 1.03, 270, 34)
        picture.axes(x, y, x_label="step", y_label="nats per token")
        for index, run in enumerate(runs):
            colour = COLOURS[index % len(COLOURS)]
            for series, dash in ((run.validation, ""), (run.retention, "5 3")):
                picture.curve(
                    x, y, [step for step, _ in series], [loss for _, loss in series], colour, width=2, dash=dash
                )
                for step, loss in series:
                    if not math.isfinite(loss):
                        continue
                    picture.dot(x.at(step), y.at(loss), colour, radius=2.2)
    for index, run in enumerate(runs):
        colour, at = COLOURS[index % len(COLOURS)], 46 + 34 * index
        if at < 290:
            picture.rectangle(664, at - 8, 16, 5, colour)
            picture.text(686, at, run.label[:36], kind="t")
            picture.text(
                686, at + 14, (run.state if run.problem else f"{run.controller}, {run.verdict or run.state}")[:44]
            )
    _forest(picture, compared, "task", "Change of the task loss against the base", 120, 480, top, row)
    _forest(picture, compared, "retained", "Change on held-out base text", 560, 900, top, row)
    return picture.svg()


def _forest(
    picture: Picture, compared: RunsCompared, name: str, title: str, start: float, end: float, top: float, row: float
) -> None:
    measured = [getattr(run, name) for run in compared.runs]
    measured = [found if found is not None and math.isfinite(found.value) else None for found in measured]
    known = [value for found in measured if found is not None for value in (found.value, *(found.interval or ()))]
    known = [value for value in known if math.isfinite(value)]
    picture.text(start, top - 10, title, kind="t")
    if not known:
        picture.text(start, top + 12, "not measured")
        return
    low, high = min(0.0, *known), max(0.0, *known)
    margin = 0.06 * (high - low or 1.0)
    x = Axis(low - margin, high + margin, start, end)
    bottom = top + row * len(measured)
    for tick in x.ticks():
        picture.line([x.at(tick)] * 2, [top, bottom], "#ddd" if tick else "#555", width=1)
        picture.text(x.at(tick), bottom + 14, f"{tick:.3g}", anchor="middle")
    for index, found in enumerate(measured):
        at = top + row * (index + 0.5)
        if start < 200:
            picture.text(start - 8, at + 4, compared.runs[index].label[:18], anchor="end")
        if found is None:
            continue
        colour = COLOURS[index % len(COLOURS)]
        if found.interval is not None:
            picture.line([x.at(found.interval[0]), x.at(found.interval[1])], [at, at], colour, width=3)
        picture.dot(x.at(found.value), at, colour, radius=4)
