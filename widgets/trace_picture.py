"""The trace of a run as one still picture: bounds and step, losses, gap and noise, budgets, and the certificate's lights.

python -m geonb.widgets.trace_picture RUN out.svg
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from geonb.train.events import Event
from geonb.widgets.decimate import buckets, extremes, majority
from geonb.widgets.svg import PALETTE, Axis, Picture, heat_colour
from geonb.widgets.trace_columns import BINDINGS, SERIES, TraceColumns

BOUNDS = (
    ("eta_ceiling", "ceiling", PALETTE["vermilion"]),
    ("eta_sps", "sps", PALETTE["purple"]),
    ("eta_weyl", "weyl", PALETTE["sky"]),
)
_LIGHT = {"met": PALETTE["green"], "not met": PALETTE["orange"], "unmeasured": PALETTE["grey"]}
_LEFT, _RIGHT, _WIDTH = 128, 24, 900
# more points than these only make the file larger
_POINTS, _COLUMNS, _DOTS = 360, 48, 60


def trace_picture(events: Sequence[Event]) -> str:
    """The SVG of a run's events (finished or not); an empty run says so."""
    return columns_picture(TraceColumns(events))


def columns_picture(columns: TraceColumns, *, hints: bool = True) -> str:
    """The SVG of a trace that was read as columns; `hints` are tooltips."""
    if not len(columns):
        picture = Picture(_WIDTH, 60)
        picture.text(20, 34, "This run has made no step yet.")
        return picture.svg()
    rows, values = extremes(columns.series.values, _POINTS)
    steps = columns.step.values[rows]
    series = {name: values[:, index] for index, name in enumerate(SERIES)}
    layers = len(columns.layers)
    strip = max(5.0, min(12.0, 260 / layers)) * layers if layers else 0.0
    names = list(dict.fromkeys(item["name"] for event in columns.evaluations for item in event["conditions"]))
    tops = {"eta": 34, "loss": 304, "gap": 534, "budget": 680}
    lights = tops["budget"] + (50 + strip if layers else 0)
    picture = Picture(_WIDTH, round(lights + 44 + 20 * len(names)), title="Trace of a training run", hints=hints)
    x = Axis(0, max(1.0, float(columns.step.values[-1])), _LEFT, _WIDTH - _RIGHT)
    _bounds(picture, columns, steps, series, x, tops["eta"])
    _losses(picture, columns, steps, series, x, tops["loss"])
    _gap_and_noise(picture, steps, series, x, tops["gap"])
    if layers:
        _budget(picture, columns, x, tops["budget"], strip)
    if names:
        _lights(picture, columns, names, x, lights)
    return picture.svg()


def _bounds(picture: Picture, columns: TraceColumns, steps, series, x: Axis, top: float) -> None:
    picture.text(_LEFT, top - 12, "Step size and its three bounds", kind="t")
    picture.legend(
        _LEFT + 230, top - 12, [("step taken", PALETTE["blue"]), *((label, colour) for _, label, colour in BOUNDS)]
    )
    everything = np.concatenate([series[name] for name in ("eta_step", *(name for name, *_ in BOUNDS))])
    everything = everything[np.isfinite(everything) & (everything > 0)]
    low, high = (float(everything.min()), float(everything.max())) if len(everything) else (0.1, 1.0)
    y = Axis(low / 1.3, high * 1.3, top + 200, top, log=True)
    picture.axes(x, y, y_label=columns.unit[:34])
    for name, _, colour in BOUNDS:
        picture.curve(x, y, steps, series[name], colour, width=1.4)
    picture.curve(x, y, steps, series["eta_step"], PALETTE["blue"], width=2.6, dash="5 3")
    # the ribbon: which bound binds, as a band of its colour
    colours = {binding: colour for _, binding, colour in BOUNDS}
    codes = majority(columns.binding.values, _POINTS)
    starts = columns.step.values[buckets(len(columns), _POINTS)]
    for code, run in groupby(range(len(codes)), key=lambda index: int(codes[index])):
        places = list(run)
        left = x.at(float(starts[places[0]]) - 1)
        last = places[-1] + 1
        right = x.at(float(starts[last]) - 1) if last < len(starts) else x.end
        name = BINDINGS[code]
        picture.rectangle(
            left, top + 222, right - left, 8, colours.get(name, PALETTE["grey"]),
            hint=f"from step {starts[places[0]]:.0f}: {name} binds",
        )  # fmt: skip
    picture.text(_LEFT - 6, top + 230, "binds", anchor="end")


