"""A gate is passed, failed or unmeasured; a verification passes only when every required gate did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.record_tables import table_html
from geonb.records import Record, plain

PASSED, FAILED, UNMEASURED = "passed", "failed", "unmeasured"
_MARK = {PASSED: "✓", FAILED: "✗", UNMEASURED: "·"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate(Record):
    """One check of a finished run: what was measured, against what, and whether the verdict needs it."""

    name: str
    status: str
    required: bool
    value: float | None
    threshold: float | None
    because: str

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The gate that `data` describes; a state that no gate has is an `InputError`."""
        found = super(Gate, cls).from_dict(data)
        if found.status not in _MARK:
            raise InputError(
                f"Gate has {plain(found.status)[:40]!r} in the field 'status'; allowed are {', '.join(_MARK)}: is this "
                "file of another version?"
            )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerBound(Record):
    """The spectral facts of one adapted matrix: ||dW||_2, its budget, and the largest shift of a singular value."""

    name: str
    norm: float
    budget: float
    over_sigma_k: float
    largest_shift: float  # max_i |s_i(W + dW) - s_i(W)|, at most `norm` by Weyl
    interlacing: bool  # s_{i+r}(W) <= s_i(W + dW) <= s_{i-r}(W) for rank r


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification(Record):
    """What was verified after training; `verdict` is "passed" only when every required gate passed."""

    verdict: str
    gates: tuple[Gate, ...]
    layers: tuple[LayerBound, ...]
    task: Measurement  # paired change of the validation loss, adapter minus base
    retention: Measurement | None  # the same on held-out base text
    base_loss: float
    adapted_loss: float
    base_retention: float | None
    adapted_retention: float | None
    cka: dict[str, Measurement]  # per layer, base against adapted hidden states
    repetition: Measurement

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The verification that `data` describes; a change of a loss without the losses is an `InputError`."""
        found = super(Verification, cls).from_dict(data)
        if found.retention is not None and (found.base_retention is None or found.adapted_retention is None):
            raise InputError(
                "Verification has a 'retention' and not both of 'base_retention' and 'adapted_retention'; allowed are "
                "all three or none: is this file of another version?"
            )
        return found

    def summary(self) -> str:
        failed = [gate.name for gate in self.gates if gate.required and gate.status != PASSED]
        reason = f", not passed: {plain(', '.join(failed))}" if failed else ""
        return f"Verification({plain(self.verdict)}: {len(self.gates)} gates{reason})"

    def to_text(self) -> str:
        lines = [f"Verification: {self.verdict}"]
        for gate in self.gates:
            kind = "required" if gate.required else "reported"
            lines.append(f"  {_MARK[gate.status]} {gate.name:24} {gate.status:10} {kind:9} {gate.because}")
        lines.append(
            f"  task loss      base {self.base_loss:.4f} -> adapter {self.adapted_loss:.4f} nats/token   {self.task!r}"
        )
        if self.retention is not None:
            lines.append(
                f"  retention loss base {self.base_retention:.4f} -> adapter {self.adapted_retention:.4f} nats/token   "
                f"{self.retention!r}"
            )
        return "\n".join(plain(line) for line in lines)

    def to_html(self) -> str:
        gates = table_html(
            ("gate", "status", "kind", "value", "threshold", "because"),
            [
                (
                    f"{_MARK[gate.status]} {gate.name}",
                    gate.status,
                    "required" if gate.required else "reported",
                    gate.value,
                    gate.threshold,
                    gate.because,
                )
                for gate in self.gates
            ],
            caption=f"Verification: {self.verdict}",
        )
        losses: list[tuple] = [("task loss (nats/token)", self.base_loss, self.adapted_loss, repr(self.task))]
        if self.retention is not None:
            losses.append(
                ("retention loss (nats/token)", self.base_retention, self.adapted_retention, repr(self.retention))
            )
        return gates + table_html(("", "base", "adapter", "paired change"), losses, caption="Against the base model")


def verdict(gates: tuple[Gate, ...]) -> str:
    """Failed unless every required gate passed: an unmeasured required gate is no pass."""
    return PASSED if all(gate.status == PASSED for gate in gates if gate.required) else FAILED
