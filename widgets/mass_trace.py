"""MassTrace: a run as it happens or as it happened - bounds, losses, budgets and the certificate's lights."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from geonb.coordinates.recipe import recipe_of
from geonb.errors import GeonbError, InputError
from geonb.records import Record
from geonb.train.events import Event
from geonb.train.gates import Verification
from geonb.train.run_folder import RunFolder
from geonb.train.samples import Samples
from geonb.widgets.decimate import buckets, extremes, majority
from geonb.widgets.packing import pack
from geonb.widgets.trace_columns import SERIES, TraceColumns, TraceReader
from geonb.widgets.view import View, picture_html

# more than one point a pixel only costs time; the strip is 4 px a column
_POINTS, _COLUMNS, _EVALUATIONS = 1400, 200, 100
# seconds between two looks at the file: at most four updates a second reach the page
_PERIOD = 0.25
# a run that has ended may be deleted, resumed or written anew
_PERIOD_OF_ENDED = 2.0
_FINISHED = {"done", "stopped", "failed", "dead", "gone"}


class MassTrace(View):
    """The trace of a run: live while `trace.jsonl` grows, in this or another process, and replayed when it is done.

    `source` is a run folder (path, `RunFolder`, or a `Run` that was saved; also that of a coordinate model, whose phases
    are marked) or a finished list of events. Reading and
    drawing happen outside the process that trains, or in a thread of its own: nothing here can stop a run but the stop
    button, which asks for it.

    >>> from geonb.train.events import EvalEvent
    >>> MassTrace([EvalEvent(step=0, loss=3.2)])
    MassTrace('events', 0 steps)
    """

    name = "mass_trace"

    def __init__(self, source: Any, *, title: str | None = None) -> None:
        super().__init__()
        self._given = source if isinstance(source, Record) else None
        self.columns = TraceColumns()
        self.run: RunFolder | None = None
        self._reader: TraceReader | None = None
        self._plan: Any = None
        self._horizon = 0  # of a coordinate model's run, which has a recipe and no plan
        self._status: dict[str, Any] = {}
        self._window: tuple[float, float] | None = None
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        folder = getattr(source, "folder", None) if not isinstance(source, str | Path) else source
        if isinstance(source, RunFolder):
            folder = source.path
        if folder is not None and (recipe := recipe_of(folder)) is not None:
            self._reader, self._horizon = TraceReader(Path(folder) / "trace.jsonl", self.columns), recipe.steps
            self.title = title or Path(folder).name
            self.read()
        elif folder is not None:
            self.run = RunFolder.open(folder)
            self._reader = TraceReader(self.run.trace_path, self.columns)
            self._plan = self.run.plan()
            self.title = title or self.run.path.name
            self.read()
        elif isinstance(events := _listed(source), list) and all(isinstance(event, Event) for event in events):
            self.columns = TraceColumns(events)
            self.title = title or "events"
        else:
            raise InputError(
                f"a trace was asked of {type(source).__name__}; allowed are a run folder or a list of events."
            )

    def __repr__(self) -> str:
        return f"MassTrace({self.title!r}, {len(self.columns)} steps)"

    @property
    def record(self) -> Record | None:
        """The record that was given, if it was one."""
        return self._given

    # -- following ------------------------------------------------------------------------------------------------

    def read(self) -> bool:
        """Read on to the end of the file; whether anything is new."""
        if self._reader is None:
            return False
        fresh = False
        while self._reader.read():
            fresh = True
        return self._read_status() or fresh

    def _read_status(self) -> bool:
        before = self._status
        if self.run is None:  # such a run keeps no status: its trace says how far it is
            self._status = {"state": "done" if self.columns.stop else "training", "horizon": self._horizon}
            return self._status != before
        found: dict[str, Any] = {"state": "gone", "message": f"the run folder {self.run.path} is not there any more"}
        if self.run.is_run():
            try:
                status = self.run.status()
                found = status.to_dict() if status is not None else {"state": "planned", "message": ""}
                if found["state"] in {"training", "verifying"} and not self.run.is_alive():
                    found |= {
                        "state": "dead",
                        "message": f"its process is gone: geonb train run --resume -o {self.run.path}",
                    }
                found["stopping"] = (self.run.path / "stop").exists()
            except (GeonbError, OSError, ValueError):
                # status.json is replaced by one rename, so this is a folder on its way out
                found = before or found
        self._status = found
        return found != before

    def _read_plan(self) -> None:
        """A run that was written anew has another plan; one that is half-written keeps the old."""
        if self.run is None:
            return
        with contextlib.suppress(GeonbError, OSError, ValueError, TypeError, KeyError):
            self._plan = self.run.plan()

    def poll(self) -> bool:
        """One look at the file, and one update of every host if there was news; whether there was."""
        with self._lock:
            ended = self.is_finished
            fresh = self.read()
            if ended and not self.is_finished:
                self._read_plan()
        if fresh:
            self.push()
        return fresh

    @property
    def is_finished(self) -> bool:
        """Whether nothing more is expected."""
        return self._reader is None or self._status.get("state") in _FINISHED

    def begin(self) -> None:
        if self._reader is None:
            return
        # an event of its own for each thread: one that was told to leave never comes back
        self._wake = threading.Event()
        self._thread = threading.Thread(
            target=self._follow, args=(self._wake,), name=f"geonb-trace-{self.title}", daemon=True
        )
        self._thread.start()

    def rest(self) -> None:
        self._wake.set()

    def _follow(self, leave: threading.Event) -> None:
        while not leave.wait(_PERIOD_OF_ENDED if self.is_finished else _PERIOD):
            began = time.perf_counter()
            self.poll()
            # a long trace or a slow page gets fewer updates, never a share of the training's time
            if leave.wait(4 * (time.perf_counter() - began)):
                return

    # -- what is sent ---------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        columns, status = self.columns, self._status
        horizon = status.get("horizon") or (int(self._plan.horizon["steps"]) if self._plan is not None else 0)
        steps = columns.step.values
        last = int(steps[-1]) if len(steps) else 0
        pace = status.get("seconds_per_step")
        phase = status.get("state") or ("done" if columns.stop else "events")
        evaluations = columns.evaluations
        if len(evaluations) > _EVALUATIONS:
            evaluations = [evaluations[row] for row in buckets(len(evaluations), _EVALUATIONS)] + evaluations[-1:]
        kept = ("step", "loss", "retention_loss", "best", "conditions", "delta", "delta_interval")
        return {
            "title": self.title,
            "phase": phase,
            "message": "; ".join(
                [*columns.notes[-3:], *filter(None, [status.get("message") or (columns.stop or {}).get("because", "")])]
            ),
            "stopping": bool(status.get("stopping")) and phase == "training",
            "can_stop": self.run is not None and phase == "training",
            "step": last,
            "horizon": max(int(horizon), last),
            "pace": pace,
            "left": pace * (horizon - last) if pace is not None and phase == "training" else None,
            "unit": columns.unit,
            "layers": columns.layers,
            "phases": [list(one) for one in columns.phases],
            "curriculum": bool(self._horizon),
            "evaluations": [
                # the sentences of the last evaluation alone: those of a hundred would be most of a message
                {name: event.get(name) for name in kept} | ({} if event is evaluations[-1] else _without_reasons(event))
                for event in evaluations
            ],
            "window": list(self._window) if self._window else None,
            "verification": self._verification_state(),
            "unreadable": self._reader.unreadable if self._reader is not None else 0,
        }

    def verification(self) -> Verification | None:
        """What was verified after training, None before that or where the file cannot be read."""
        if self.run is None or not self.run.verification_path.is_file():
            return None
        try:
            return Verification.load(self.run.verification_path)
        except (GeonbError, OSError, ValueError, TypeError):
            return None

    def samples(self) -> Samples | None:
        """What base and adapter wrote after the same openings, None before the verification."""
        if self.run is None or not self.run.samples_path.is_file():
            return None
        try:
            return Samples.load(self.run.samples_path)
        except (GeonbError, OSError, ValueError, TypeError):
            return None

    def _verification_state(self) -> dict[str, Any] | None:
        found = self.verification() if self.is_finished else None
        if found is None:
            return None
        gates = [[gate.name, gate.status, gate.required, gate.because] for gate in found.gates]
        written = self.samples()
        return {
            "verdict": found.verdict,
            "gates": gates,
            "samples": [[one.prompt, one.base, one.adapted] for one in written.samples] if written is not None else [],
        }

    def data(self) -> bytes:
        columns = self.columns
        steps, series, binding = columns.step.values, columns.series.values, columns.binding.values
        low, high = self._window or (0, np.inf)
        inside = slice(int(np.searchsorted(steps, low, "left")), int(np.searchsorted(steps, high, "right")))
        steps, series, binding = steps[inside], series[inside], binding[inside]
        rows, values = extremes(series, _POINTS)
        blocks = buckets(len(binding), _POINTS // 2)
        packed: dict[str, np.ndarray] = {"step": steps[rows]}
        packed |= {name: values[:, column] for column, name in enumerate(SERIES)}
        packed["ribbon_step"] = steps[blocks]
        packed["ribbon"] = majority(binding, _POINTS // 2) if len(binding) else binding
        n_columns = 0
        if columns.strip is not None and columns.strip.count:
            strip_step, strip = columns.strip_step.values, columns.strip.values
            inside = slice(
                int(np.searchsorted(strip_step, low, "left")), int(np.searchsorted(strip_step, high, "right"))
            )
            picked = buckets(len(strip_step[inside]), _COLUMNS)
            packed["strip_step"] = strip_step[inside][picked]
            packed["strip"] = strip[inside][picked].reshape(-1)
            packed["layer_norm"] = np.array([fact[0] for fact in columns.layer_facts], dtype=np.float32)
            packed["layer_over_sigma_k"] = np.array([fact[1] for fact in columns.layer_facts], dtype=np.float32)
            n_columns = len(picked)
        return pack(packed, total=len(columns), columns=n_columns, thinned=len(rows) < len(steps))

    def receive(self, event: dict[str, Any]) -> None:
        kind = event.get("kind")
        if kind == "stop":
            self.request_stop()
        elif kind == "window":
            low, high = event.get("low"), event.get("high")
            self._window = (float(low), float(high)) if low is not None and high is not None else None
            self.push()

    def request_stop(self) -> None:
        """Ask the run to stop at its next step, with a checkpoint; it can be resumed."""
        if self.run is None or not self.run.is_run():
            raise InputError("there is no run to stop here: this trace was given as events, or its folder is gone.")
        self._read_status()
        if self.is_finished or self._status.get("state") == "verifying":
            raise InputError(
                f"the run {self.run.path} is {self._status.get('state')}: there is no step left to stop at."
            )
        self.run.request_stop()
        self._status = {**self._status, "stopping": True}
        self.push(data=False)

    # -- still pictures -------------------------------------------------------------------------------------------

    def events(self) -> list[Event]:
        """Every event again, as records: of the run folder, or those that were given."""
        if self.run is None:
            raise InputError("the events of this trace are the list that it was given.")
        return list(self.run.events())

    def static(self) -> str:
        from geonb.widgets.trace_picture import columns_picture

        verified = self.verification()
        picture = picture_html(columns_picture(self.columns, hints=False), alt=f"Trace of {self.title}")
        written = self.samples()
        return (
            picture
            + (verified.to_html() if verified is not None else "")
            + (written.to_html() if written is not None else "")
        )

    def figure(self) -> Any:
        from geonb.widgets.figures import trace_figure

        return trace_figure(self.columns, title=self.title)


def _listed(source: Any) -> Any:
    return list(source) if isinstance(source, Iterable) else source


def _without_reasons(event: dict[str, Any]) -> dict[str, Any]:
    conditions = event.get("conditions") or ()
    return {"conditions": [{"name": item["name"], "status": item["status"], "because": ""} for item in conditions]}