def _losses(picture: Picture, columns: TraceColumns, steps, series, x: Axis, top: float) -> None:
    picture.text(_LEFT, top - 12, "Loss", kind="t")
    evaluations = columns.evaluations
    if len(evaluations) > _DOTS:
        evaluations = [evaluations[row] for row in buckets(len(evaluations), _DOTS)]
    kept = [event for event in evaluations if event.get("retention_loss") is not None]
    entries = [
        ("training batch", PALETTE["grey"]),
        ("validation", PALETTE["blue"]),
        ("held-out base text", PALETTE["orange"]),
    ]
    picture.legend(_LEFT + 60, top - 12, entries[: 3 if kept else 2])
    values = [float(value) for value in series["loss"] if np.isfinite(value)]
    values += [event["loss"] for event in evaluations] + [event["retention_loss"] for event in kept]
    values = [value for value in values if isinstance(value, float)] or [0.0, 1.0]
    y = Axis(min(values) * 0.97, max(values) * 1.02, top + 170, top)
    picture.axes(x, y, x_label="step", y_label="nats per token")
    for step, phase in columns.phases:
        picture.line([x.at(step)] * 2, [top, top + 170], PALETTE["green"], width=1.2, dash="3 3")
        picture.text(x.at(step) + 4, top + 12, phase)
    picture.curve(x, y, steps, series["loss"], PALETTE["grey"], width=1.0)
    for chosen, name, colour in (
        (evaluations, "loss", PALETTE["blue"]),
        (kept, "retention_loss", PALETTE["orange"]),
    ):
        points = [event for event in chosen if isinstance(event[name], float)]
        picture.curve(x, y, [event["step"] for event in points], [event[name] for event in points], colour, width=2)
        for event in points:
            best = " (best)" if event.get("best") else ""
            picture.dot(
                x.at(event["step"]), y.at(event[name]), colour, f"step {event['step']}: {event[name]:.4f}{best}"
            )


def _gap_and_noise(picture: Picture, steps, series, x: Axis, top: float) -> None:
    middle = (x.start + x.end) / 2
    for name, title, colour, start, end in (
        ("gap", "Duality gap (nats)", PALETTE["green"], x.start, middle - 40),
        ("noise_scale", "Noise scale (examples)", PALETTE["purple"], middle + 40, x.end),
    ):
        picture.text(start, top - 8, title, kind="t")
        values = series[name]
        there = np.isfinite(values) & (values > 0)
        if not there.any():
            picture.text(start, top + 40, "not measured in this run")
            continue
        own = Axis(x.low, x.high, start, end)
        y = Axis(float(values[there].min()) / 1.3, float(values[there].max()) * 1.3, top + 84, top, log=True)
        picture.axes(own, y, x_label="step")
        picture.curve(own, y, steps[there], values[there], colour, width=1.5)


def _budget(picture: Picture, columns: TraceColumns, x: Axis, top: float, height: float) -> None:
    assert columns.strip is not None
    picture.text(_LEFT, top - 2, "Budget used per matrix, ||dW||₂ / R", kind="t")
    for index in range(11):
        picture.rectangle(_LEFT + 290 + 14 * index, top - 11, 14, 9, heat_colour(index / 10), hint=f"{index / 10:.0%}")
    picture.text(_LEFT + 286, top - 2, "0", anchor="end")
    picture.text(_LEFT + 450, top - 2, "1")
    picked = buckets(columns.strip.count, _COLUMNS)
    strip, steps = columns.strip.values[picked] / 255, columns.strip_step.values[picked]
    row = height / strip.shape[1]
    edges = [x.start, *(x.at(float(step)) for step in steps)]
    for number in range(strip.shape[1]):
        norm, over = columns.layer_facts[number]
        # neighbours of one colour are one box: the picture stays small
        shades = [heat_colour(float(value)) for value in strip[:, number]]
        for colour, run in groupby(range(len(shades)), key=lambda index: shades[index]):
            places = list(run)
            hint = ""
            if places[-1] == len(shades) - 1:
                hint = f"{columns.layers[number]}: {strip[-1, number]:.0%} of R, ||dW||₂ {norm:.3g}, {over:.2f} sigma_k"
            left, right = edges[places[0]], edges[places[-1] + 1]
            picture.rectangle(left, top + 6 + number * row, right - left + 0.3, row + 0.2, colour, hint=hint)
    picture.text(_LEFT - 6, top + 14, "first", anchor="end")
    picture.text(_LEFT - 6, top + 6 + height, "last layer", anchor="end")


def _lights(picture: Picture, columns: TraceColumns, names: Sequence[str], x: Axis, top: float) -> None:
    picture.text(_LEFT, top, "Stopping certificate", kind="t")
    picture.legend(_LEFT + 160, top, [(name, colour) for name, colour in _LIGHT.items()])
    evaluations = columns.evaluations
    if len(evaluations) > _DOTS:
        evaluations = [evaluations[row] for row in buckets(len(evaluations), _DOTS)]
    for row, name in enumerate(names):
        at = top + 24 + 20 * row
        picture.text(x.start - 6, at + 4, name, anchor="end")
        for event in evaluations:
            for condition in event["conditions"]:
                if condition["name"] == name:
                    status = condition["status"]
                    picture.dot(
                        x.at(event["step"]), at, _LIGHT.get(status, PALETTE["grey"]),
                        f"{status}: {condition['because']}", radius=5.5, hollow=status != "met",
                    )  # fmt: skip


def main() -> None:
    """Write the picture of RUN to a file."""
    from geonb.train.run_folder import RunFolder

    run, target = sys.argv[1:3]
    Path(target).write_text(trace_picture(list(RunFolder.open(run).events())), encoding="utf-8")


if __name__ == "__main__":
    main()
