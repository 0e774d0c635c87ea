"""A measured number with what makes it a finding: interval, sample size, null control, unit and operator."""

from __future__ import annotations

from dataclasses import dataclass

from geonb.records import Record, plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement(Record):
    """A value with its uncertainty; `operator` names pooling, dtype, centring and seed exactly.

    >>> Measurement(value=0.5, interval=(0.4, 0.6), n=30, null=0.0, unit="nats", operator="paired bootstrap")
    0.5 nats [0.4, 0.6] (n = 30, null 0)
    """

    value: float
    interval: tuple[float, float] | None
    n: int
    null: float | None
    unit: str
    operator: str

    def summary(self) -> str:
        interval = f" [{self.interval[0]:.4g}, {self.interval[1]:.4g}]" if self.interval else ""
        null = f", null {self.null:.4g}" if self.null is not None else ""
        return f"{self.value:.4g} {plain(self.unit)}{interval} (n = {self.n}{null})"
