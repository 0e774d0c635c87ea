"""MASS as its table of formulas has it: the smallest of three bounds, without what was added to it later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geonb.claims.experiments.short_runs import Prepare, ShortRun, ShortRuns, controller_of
from geonb.geometry.measurement import Measurement
from geonb.geometry.statistics import wilson
from geonb.plan.plan import Plan
from geonb.train.controllers.mass import Mass
from geonb.workbench.benchmark.arm import Arm

BOUNDS = ("ceiling", "sps", "weyl")


class PublishedMass(Mass):
    """eta = min(sigma_k_min / sigma_max, loss / ||d||^2, sigma_k_min / ||d||): no sqrt(N), and no remaining budget."""

    def _remaining(self) -> float:
        return float("inf")


@dataclass(frozen=True, slots=True)
class MassTrace:
    """A run with the three rates of every step, in the units of a learning rate."""

    run: ShortRun
    rates: tuple[tuple[float, float, float], ...]  # ceiling, Polyak, Weyl

    def binding(self, *, batches: int = 1) -> list[str]:
        """The name of the smallest bound of each step; the ceiling divided by sqrt(`batches`).

        >>> MassTrace(run=None, rates=((0.1, 0.5, 0.05),)).binding()
        ['weyl']
        """
        found = []
        for ceiling, *others in self.rates:
            three = (ceiling / batches**0.5, *others)
            found.append(BOUNDS[three.index(min(three))])
        return found


def mass_run(runs: ShortRuns, seed: int, *, rank: str = "8", loss_scale: float = 1.0) -> MassTrace:
    """Train with `PublishedMass` on Cayley factors of `rank` and keep the rates of every step."""
    rates: list[tuple[float, float, float]] = []

    def published(attached: Any, plan: Plan) -> None:
        attached.step = PublishedMass(controller_of(attached).matrices, horizon=int(plan.horizon["steps"])).step

    def watch(step: int, attached: Any, said: Any) -> None:
        del step, said
        found = controller_of(attached).rates
        rates.append((found.ceiling, found.sps, found.weyl))

    prepare: Prepare = published
    run = runs.run(Arm(method="mass", rank=rank), seed, prepare=prepare, watch=watch, loss_scale=loss_scale)
    return MassTrace(run=run, rates=tuple(rates))


def most_frequent(traces: Sequence[MassTrace], *, batches: int = 1) -> tuple[str, Measurement]:
    """The bound that is the smallest most often over all steps, and its share with Wilson's interval at 95 %."""
    counts = Counter(name for trace in traces for name in trace.binding(batches=batches))
    name, count = counts.most_common(1)[0]
    total = sum(counts.values())
    return name, Measurement(
        value=count / total,
        interval=wilson(count, total),
        n=total,
        null=1 / len(BOUNDS),
        unit="of the steps",
        operator="share of steps, Wilson",
    )
