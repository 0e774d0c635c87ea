"""RunComparison: runs side by side - losses over the steps, changes with intervals, and what differs between them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from geonb.geometry.measurement import Measurement
from geonb.record_tables import table_html
from geonb.train.compare import RunsCompared, compare_runs
from geonb.widgets.view import View, picture_html


class RunComparison(View):
    """Two or more runs held against each other, with the interval of every difference.

    `source` is a `RunsCompared`, or the folders of the runs. Where two runs scored the same examples their difference
    is paired; where they did not, it says so and shows none.
    """

    name = "run_comparison"

    def __init__(self, source: RunsCompared | Iterable[str | Path], *, labels: list[str] | None = None) -> None:
        super().__init__()
        self.compared = source if isinstance(source, RunsCompared) else compare_runs(list(source), labels=labels)

    def __repr__(self) -> str:
        return f"RunComparison({', '.join(repr(run.label) for run in self.compared.runs)})"

    @property
    def record(self) -> RunsCompared:
        """The comparison that is shown."""
        return self.compared

    def state(self) -> dict[str, Any]:
        return {
            "runs": [
                {
                    "label": run.label,
                    "state": run.state,
                    "what": f"{run.model} on {run.data}" if run.model else "",
                    "controller": run.controller or "",
                    "verdict": run.verdict or "not verified",
                    "problem": run.problem,
                    "validation": [list(point) for point in run.validation if math.isfinite(point[1])],
                    "retention": [list(point) for point in run.retention if math.isfinite(point[1])],
                    "task": _interval(run.task),
                    "retained": _interval(run.retained),
                    "over_sigma_k": _finite(run.largest_over_sigma_k),
                }
                for run in self.compared.runs
            ],
            "pairs": [
                {
                    "first": pair.first,
                    "second": pair.second,
                    "quantity": pair.quantity,
                    "difference": _interval(pair.difference),
                    "verdict": pair.verdict,
                    "sentence": pair.sentence,
                    "because": pair.because,
                }
                for pair in self.compared.pairs
            ],
            "differences": {
                name: [str(value) for value in values] for name, values in self.compared.differences.items()
            },
        }

    def static(self) -> str:
        from geonb.widgets.comparison_picture import comparison_picture

        pairs = table_html(
            ("runs", "quantity", "difference", "verdict"),
            [
                (f"{pair.second} − {pair.first}", pair.quantity, interval_text(pair.difference), pair.sentence)
                for pair in self.compared.pairs
            ],
            caption="Paired differences, nats per token",
        )
        problems = [(run.label, run.problem) for run in self.compared.runs if run.problem]
        said = table_html(("run", "what is missing"), problems) if problems else ""
        return picture_html(comparison_picture(self.compared), alt=repr(self)) + said + pairs

    def figure(self) -> Any:
        from geonb.widgets.figures import comparison_figure

        return comparison_figure(self.compared)


def interval_text(measured: Measurement | None) -> str:
    """A difference with its interval, or a dash."""
    if measured is None:
        return "–"
    if measured.interval is None:
        return f"{measured.value:+.4f}"
    return f"{measured.value:+.4f} [{measured.interval[0]:+.4f}, {measured.interval[1]:+.4f}]"


def _interval(measured: Measurement | None) -> list[float] | None:
    if measured is None:
        return None
    low, high = measured.interval if measured.interval is not None else (measured.value, measured.value)
    found = [measured.value, low, high]
    return found if all(math.isfinite(value) for value in found) else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
