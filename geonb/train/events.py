"""The events of a training run: what the loop yields, what trace.jsonl holds, what every view reads.

One event is one record; nothing in it depends on the clock, so that a run that was killed and resumed leaves the same
trace as one that was not. Times stand in the run's status file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from geonb.errors import InputError
from geonb.records import Record, parse_json


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerState(Record):
    """One matrix's share of a step, in units of the spectral norm of its weight change."""

    name: str
    eta_step: float
    binding: str  # "ceiling", "sps" or "weyl"
    norm: float  # ||dW||_2 after the step
    budget_used: float  # ||dW||_2 / R, 0..1
    over_sigma_k: float  # ||dW||_2 / sigma_k


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEvent(Record):
    """One step of the controller. The four etas are means over the trained matrices, all in the same unit."""

    kind: str = "step"
    step: int  # 1..T, after the update
    loss: float  # nats per counted token of this batch, before the update
    tokens: int
    eta_ceiling: float
    eta_sps: float
    eta_weyl: float
    eta_step: float
    binding: str  # the bound that binds in most matrices
    unit: str = "spectral norm of the weight change"
    gap: float | None = None  # duality gap (nats), the linear improvement left inside the budget
    gradient_norm: float | None = None
    noise_scale: float | None = None  # debiased tr Cov(g) / ||E g||^2, examples; None where unresolved or not measured
    signal_to_noise: float | None = None  # ||E g||^2 / tr Cov(g), debiased
    layers: tuple[LayerState, ...] = ()  # filled on the steps where the norms were measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition(Record):
    """One condition of the stopping certificate; a condition that was not measured is `unmeasured`, never met."""

    name: str
    status: str  # "met", "not met" or "unmeasured"
    value: float | None
    threshold: float | None
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalEvent(Record):
    """One evaluation on the examples held out from training; step 0 is the model before training."""

    kind: str = "eval"
    step: int
    loss: float  # nats per counted token
    delta: float | None = None  # mean paired change of the examples' loss against step 0
    delta_interval: tuple[float, float] | None = None
    retention_loss: float | None = None  # nats per token on held-out base text
    entropy: float | None = None  # nats, next-token entropy on the probes
    repetition: float | None = None  # fraction of repeated n-grams in greedy continuations of the probes
    best: bool = False
    conditions: tuple[Condition, ...] = ()
    dimension: float | None = None  # TwoNN intrinsic dimension of the probes' last hidden states
    topology: float | None = None  # total 0-dimensional persistence of the same cloud, relative to step 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteEvent(Record):
    """Something that a reader of the trace should know, such as a micro-batch that was halved."""

    kind: str = "note"
    step: int
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopEvent(Record):
    """The end of a run and its reason: horizon, certificate, requested or diverged."""

    kind: str = "stop"
    step: int
    reason: str
    horizon: int
    because: str
    best_step: int
    best_loss: float


Event = StepEvent | EvalEvent | NoteEvent | StopEvent
_KINDS: dict[str, type[Record]] = {"step": StepEvent, "eval": EvalEvent, "note": NoteEvent, "stop": StopEvent}


def event_from_dict(data: dict[str, Any]) -> Event:
    """The event that one line of trace.jsonl describes."""
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InputError(
            f"a trace line has the kind {kind!r}; allowed are step, eval, note and stop: is this a trace.jsonl?"
        )
    return _KINDS[kind].from_dict(data)  # type: ignore[return-value]


def event_from_line(line: str | bytes) -> Event:
    """Parse one line of trace.jsonl."""
    return event_from_dict(parse_json(line, "a trace line"))
