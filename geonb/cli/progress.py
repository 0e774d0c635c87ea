"""Progress bars at the edge of the program: the library yields, this shows."""

from __future__ import annotations

import sys
import time
from typing import Any

from geonb.cli.output import note
from geonb.train.events import EvalEvent, Event, StepEvent, StopEvent


class TrainingBar:
    """A sink that shows a run on stderr: step, loss, the binding bound, the last validation loss."""

    def __init__(self, horizon: int, *, enabled: bool = True) -> None:
        from tqdm import tqdm

        self._bar: Any = tqdm(
            total=horizon, desc="train", unit="step", file=sys.stderr, disable=not enabled, dynamic_ncols=True
        )
        self._validation = ""

    def __call__(self, event: Event) -> None:
        if isinstance(event, EvalEvent):
            self._validation = f" val {event.loss:.3f}"
            if self._bar.disable:
                return
            self._bar.set_postfix_str(self._validation.strip(), refresh=True)
        elif isinstance(event, StepEvent):
            self._bar.n = event.step
            self._bar.set_postfix_str(f"loss {event.loss:.3f} {event.binding}{self._validation}", refresh=False)
            self._bar.update(0)
        elif isinstance(event, StopEvent):
            self._bar.refresh()
            self._bar.close()


class PretrainingBar:
    """A model that learns for minutes: a bar with its loss on a terminal, elsewhere a line for every tenth of the way."""

    def __init__(self, name: str) -> None:
        self._name, self._bar = name, None
        self._begun: tuple[float, int] | None = None  # when, and at which step

    def __call__(self, step: int, steps: int, loss: float) -> None:
        if not sys.stderr.isatty():
            if self._begun is None:
                self._begun = (time.monotonic(), step)
                return
            began, first = self._begun
            if step * 10 // steps > (step - 1) * 10 // steps and step < steps:
                left = (time.monotonic() - began) / (step - first) * (steps - step)
                note(f"{self._name}: step {step} of {steps}, loss {loss:.3f}, about {left / 60:.0f} min left")
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=steps, initial=step - 1, desc=self._name, unit="step", file=sys.stderr, leave=False)
        self._bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
        self._bar.update(1)
        if step >= steps:
            self._bar.close()


class StageLine:
    """What a plan is doing: one line that is written over and cleared at the end, on stderr or in a notebook's cell."""

    def __init__(self, *, enabled: bool = True) -> None:
        from geonb.cli.output import is_quiet

        self._cell: Any = None
        self._in_notebook = enabled and is_quiet() and _is_live()
        self._on_terminal = enabled and not self._in_notebook and sys.stderr.isatty()
        self._shown = 0.0

    def __call__(self, text: str) -> None:
        if self._on_terminal:
            sys.stderr.write(f"\r\x1b[2K{text[:110]}")
            sys.stderr.flush()
        elif self._in_notebook and time.monotonic() - self._shown > 0.2:
            self._shown = time.monotonic()
            self._show_in_cell(text)

    def _show_in_cell(self, text: str) -> None:
        from IPython.display import display

        bundle = {"text/plain": f"… {text}"}
        if self._cell is None:
            self._cell = display(bundle, raw=True, display_id=True)
        else:
            self._cell.update(bundle, raw=True)

    def __enter__(self) -> StageLine:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._on_terminal:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
        elif self._cell is not None:
            from IPython.display import clear_output

            clear_output()


def _is_live() -> bool:
    from geonb.widgets.displayed import is_live

    return is_live()


class GeometryBar:
    """Progress of a scan over a checkpoint's matrices: call it with (done, total, name)."""

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled, self._bar = enabled, None

    def __call__(self, done: int, total: int, name: str) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(
                total=total, desc="spectra", unit="matrix", file=sys.stderr, disable=not self._enabled, leave=False
            )
        self._bar.n = done
        self._bar.set_postfix_str(name[-40:], refresh=False)
        self._bar.update(0)
        if done >= total:
            self._bar.close()
