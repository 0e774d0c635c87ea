"""What a training run came to, read from its trace."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path

from geonb.coordinates.recipe import RECIPE, Recipe
from geonb.coordinates.run import TRACE
from geonb.coordinates.trace_notes import PhaseSpread, phase_spread
from geonb.errors import InputError
from geonb.records import Record, is_file, read_bytes
from geonb.train.events import EvalEvent, NoteEvent, StepEvent, StopEvent, event_from_line


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel(Record):
    """A run in figures."""

    folder: str
    recipe: Recipe
    steps: int  # made so far
    tokens: int  # counted ones
    finished: bool
    losses: tuple[tuple[int, float], ...]  # (step, held-out nats a token), step 0 before training
    notes: tuple[str, ...]
    spreads: tuple[PhaseSpread, ...] = ()  # at the end of each phase that was ended

    def summary(self) -> str:
        first, last = (self.losses[0][1], self.losses[-1][1]) if self.losses else (float("nan"),) * 2
        return (
            f"TrainedModel({self.steps} steps, {self.tokens:,} tokens, held out {first:.3f} -> {last:.3f} nats a token)"
        )

    def to_text(self) -> str:
        state = "finished" if self.finished else f"at step {self.steps} of {self.recipe.steps}: --resume goes on"
        lines = [f"{self.folder}: {state}, {self.tokens:,} tokens"]
        lines += [f"  step {step:>6}  held out {loss:.4f} nats a token" for step, loss in self.losses]
        if self.spreads:
            lines.append("  a coordinate varies over held-out pairs, compositions and dialogues by")
            lines += [f"    {one.summary()}" for one in self.spreads]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def to_html(self) -> str:
        rows = "".join(f"<tr><td>{step}</td><td>{loss:.4f}</td></tr>" for step, loss in self.losses)
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        spreads = "".join(f"<li>{html.escape(one.summary())}</li>" for one in self.spreads)
        told = f"<p>A coordinate varies over held-out pairs, compositions and dialogues by</p><ul>{spreads}</ul>"
        table = f"<table><tr><th>step</th><th>held out (nats a token)</th></tr>{rows}</table>"
        return f"{table}{told if spreads else ''}<ul>{notes}</ul>"


def trained_model(folder: str | Path) -> TrainedModel:
    """Read the run in `folder`; raises `InputError` where there is none."""
    home = Path(folder)
    if not is_file(home / TRACE):
        raise InputError(f"{home} holds no trace; give the folder of a `geonb coordinates train` run.")
    lines = [line for line in read_bytes(home / TRACE).split(b"\n")[:-1] if line]
    events = [event_from_line(line) for line in lines]
    steps = [one for one in events if isinstance(one, StepEvent)]
    notes = [one for one in events if isinstance(one, NoteEvent)]
    spreads = [phase_spread(one.step, one.because) for one in notes]
    return TrainedModel(
        folder=str(home),
        recipe=Recipe.load(home / RECIPE),
        steps=steps[-1].step if steps else 0,
        tokens=sum(one.tokens for one in steps),
        finished=any(isinstance(one, StopEvent) for one in events),
        losses=tuple((one.step, one.loss) for one in events if isinstance(one, EvalEvent)),
        notes=tuple(f"step {one.step}: {one.because}" for one in notes),
        spreads=tuple(one for one in spreads if one is not None),
    )
