"""The trace of a run as one picture: bounds and step, losses, budget per matrix, and the certificate's lights.

python -m geonb.widgets.trace_picture RUN out.svg
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from geonb.train.events import EvalEvent, Event, StepEvent
from geonb.widgets.svg import PALETTE, Axis, Picture, heat_colour

_BOUNDS = (
    ("eta_ceiling", "ceiling", PALETTE["vermilion"]),
    ("eta_sps", "sps", PALETTE["purple"]),
    ("eta_weyl", "weyl", PALETTE["sky"]),
)
_LIGHT = {"met": PALETTE["green"], "not met": PALETTE["orange"], "unmeasured": PALETTE["grey"]}
_LEFT, _RIGHT, _WIDTH = 128, 24, 900
# more points than pixels only make the file larger
_POINTS = 700
_COLUMNS = 60


def trace_picture(events: Sequence[Event]) -> str:
    """The SVG of a run's events (finished or not); an empty run says so."""
    steps = [event for event in events if isinstance(event, StepEvent)]
    evaluations = [event for event in events if isinstance(event, EvalEvent)]
    if not steps:
        picture = Picture(_WIDTH, 60)
        picture.text(20, 34, "This run has made no step yet.")
        return picture.svg()
    thin = steps[:: max(1, len(steps) // _POINTS)]
    measured = [event for event in steps if event.layers]
    rows = len(measured[0].layers) if measured else 0
    strip = max(5.0, min(12.0, 260 / rows)) * rows if rows else 0.0
    tops = {"eta": 34, "loss": 304, "budget": 534, "certificate": 584 + strip}
    names = [condition.name for event in evaluations for condition in event.conditions]
    names = list(dict.fromkeys(names))
    picture = Picture(_WIDTH, round(tops["certificate"] + 44 + 20 * len(names)), title="Trace of a training run")
    horizontal = Axis(0, max(1, steps[-1].step), _LEFT, _WIDTH - _RIGHT)
    _bounds(picture, thin, horizontal, tops["eta"])
    _losses(picture, thin, evaluations, horizontal, tops["loss"])
    if rows:
        _budget(picture, measured, horizontal, tops["budget"], strip)
    if names:
        _lights(picture, evaluations, names, horizontal, tops["certificate"])
    return picture.svg()


def _bounds(picture: Picture, steps: Sequence[StepEvent], x: Axis, top: float) -> None:
    picture.text(_LEFT, top - 12, "Step size and its three bounds", kind="t")
    picture.legend(
        _LEFT + 230, top - 12, [("step taken", PALETTE["blue"]), *((name, colour) for name, _, colour in _BOUNDS)]
    )
    values = [getattr(step, name) for step in steps for name, *_ in _BOUNDS] + [step.eta_step for step in steps]
    values = [value for value in values if 0 < value < float("inf")]
    y = Axis(min(values) / 1.3, max(values) * 1.3, top + 200, top, log=True)
    picture.axes(x, y, y_label=steps[0].unit[:34])
    for name, _, colour in _BOUNDS:
        picture.line([x.at(s.step) for s in steps], [y.at(getattr(s, name)) for s in steps], colour, width=1.4)
    picture.line(
        [x.at(s.step) for s in steps], [y.at(s.eta_step) for s in steps], PALETTE["blue"], width=2.6, dash="5 3"
    )
    # the ribbon: which bound binds, as a band of its colour
    colours = {binding: colour for _, binding, colour in _BOUNDS}
    width = (x.end - x.start) / len(steps)
    for step in steps:
        picture.rectangle(
            x.at(step.step) - width, top + 222, width + 0.6, 8, colours.get(step.binding, PALETTE["grey"]),
            hint=f"step {step.step}: {step.binding} binds",
        )  # fmt: skip
    picture.text(_LEFT - 6, top + 230, "binds", anchor="end")


def _losses(
    picture: Picture, steps: Sequence[StepEvent], evaluations: Sequence[EvalEvent], x: Axis, top: float
) -> None:
    picture.text(_LEFT, top - 12, "Loss", kind="t")
    kept = [event for event in evaluations if event.retention_loss is not None]
    entries = [
        ("training batch", PALETTE["grey"]),
        ("validation", PALETTE["blue"]),
        ("held-out base text", PALETTE["orange"]),
    ]
    picture.legend(_LEFT + 60, top - 12, entries[: 3 if kept else 2])
    values = [step.loss for step in steps] + [event.loss for event in evaluations]
    values += [event.retention_loss or 0.0 for event in kept]
    y = Axis(min(values) * 0.97, max(values) * 1.02, top + 170, top)
    picture.axes(x, y, x_label="step", y_label="nats per token")
    picture.line([x.at(s.step) for s in steps], [y.at(s.loss) for s in steps], PALETTE["grey"], width=1.0)
    for series, values_of, colour in (
        (evaluations, lambda event: event.loss, PALETTE["blue"]),
        (kept, lambda event: event.retention_loss, PALETTE["orange"]),
    ):
        points = [(x.at(event.step), y.at(values_of(event)), event) for event in series]
        picture.line([p[0] for p in points], [p[1] for p in points], colour, width=2)
        for at, height, event in points:
            picture.dot(
                at, height, colour, f"step {event.step}: {values_of(event):.4f}{' (best)' if event.best else ''}"
            )


def _budget(picture: Picture, measured: Sequence[StepEvent], x: Axis, top: float, height: float) -> None:
    picture.text(_LEFT, top - 2, "Budget used per matrix, ||dW||₂ / R", kind="t")
    for index in range(11):
        picture.rectangle(_LEFT + 290 + 14 * index, top - 11, 14, 9, heat_colour(index / 10), hint=f"{index / 10:.0%}")
    picture.text(_LEFT + 286, top - 2, "0", anchor="end")
    picture.text(_LEFT + 450, top - 2, "1")
    rows = len(measured[0].layers)
    row = height / rows
    columns = measured[:: max(1, len(measured) // _COLUMNS)]
    for index, event in enumerate(columns):
        left = x.at(columns[index - 1].step) if index else x.start
        for number, layer in enumerate(event.layers):
            # a name on every cell would be most of the file: the last column carries them
            hint = ""
            if event is columns[-1]:
                hint = f"{layer.name}: {layer.budget_used:.1%} of R, {layer.over_sigma_k:.2f} sigma_k"
            colour = heat_colour(layer.budget_used)
            picture.rectangle(left, top + 6 + number * row, x.at(event.step) - left + 0.4, row + 0.2, colour, hint=hint)
    picture.text(_LEFT - 6, top + 14, "first", anchor="end")
    picture.text(_LEFT - 6, top + 6 + height, "last layer", anchor="end")


def _lights(picture: Picture, evaluations: Sequence[EvalEvent], names: Sequence[str], x: Axis, top: float) -> None:
    picture.text(_LEFT, top, "Stopping certificate", kind="t")
    picture.legend(_LEFT + 160, top, [(name, colour) for name, colour in _LIGHT.items()])
    for row, name in enumerate(names):
        at = top + 24 + 20 * row
        picture.text(x.start - 6, at + 4, name, anchor="end")
        for event in evaluations:
            for condition in event.conditions:
                if condition.name == name:
                    picture.dot(
                        x.at(event.step), at, _LIGHT[condition.status], f"{condition.status}: {condition.because}",
                        radius=5.5, hollow=condition.status != "met",
                    )  # fmt: skip


def main() -> None:
    """Write the picture of RUN to a file."""
    from geonb.train.run_folder import RunFolder

    run, target = sys.argv[1:3]
    Path(target).write_text(trace_picture(list(RunFolder.open(run).events())), encoding="utf-8")


if __name__ == "__main__":
    main()
