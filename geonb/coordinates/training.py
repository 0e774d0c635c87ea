"""Training of a coordinate model as a generator of events: three phases, exact resume, one trace that every view reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from geonb.coordinates.curriculum import PHASES, Batch, draw_batch, phase_of, sample_texts
from geonb.coordinates.curriculum_losses import SPREAD, phase_loss
from geonb.coordinates.layer_states import layer_states
from geonb.coordinates.model import CoordinateModel, Reading
from geonb.coordinates.optimisers import BallOfCores, TwoRates, left_to_others
from geonb.coordinates.precision import Precision
from geonb.coordinates.recipe import RECIPE, Recipe
from geonb.coordinates.run import STATE, TOKENIZER, TRACE, load_state, load_tokenizer, save_model, save_state
from geonb.coordinates.tokenizer import train_tokenizer
from geonb.coordinates.trace_notes import phase_begins, phase_ends, varies
from geonb.errors import InputError
from geonb.records import atomic_write
from geonb.train.events import EvalEvent, Event, NoteEvent, StepEvent, StopEvent

_TOKENIZER_TEXTS = 4000


def train(recipe: Recipe, folder: str | Path, *, resume: bool = False) -> Iterator[Event]:
    """Train into `folder`; every event is on the disk before it is yielded, and a killed run resumes to the same bytes.

    The batch of a step is a function of (seed, step). A checkpoint is written at every evaluation. Raises `InputError` for a
    folder that holds a run (without `resume`) or another recipe's (with it), before anything is written.
    """
    home = Path(folder)
    if resume:
        Recipe.load(home / RECIPE).check_same(recipe)
    elif home.exists() and any(home.iterdir()):
        raise InputError(f"{home} is there and not empty; allowed is a new folder, or --resume to go on with its run.")
    prose_text = _read_prose(recipe.prose)
    home.mkdir(parents=True, exist_ok=True)
    if resume and (home / TOKENIZER).exists():
        tokenizer = load_tokenizer(home)
    else:
        texts = [*sample_texts(recipe.seed, _TOKENIZER_TEXTS), *prose_text]
        tokenizer = train_tokenizer(texts, recipe.configuration.vocabulary)
        atomic_write(home / TOKENIZER, tokenizer.to_str(pretty=False))
        atomic_write(home / RECIPE, recipe.to_json(indent=1) + "\n")
    return _Run(recipe, home, tokenizer, [one for text in prose_text for one in tokenizer.encode(text).ids]).events(
        resume
    )


class _Run:
    def __init__(self, recipe: Recipe, home: Path, tokenizer: Any, prose: list[int]) -> None:
        self.recipe, self.home, self.tokenizer, self.prose = recipe, home, tokenizer, prose
        self.model = CoordinateModel(recipe.configuration, seed=recipe.seed)
        self.ball = BallOfCores(self.model, recipe) if recipe.controller == "frank-wolfe" else None
        self.model.checkpointed = recipe.checkpointing
        self.precision = Precision(self.model, recipe.precision)
        self.adamw = TwoRates(self.model, recipe, left_to_others(self.model, recipe))
        self.tail = _tail(prose)
        self.seen = prose[: -self.tail or None]
        self.best = (0, float("inf"))

    def events(self, resume: bool) -> Iterator[Event]:
        step, length = 0, 0
        if resume:
            step, length = self._restore()
        mode = "r+b" if resume and (self.home / TRACE).exists() else "wb"
        with (self.home / TRACE).open(mode) as trace:
            trace.truncate(length)
            trace.seek(length)
            for event in self._loop(step, trace):
                trace.write((event.to_json() + "\n").encode())
                trace.flush()
                yield event
        save_model(self.model, self.home)

    def _loop(self, step: int, trace) -> Iterator[Event]:
        recipe = self.recipe
        if step == 0:
            yield EvalEvent(step=0, loss=self.held_out()["loss"])
        while step < recipe.steps:
            phase = phase_of(step, recipe.steps)
            number = PHASES.index(phase)
            if step == 0 or phase != phase_of(step - 1, recipe.steps):
                yield NoteEvent(step=step, because=phase_begins(number, len(PHASES), phase))
            last = step + 1 == recipe.steps
            evaluated = (step + 1) % recipe.evaluate_every == 0 or last
            made = self._step(step, phase, measured=evaluated)
            yield made
            step += 1
            if made.gradient_norm is None:
                yield NoteEvent(
                    step=step, because="the gradients overflowed float16: the step was left out, the scale halved"
                )
            ended = last or phase != phase_of(step, recipe.steps)
            if not (evaluated or ended):
                continue
            found = self.held_out()
            spreads = [found[f"spread/{name}"] for name in PHASES]
            if evaluated:
                self.best = min(self.best, (step, found["loss"]), key=lambda one: one[1])
                yield EvalEvent(step=step, loss=found["loss"], best=self.best[0] == step)
                told = ", ".join(f"{name} {found[name]:.3f}" for name in PHASES)
                yield NoteEvent(step=step, because=f"held out: {told}; {varies(spreads, SPREAD)}")
            if ended:
                yield NoteEvent(step=step, because=phase_ends(number, len(PHASES), phase, spreads, SPREAD))
            if evaluated:
                save_state(self.home, step, trace.tell(), self._tensors())
        yield StopEvent(
            step=step,
            reason="horizon",
            horizon=recipe.steps,
            because="all steps were made",
            best_step=self.best[0],
            best_loss=self.best[1],
        )

    def _step(self, step: int, phase: str, *, measured: bool) -> StepEvent:
        rng = np.random.default_rng([self.recipe.seed, 1, step])
        earlier = PHASES[: PHASES.index(phase)]
        if earlier and rng.random() < self.recipe.rehearsal:
            # without it the third phase unlearns the first two: 3.4 against 2.5 nats on their held-out texts (tiny, 150 steps)
            phase = str(rng.choice(earlier))
        batch = draw_batch(
            phase, rng, self.tokenizer, rows=self.recipe.rows, length=self.recipe.length, prose=self.seen
        )  # fmt: skip
        self.model.train()
        with self.precision.cast():
            reading = self.model(batch.tokens[:, :-1])
        loss = language_loss(reading, batch)
        theta, phases = coordinates_at(reading, batch)
        terms = phase_loss(phase, theta, phases, batch.labels, batch.partners) if len(theta) else {}
        total = loss + sum(terms.values())
        length = self.recipe.coordinate_rate * self.adamw.share(step)
        norm = None
        if self.precision.backward(total):
            norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip))
            if self.ball is not None:
                length = self.ball.step(step)
            self.adamw.step(step)
        self.model.zero_grad(set_to_none=True)
        return StepEvent(
            step=step + 1,
            loss=float(loss.detach()),
            tokens=int(batch.counted.sum()),
            eta_ceiling=length,
            eta_sps=length,
            eta_weyl=length,
            eta_step=length,
            binding="ceiling",
            unit="learning rate" if self.ball is None else "share of the ball",
            gradient_norm=norm,
            layers=layer_states(self.model, theta.detach(), length, "ceiling") if measured else (),
        )

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """Loss of each phase's held-out texts, their mean, and how far a coordinate varies over the texts of each."""
        self.model.eval()
        found, spreads = {}, {}
        for number, phase in enumerate(PHASES):
            rng = np.random.default_rng([self.recipe.seed, 2, number])
            batch = draw_batch(phase, rng, self.tokenizer, rows=24, length=self.recipe.length, held_out=True)
            reading = self.model(batch.tokens[:, :-1])
            found[phase] = float(language_loss(reading, batch))
            theta = coordinates_at(reading, batch)[0]
            spreads[f"spread/{phase}"] = float(theta.std(dim=0, correction=0).mean())
        if self.tail:
            found["prose"] = self._prose_loss()
        return {**found, **spreads, "loss": sum(found.values()) / len(found)}

    def _prose_loss(self) -> float:
        ids = self.prose[-self.tail :]
        length = min(self.recipe.length, len(ids) - 1)
        rows = torch.tensor([ids[start : start + length + 1] for start in range(0, len(ids) - length, length)][:16])
        logits = self.model(rows[:, :-1]).logits
        return float(functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()))

    def _tensors(self) -> dict[str, Tensor]:
        kept = {f"model/{name}": one for name, one in self.model.named_parameters()}
        kept |= {f"adamw/{name}": one for name, one in self.adamw.state().items()}
        kept["best"] = torch.tensor(self.best, dtype=torch.float64)
        return kept | self.precision.state() | (self.ball.state() if self.ball is not None else {})

    @torch.no_grad()
    def _restore(self) -> tuple[int, int]:
        if not (self.home / STATE).exists():
            return 0, 0  # killed before its first evaluation: from the start, to the same bytes
        step, length, tensors = load_state(self.home)
        for name, one in self.model.named_parameters():
            one.copy_(tensors[f"model/{name}"])
        self.best = (int(tensors["best"][0]), float(tensors["best"][1]))
        self.adamw.restore(
            {name.removeprefix("adamw/"): one for name, one in tensors.items() if name.startswith("adamw/")}
        )
        self.precision.restore(tensors)
        if self.ball is not None:
            self.ball.restore(tensors)
        return step, length


