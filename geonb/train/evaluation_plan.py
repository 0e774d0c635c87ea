"""When a run evaluates, measures and saves, and the statistics that those evaluations share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from geonb.data.example import Example
from geonb.geometry.measurement import Measurement
from geonb.geometry.statistics import bootstrap_interval, paired_bootstrap

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """Eight evaluations over the horizon, norms and noise fifty times, a checkpoint twenty times (conventions).

    Never more often than every eighth step: an evaluation costs as much as some forty steps of a small batch, so that
    a short run would do little else.

    Each is a function of the step alone, so that a resumed run does the same at the same steps.
    """

    horizon: int
    examples: Sequence[Example]
    seed: int

    @property
    def evaluate_every(self) -> int:
        return max(8, -(-self.horizon // 8))

    @property
    def measure_every(self) -> int:
        return max(1, self.horizon // 50)

    @property
    def checkpoint_every(self) -> int:
        return max(1, self.horizon // 20)

    def is_due(self, step: int) -> bool:
        """Whether an evaluation follows step number `step` (1..T)."""
        return step == self.horizon or step % self.evaluate_every == 0

    @property
    def n_retention(self) -> int:
        """How many held-out base texts an evaluation during training scores; verification scores them all."""
        return 64

    @property
    def groups(self) -> dict[str, list[int]]:
        """The groups of the certificate: the data's own where two or more have 8 examples, else quartiles of length.

        Of the first 64 evaluation examples only: two gradient passes cost six forward passes.
        """
        named: dict[str, list[int]] = {}
        probed = self.examples[:64]
        for index, example in enumerate(probed):
            named.setdefault(example.group or "", []).append(index)
        if len(named) >= 2 and min(len(rows) for rows in named.values()) >= 8:
            return dict(sorted(named.items()))
        order = sorted(range(len(probed)), key=lambda index: (len(self.examples[index].input_ids), index))
        parts = [part.tolist() for part in np.array_split(np.array(order), min(4, len(order)))]
        return {f"length quartile {number + 1}": part for number, part in enumerate(parts)}

    def paired(self, now: np.ndarray, before: np.ndarray) -> Measurement:
        """The mean paired change of the examples' loss with its bootstrap interval (nats; negative is better)."""
        interval = paired_bootstrap(now, before, rng=np.random.default_rng(self.seed), confidence=_CONFIDENCE)
        return Measurement(
            value=float(np.mean(now - before)),
            interval=(float(interval[0]), float(interval[1])),
            n=len(now),
            null=0.0,
            unit="nats per token",
            operator=f"paired bootstrap over examples, {_CONFIDENCE:.0%}, seed {self.seed}",
        )

    def drift_intervals(self, baseline: Mapping[str, np.ndarray]) -> dict[str, tuple[float, float]]:
        """For repetition: the bootstrap interval over probes before training; for entropy: 20 % around its value.

        The entropy of a text set has hardly any sampling error of its own (the same tokens are scored every time), so
        an interval for samples would call every change drift; the 20 % is a convention and said in the trace.
        """
        low, high = bootstrap_interval(
            baseline["repetition"], rng=np.random.default_rng(self.seed), confidence=_CONFIDENCE
        )
        # probes that never repeat have an interval of zero width: one repeated probe in n is still no drift
        room = 1.0 / max(1, len(baseline["repetition"]))
        entropy = float(baseline["entropy"][0])
        return {
            "repetition": (float(max(0.0, low - room)), float(high + room)),
            "entropy": (0.8 * entropy, 1.2 * entropy),
        }
