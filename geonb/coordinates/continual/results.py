"""The forgetting table as a record: every arm with its intervals, what it trains, and the rule of zero forgetting."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geonb.coordinates.continual.arms import ARMS
from geonb.coordinates.continual.learner import Capacity, capacity, task_phases
from geonb.coordinates.continual.metrics import forgotten, mean_of
from geonb.coordinates.continual.rows import ForgettingRow
from geonb.errors import InputError
from geonb.geometry.inference import over_seeds
from geonb.geometry.measurement import Measurement
from geonb.geometry.statistics import paired_bootstrap
from geonb.record_tables import table_html
from geonb.records import Record, plain

CONTROL = "lora-per-task"
# the rule, written before any run: F below half a point, ACC within two points of a LoRA for each task
MOST_FORGOTTEN, MOST_BEHIND = 0.005, 0.02
LEFT_OUT = ("packed or masked subnetworks",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResult(Record):
    """One arm over its seeds; `accuracy` and `forgetting` belong together: what was never learned cannot be forgotten."""

    arm: str
    told: str
    parameters: int  # trained over all tasks
    read_for_one: int  # of those, read when one task is asked
    ratio: float  # parameters over those of lora-per-task; 0 where that was not run
    seeds: tuple[int, ...]
    accuracy: Measurement  # ACC, exact; its null is the share of the most frequent answers
    shares: Measurement  # ACC of the parts of answers
    just_learned: Measurement
    forgetting: Measurement
    forgetting_over_seeds: Measurement | None  # Student's interval over the seeds' means; None for one seed
    backward_transfer: Measurement
    forward_transfer: Measurement | None
    intransigence: Measurement | None
    inferred: Measurement | None
    inferred_by: str
    behind_control: Measurement | None  # ACC less that of lora-per-task, paired
    largest_kernel: float | None
    zero_forgetting: str  # succeeds, fails, open, unlearned; "" of joint training and where lora-per-task was not run
    seconds: float  # of one seed, mean


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgettingTable(Record):
    """All arms on the same sequences of tasks with equal steps."""

    stage: str
    tasks: int
    steps: int
    pretraining: int
    optimiser: str
    lora: int
    capacity: Capacity
    results: tuple[ArmResult, ...]
    left_out: tuple[str, ...]

    def of(self, arm: str) -> ArmResult:
        """The result of an arm; raises `InputError` where it was not run."""
        for one in self.results:
            if one.arm == arm:
                return one
        raise InputError(
            f"the arm {plain(arm)!r} is not in this table; it has {', '.join(one.arm for one in self.results)}."
        )

    def summary(self) -> str:
        return f"ForgettingTable({self.stage}, {self.tasks} tasks, {len(self.results)} arms)"

    def to_text(self) -> str:
        head = (
            f"{'arm':23} {'trained':>8} {'for one':>8} {'ACC':>22} {'parts':>6} {'learned':>7} {'F':>25} {'BWT':>7} "
            f"{'FWT':>7} {'intr.':>7} {'guessed':>7} {'rule':>8}"
        )
        lines = [self._title(), self.capacity.to_text(), "", head]
        for one in self.results:
            lines.append(
                f"{one.arm:23} {one.parameters:>8,} {one.read_for_one:>8,} {_shown(one.accuracy):>22} "
                f"{one.shares.value:>6.3f} {one.just_learned.value:>7.3f} {_shown(one.forgetting, 4):>25} "
                f"{one.backward_transfer.value:>7.3f} {_value(one.forward_transfer):>7} {_value(one.intransigence):>7} "
                f"{_value(one.inferred):>7} {one.zero_forgetting:>8}"
            )
        return "\n".join([*lines, "", *self._notes()])

    def to_html(self) -> str:
        columns = (
            "arm", "trained parameters", f"over {CONTROL}", "of those at task time", "ACC", "ACC of parts", "just learned", "F",
            "F over seeds", "BWT", "FWT", "intransigence", "id guessed", f"ACC less {CONTROL}", "zero forgetting",
        )  # fmt: skip
        rows = [
            (
                one.arm,
                one.parameters,
                f"{one.ratio:.2f}" if one.ratio else "",
                one.read_for_one,
                _shown(one.accuracy),
                one.shares.value,
                one.just_learned.value,
                _shown(one.forgetting, 4),
                "" if one.forgetting_over_seeds is None else _shown(one.forgetting_over_seeds, 4),
                _shown(one.backward_transfer),
                "" if one.forward_transfer is None else _shown(one.forward_transfer),
                "" if one.intransigence is None else _shown(one.intransigence),
                "" if one.inferred is None else f"{one.inferred.value:.3f} ({one.inferred_by})",
                "" if one.behind_control is None else _shown(one.behind_control),
                one.zero_forgetting,
            )
            for one in self.results
        ]
        said = "".join(f"<p>{html.escape(one)}</p>" for one in (self.capacity.to_text(), *self._notes()))
        return table_html(columns, rows, caption=self._title()) + said

    def _title(self) -> str:
        seeds = _counted(self.results)
        started = f" after {self.pretraining} steps of pre-training" if self.pretraining else ""
        told = f"{self.tasks} tasks in sequence, {self.steps} steps each by {self.optimiser}, {seeds}{started}"
        return f"{self.stage}: {told}; {self.capacity.pairs} pairs, LoRAs of rank {self.lora}."

    def _notes(self) -> list[str]:
        null = next((one.accuracy.null for one in self.results), None)
        told = [] if null is None else [f"The most frequent answer alone gives ACC {null:.3f}."]
        told.append(
            "Intervals: 95 % bootstrap over (seed, task) pairs, which treats the tasks of a seed as independent: with "
            f"{_counted(self.results)} they are too narrow, and Student's over the seeds' means are wide."
        )
        told.append(
            f"Zero forgetting succeeds where the upper limit of F is below {MOST_FORGOTTEN} and the lower limit of ACC less that "
            f"of {CONTROL} above -{MOST_BEHIND}; it fails where either is certainly missed. Joint training is a reference, not a "
            f"bound. Where {CONTROL} is not surely above the most frequent answer, nothing was learned that could be forgotten."
        )
        return [*told, f"Not run: {', '.join(self.left_out)}."]


def tabulate(rows: Sequence[ForgettingRow]) -> ForgettingTable:
    """The table of rows of one stage, size and optimiser; raises `InputError` for rows of several."""
    kinds = {
        (row.stage, row.tasks, row.steps, row.pretraining, row.optimiser, row.rates, row.pairs, row.lora)
        for row in rows
    }
    if len(kinds) != 1:
        raise InputError(f"rows of {len(kinds)} kinds of runs were given; a table has one: filter them first.")
    stage, tasks, steps, pretraining, optimiser, _, pairs, lora = kinds.pop()
    by_arm: dict[str, dict[int, ForgettingRow]] = {}
    for row in rows:
        by_arm.setdefault(row.arm, {})[row.seed] = row
    fitted = "orthogonal" if "coordinates-orthogonal" in by_arm else "random"
    absent = [name for name in ARMS if name not in by_arm]
    return ForgettingTable(
        stage=stage,
        tasks=tasks,
        steps=steps,
        pretraining=pretraining,
        optimiser=optimiser,
        lora=lora,
        capacity=capacity(task_phases(fitted, pairs, tasks, rows[0].seed)),
        results=tuple(_result(name, found, by_arm) for name, found in by_arm.items()),
        left_out=(*absent, *LEFT_OUT),
    )


def decide(forgetting: Measurement, behind: Measurement | None) -> str:
    """The rule: `succeeds`, `fails`, or `open` where an interval holds its threshold.

    `behind` is ACC less that of lora-per-task, None for lora-per-task itself, which is what the others are measured by.
    """
    low, high = forgetting.interval or (forgetting.value, forgetting.value)
    below, above = (0.0, 0.0) if behind is None else (behind.interval or (behind.value, behind.value))
    if low >= MOST_FORGOTTEN or above < -MOST_BEHIND:
        return "fails"
    return "succeeds" if high < MOST_FORGOTTEN and below > -MOST_BEHIND else "open"


def _result(name: str, found: dict[int, ForgettingRow], by_arm: dict[str, dict[int, ForgettingRow]]) -> ArmResult:
    runs = list(found.values())
    joint, control = by_arm.get("joint", {}), by_arm.get(CONTROL, {})
    lags = [
        np.asarray(joint[seed].matrix[-1]) - [line[-1] for line in row.matrix]
        for seed, row in found.items()
        if seed in joint
    ]
    guessed = [row.inferred for row in runs if row.inferred is not None]
    kernels = [row.largest_kernel for row in runs if row.largest_kernel is not None]
    learned = [[line[-1] for line in row.matrix] for row in runs]
    chance = float(np.mean([row.chance for row in runs]))
    backward = [np.subtract(row.matrix[-1], [line[-1] for line in row.matrix])[:-1] for row in runs]
    forward = [np.subtract(row.before, row.start)[1:] for row in runs if row.before]
    lost = [forgotten(row.matrix) for row in runs]
    forgetting = mean_of(np.concatenate(lost), what="F (Chaudhry)", null=0.0)
    behind = _behind(name, found, control)
    several = len(runs) > 1
    means = [float(one.mean()) for one in lost]
    return ArmResult(
        arm=name,
        told=ARMS[name].told if name in ARMS else "",
        parameters=runs[0].parameters,
        read_for_one=runs[0].read_for_one,
        ratio=runs[0].parameters / next(iter(control.values())).parameters if control else 0.0,
        seeds=tuple(found),
        accuracy=mean_of(np.concatenate([row.matrix[-1] for row in runs]), what="ACC, exact answers", null=chance),
        shares=mean_of(np.concatenate([row.shares[-1] for row in runs]), what="ACC of the parts of answers"),
        just_learned=mean_of(np.concatenate(learned), what="accuracy right after learning", null=chance),
        forgetting=forgetting,
        forgetting_over_seeds=over_seeds(means, unit="share", operator="F of each seed", null=0.0) if several else None,
        backward_transfer=mean_of(np.concatenate(backward), what="BWT", null=0.0),
        forward_transfer=mean_of(np.concatenate(forward), what="FWT", null=0.0) if forward else None,
        intransigence=mean_of(np.concatenate(lags), what="joint less just learned", null=0.0) if lags else None,
        inferred=mean_of(np.concatenate(guessed), what="ACC with the id guessed", null=chance) if guessed else None,
        inferred_by=runs[0].inferred_by,
        behind_control=behind,
        largest_kernel=max(kernels, default=None),
        zero_forgetting=_ruled(name, forgetting, behind, control),
        seconds=float(np.mean([row.seconds for row in runs])),
    )


def _ruled(name: str, forgetting: Measurement, behind: Measurement | None, control: dict[int, ForgettingRow]) -> str:
    if not control or name == "joint":
        return ""
    known = mean_of(np.concatenate([row.matrix[-1] for row in control.values()]), what="ACC")
    chance = float(np.mean([row.chance for row in control.values()]))
    # where the arm that cannot forget did not learn, there is nothing to keep and nothing to be compared with
    if known.interval is None or known.interval[0] <= chance:
        return "unlearned"
    return decide(forgetting, behind)


def _behind(name: str, found: dict[int, ForgettingRow], control: dict[int, ForgettingRow]) -> Measurement | None:
    shared = [seed for seed in found if seed in control]
    if name == CONTROL or not shared:
        return None
    first = np.concatenate([found[seed].matrix[-1] for seed in shared])
    second = np.concatenate([control[seed].matrix[-1] for seed in shared])
    return Measurement(
        value=float((first - second).mean()),
        interval=paired_bootstrap(first, second, rng=np.random.default_rng(0)),
        n=len(first),
        null=0.0,
        unit="share",
        operator=f"ACC less that of {CONTROL}; 95 % paired bootstrap over (seed, task) pairs, seed 0",
    )


def _counted(results: Sequence[ArmResult]) -> str:
    seeds = max((len(one.seeds) for one in results), default=0)
    return "1 seed" if seeds == 1 else f"{seeds} seeds"


def _value(one: Measurement | None) -> str:
    return "" if one is None else f"{one.value:.3f}"


def _shown(one: Measurement, digits: int = 3) -> str:
    if one.interval is None:
        return f"{one.value:.{digits}f}"
    return f"{one.value:.{digits}f} [{one.interval[0]:.{digits}f}, {one.interval[1]:.{digits}f}]"