def language_loss(reading: Reading, batch: Batch) -> Tensor:
    """Nats a counted token."""
    losses = functional.cross_entropy(
        reading.logits.flatten(0, 1).float(), batch.tokens[:, 1:].flatten(), reduction="none"
    )
    counted = batch.counted.flatten()
    return (losses * counted).sum() / counted.sum()


def coordinates_at(reading: Reading, batch: Batch) -> tuple[Tensor, Tensor]:
    """theta (texts, coordinates) and phases (texts, layers x pairs) at the end of each text of the batch."""
    assert reading.theta is not None
    rows, places = batch.ends.unbind(dim=1) if len(batch.ends) else (torch.zeros(0, dtype=torch.long),) * 2
    return reading.theta[rows, places], torch.cat([one[rows, places] for one in reading.phases], dim=-1)


def _tail(prose: list[int]) -> int:
    """How many tokens at the end of the prose are held out: a tenth, where there is enough."""
    return len(prose) // 10 if len(prose) > 2000 else 0


def _read_prose(path: str) -> list[str]:
    if not path:
        return []
    from geonb.data.records import read_records

    if path.endswith(".txt"):
        try:
            return [Path(path).read_text(encoding="utf-8")]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read as text: {error}.") from None
    return [
        (one.text or "\n".join(message["content"] for message in one.messages)) + "\n" for one in read_records(path)
    ]
