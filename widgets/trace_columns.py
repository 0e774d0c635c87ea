"""A trace as growing columns: what a live view keeps of 100,000 steps, and reads on from a file that still grows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from geonb.coordinates.trace_notes import phase_begun
from geonb.records import decode, encode, parse_json
from geonb.train.events import EvalEvent, NoteEvent, StopEvent, event_from_dict

SERIES = ("loss", "eta_ceiling", "eta_sps", "eta_weyl", "eta_step", "gap", "noise_scale", "gradient_norm")
BINDINGS = ("ceiling", "sps", "weyl", "none")
# one read of a long trace: the view shows the beginning while the rest is on its way
_CHUNK = 4 * 2**20
# longer than the end that all lines of a trace have in common, so that another trace is told from this one
_TAIL = 4096


class Growing:
    """A float32 or uint8 array that grows by doubling; `values` is what is there."""

    def __init__(self, width: int = 0, kind: str = "float32") -> None:
        self._rows = np.zeros((64, width) if width else 64, dtype=kind)
        self.count = 0

    def append(self, row: Any) -> None:
        """Add one row."""
        if self.count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        with np.errstate(over="ignore"):  # what float32 cannot hold is drawn as infinite
            self._rows[self.count] = row
        self.count += 1

    @property
    def values(self) -> np.ndarray:
        """A view of the rows so far."""
        return self._rows[: self.count]


class TraceColumns:
    """The events of a run by column: steps, bounds, losses, budgets; evaluations stay as they are."""

    def __init__(self, events: Iterable[Any] = ()) -> None:
        self.clear()
        for event in events:
            self.add(encode(event.to_dict()))

    def clear(self) -> None:
        """Forget everything, as when a run was cut back to its checkpoint."""
        self.step = Growing()
        self.series = Growing(len(SERIES))
        self.binding = Growing(kind="uint8")
        self.strip_step = Growing()
        self.strip: Growing | None = None
        self.layers: list[str] = []
        self.layer_facts: list[tuple[float, float]] = []
        self.evaluations: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.phases: list[tuple[int, str]] = []  # (step, name) of each phase of a curriculum that began
        self.stop: dict[str, Any] | None = None
        self.unit = ""

    def add(self, event: dict[str, Any]) -> None:
        """Take in one event, as it stands in trace.jsonl; raises `InputError` or `TypeError` for a damaged one."""
        if event.get("kind") == "step":
            self._add_step(event)
            return
        # steps are many, and read by hand; of the others there are few, and they are checked as the records that they are
        found = event_from_dict(event)
        if isinstance(found, EvalEvent):
            self.evaluations.append(encode(found.to_dict()))
            self.stop = None
        elif isinstance(found, NoteEvent):
            self.notes.append(f"step {found.step}: {found.because}")
            if (phase := phase_begun(found.because)) is not None:
                self.phases.append((found.step, phase))
        elif isinstance(found, StopEvent):
            self.stop = encode(found.to_dict())

    def _add_step(self, event: dict[str, Any]) -> None:
        # everything is read before anything is kept, so that a damaged line leaves no half of a step
        step, series = float(decode(event["step"], int)), [_float(event.get(name)) for name in SERIES]
        name, unit = event.get("binding", "none"), decode(event.get("unit", self.unit), str)
        binding = BINDINGS.index(name) if name in BINDINGS else BINDINGS.index("none")
        layers = [
            (decode(layer["name"], str), *(_float(layer[key]) for key in ("budget_used", "norm", "over_sigma_k")))
            for layer in event.get("layers") or ()
        ]
        self.stop = None  # a resumed run goes on behind its earlier stop
        self.step.append(step)
        self.series.append(series)
        self.binding.append(binding)
        self.unit = unit
        if not layers:
            return
        if self.strip is None or len(layers) != len(self.layers):
            self.layers = [layer[0] for layer in layers]
            self.strip, self.strip_step = Growing(len(layers), "uint8"), Growing()
        used = np.nan_to_num(np.array([layer[1] for layer in layers]))
        self.strip.append((np.clip(used, 0.0, 1.0) * 255).round())
        self.strip_step.append(step)
        self.layer_facts = [(layer[2], layer[3]) for layer in layers]

    def __len__(self) -> int:
        return self.step.count


class TraceReader:
    """Reads `trace.jsonl` on from where it stopped; a file that shrank, changed or went away is noticed."""

    def __init__(self, path: str | Path, columns: TraceColumns) -> None:
        self.path, self.columns = Path(path), columns
        self.offset, self._tail = 0, b""
        self.unreadable = 0

    def read(self) -> bool:
        """Take in what was added, at most a few megabytes; whether anything changed."""
        try:
            # a pipe would be waited for
            if not self.path.is_file():
                return False
            with self.path.open("rb") as stream:
                cut = self._was_cut(stream)
                if cut:
                    self.columns.clear()
                    self.offset, self._tail, self.unreadable = 0, b"", 0
                stream.seek(self.offset)
                block = stream.read(_CHUNK)
        except OSError:
            return False
        end = block.rfind(b"\n") + 1
        if end == 0:
            return cut
        for line in block[:end].splitlines():
            self._take(line)
        self.offset += end
        self._tail = (self._tail + block[:end])[-_TAIL:]
        return True

    def _was_cut(self, stream: Any) -> bool:
        # a resumed run cuts its trace back to the checkpoint and goes on: the same length may hold other lines
        if not self.offset:
            return False
        stream.seek(self.offset - len(self._tail))
        return stream.read(len(self._tail)) != self._tail

    def _take(self, line: bytes) -> None:
        try:
            self.columns.add(parse_json(line, "a trace line"))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            # a damaged line is counted and shown, and hides nothing of the others
            self.unreadable += 1


def _float(value: Any) -> float:
    if value is None:
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
