"""The forgetting table: every arm, every seed, on the pilot or on the operations, in one call that takes up where it stopped."""

from __future__ import annotations

import copy
import html
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geonb.coordinates.continual import arms as arm_list
from geonb.coordinates.continual.learner import Capacity, capacity, task_phases
from geonb.coordinates.continual.metrics import forgotten, mean_of
from geonb.coordinates.continual.rows import ForgettingRow, append_row, read_rows, row_key
from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.geometry.statistics import paired_bootstrap
from geonb.records import Record, plain, table_html

STAGES = ("pilot", "operations")
PAIRS = 64
CONTROL = "lora-per-task"
# pilot with adam: the best of 0.003, 0.01, 0.03 (base, LoRA) and 0.01, 0.03, 0.1, 0.3, 1 (cores) right after learning four tasks
# of seed 100, which is not reported; the others are rates of the same proportions and were not searched
RATES = {
    ("pilot", "adam"): arm_list.Rates(base=0.01, lora=0.01, cores=0.1),
    ("pilot", "sgd"): arm_list.Rates(base=0.3, lora=0.3, cores=1.0),
    ("operations", "adam"): arm_list.Rates(base=0.003, lora=0.01, cores=0.1),
    ("operations", "sgd"): arm_list.Rates(base=0.1, lora=0.3, cores=1.0),
}
_STEPS = {"pilot": 200, "operations": 40}
_TESTS = 40  # held-out questions an operation


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResult(Record):
    """One arm over its seeds; `accuracy` and `forgetting` belong together: what was never learned cannot be forgotten."""

    arm: str
    told: str
    parameters: int
    seeds: tuple[int, ...]
    accuracy: Measurement  # ACC, exact; its null is the share of the most frequent answers
    shares: Measurement  # ACC of the parts of answers
    just_learned: Measurement
    forgetting: Measurement
    backward_transfer: Measurement
    intransigence: Measurement | None
    inferred: Measurement | None
    inferred_by: str
    behind_control: Measurement | None  # ACC less that of lora-per-task, paired
    largest_kernel: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgettingTable(Record):
    """All arms on the same sequences of tasks with equal steps."""

    stage: str
    tasks: int
    steps: int
    pretraining: int
    optimiser: str
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
            f"{'arm':23} {'trained':>8} {'ACC':>22} {'parts':>7} {'learned':>8} {'F':>25} {'BWT':>8} {'id guessed':>11}"
        )
        lines = [self._title(), self.capacity.to_text(), "", head]
        for one in self.results:
            guessed = "" if one.inferred is None else f"{one.inferred.value:.3f}"
            lines.append(
                f"{one.arm:23} {one.parameters:>8,} {_shown(one.accuracy):>22} {one.shares.value:>7.3f} "
                f"{one.just_learned.value:>8.3f} {_shown(one.forgetting, 4):>25} {one.backward_transfer.value:>8.3f} "
                f"{guessed:>11}"
            )
        return "\n".join([*lines, "", *self._notes()])

    def to_html(self) -> str:
        columns = (
            "arm", "trained", "ACC", "ACC of parts", "just learned", "F", "BWT", "intransigence", "id guessed",
            f"ACC less {CONTROL}",
        )  # fmt: skip
        rows = [
            (
                one.arm,
                one.parameters,
                _shown(one.accuracy),
                one.shares.value,
                one.just_learned.value,
                _shown(one.forgetting, 4),
                one.backward_transfer.value,
                None if one.intransigence is None else one.intransigence.value,
                "" if one.inferred is None else f"{one.inferred.value:.3f} ({one.inferred_by})",
                "" if one.behind_control is None else _shown(one.behind_control),
            )
            for one in self.results
        ]
        said = "".join(f"<p>{html.escape(one)}</p>" for one in (self.capacity.to_text(), *self._notes()))
        return table_html(columns, rows, caption=self._title()) + said

    def _title(self) -> str:
        seeds = max((len(one.seeds) for one in self.results), default=0)
        started = f" after {self.pretraining} steps of pre-training" if self.pretraining else ""
        told = f"{self.tasks} tasks in sequence, {self.steps} steps each by {self.optimiser}, {seeds} seeds{started}"
        return f"{self.stage}: {told}."

    def _notes(self) -> list[str]:
        null = next((one.accuracy.null for one in self.results), None)
        told = [] if null is None else [f"The most frequent answer alone gives ACC {null:.3f}."]
        told.append("Intervals: 95 % bootstrap over (seed, task) pairs; few seeds make them too narrow.")
        return [*told, f"Not run: {', '.join(self.left_out)}."]


def forgetting_table(
    operations: int = 8,
    *,
    stage: str = "operations",
    seeds: Sequence[int] = (0, 1),
    arms: Sequence[str] | None = None,
    steps: int | None = None,
    pretraining: int = 200,
    optimiser: str = "adam",
    path: str | Path | None = None,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> ForgettingTable:
    """Run what is missing and tell all of it: every arm on `operations` tasks, for each seed.

    With `path` each run is one line of a JSONL file, and a call that was stopped goes on with the next run; `progress` is told
    the run and its tasks done. Raises `InputError` for an unknown stage, arm or optimiser, no seeds, and sizes out of range,
    before anything is run.
    """
    chosen = _checked(operations, stage, seeds, arms, steps, pretraining, optimiser)
    each, before = steps or _STEPS[stage], pretraining if stage == "operations" else 0
    chosen_rates = RATES[stage, optimiser]
    rates = (chosen_rates.base, chosen_rates.lora, chosen_rates.cores)
    file = Path(path) if path is not None else None
    rows = read_rows(file) if file is not None else {}
    wanted = []
    for seed in seeds:
        made = None
        for name in chosen:
            key = row_key(stage, operations, seed, name, optimiser, each, before, rates)
            wanted.append(key)
            if key in rows:
                continue
            made = made or _Stage(stage, operations, seed, before)
            rows[key] = made.run(name, each, optimiser, progress)
            if file is not None:
                append_row(file, rows[key])
    return tabulate([rows[key] for key in wanted])


def tabulate(rows: Sequence[ForgettingRow]) -> ForgettingTable:
    """The table of rows of one stage, size and optimiser; raises `InputError` for rows of several."""
    kinds = {(row.stage, row.tasks, row.steps, row.pretraining, row.optimiser, row.rates) for row in rows}
    if len(kinds) != 1:
        raise InputError(f"rows of {len(kinds)} kinds of runs were given; a table has one: filter them first.")
    stage, tasks, steps, pretraining, optimiser, _ = kinds.pop()
    by_arm: dict[str, dict[int, ForgettingRow]] = {}
    for row in rows:
        by_arm.setdefault(row.arm, {})[row.seed] = row
    fitted = "orthogonal" if "coordinates-orthogonal" in by_arm else "random"
    return ForgettingTable(
        stage=stage,
        tasks=tasks,
        steps=steps,
        pretraining=pretraining,
        optimiser=optimiser,
        capacity=capacity(task_phases(fitted, PAIRS, tasks, rows[0].seed)),
        results=tuple(_result(name, found, by_arm) for name, found in by_arm.items()),
        left_out=arm_list.LEFT_OUT,
    )


def _result(name: str, found: dict[int, ForgettingRow], by_arm: dict[str, dict[int, ForgettingRow]]) -> ArmResult:
    runs = list(found.values())
    joint = by_arm.get("joint", {})
    lags = [
        np.asarray(joint[seed].matrix[-1]) - [line[-1] for line in row.matrix]
        for seed, row in found.items()
        if seed in joint
    ]
    guessed = [row.inferred for row in runs if row.inferred is not None]
    kernels = [row.largest_kernel for row in runs if row.largest_kernel is not None]
    learned = [[line[-1] for line in row.matrix] for row in runs]
    chance = float(np.mean([row.chance for row in runs]))
    transfer = [np.subtract(row.matrix[-1], [line[-1] for line in row.matrix])[:-1] for row in runs]
    return ArmResult(
        arm=name,
        told=arm_list.ARMS[name].told if name in arm_list.ARMS else "",
        parameters=runs[0].parameters,
        seeds=tuple(found),
        accuracy=mean_of(np.concatenate([row.matrix[-1] for row in runs]), what="ACC, exact answers", null=chance),
        shares=mean_of(np.concatenate([row.shares[-1] for row in runs]), what="ACC of the parts of answers"),
        just_learned=mean_of(np.concatenate(learned), what="accuracy right after learning", null=chance),
        forgetting=mean_of(np.concatenate([forgotten(row.matrix) for row in runs]), what="F (Chaudhry)", null=0.0),
        backward_transfer=mean_of(np.concatenate(transfer), what="BWT", null=0.0),
        intransigence=mean_of(np.concatenate(lags), what="joint less just learned", null=0.0) if lags else None,
        inferred=mean_of(np.concatenate(guessed), what="ACC with the id guessed", null=chance) if guessed else None,
        inferred_by=runs[0].inferred_by,
        behind_control=_behind(name, found, by_arm.get(CONTROL, {})),
        largest_kernel=max(kernels, default=None),
    )


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


class _Stage:
    """The tasks and the untrained network of one seed, from which every arm starts."""

    def __init__(self, stage: str, tasks: int, seed: int, pretraining: int) -> None:
        self.stage, self.seed, self.pretraining = stage, seed, pretraining
        if stage == "pilot":
            from geonb.coordinates.continual.pilot import Perceptron, teachers

            self.tasks, self.start = teachers(tasks, seed), Perceptron(PAIRS, seed)
        else:
            from geonb.coordinates.continual.language import PRETRAINING, OperationTask, Reader, pretrain
            from geonb.coordinates.continual.operations import sequence

            everything = sequence(184, seed)
            order, rest = everything[:tasks], everything[tasks:][:PRETRAINING]
            # 184 of 184 leave none: then the base is trained on the names and forms of the first 40 of them
            self.start = Reader(pretrain(rest or everything[:PRETRAINING], steps=pretraining, seed=seed))
            self.tasks = [OperationTask(one, form="named", batch=16, tests=_TESTS, seed=seed) for one in order]

    def run(self, name: str, steps: int, optimiser: str, progress: Callable[[str, int, int], None]) -> ForgettingRow:
        arm, began = arm_list.ARMS[name], time.perf_counter()
        network, rates = copy.deepcopy(self.start), RATES[self.stage, optimiser]
        learned = arm_list.train(
            arm,
            network,  # type: ignore[arg-type]
            self.tasks,
            steps=steps,
            rates=rates,
            optimiser=optimiser,
            seed=self.seed,
            progress=lambda done, total: progress(f"{name}, seed {self.seed}", done, total),
        )
        inferred, by = None, ""
        if self.stage == "operations" and (arm.adapters == "each" or arm.phases) and not arm.joint:
            from geonb.coordinates.continual.inference import accuracy_by_guess

            by = "kernel" if arm.phases else "bag of words"
            inferred = tuple(accuracy_by_guess(network, self.tasks, learned.read_as, by=by, seed=self.seed))  # type: ignore
        kernels = capacity(task_phases(arm.phases, PAIRS, len(self.tasks), self.seed)) if arm.phases else None
        return ForgettingRow(
            stage=self.stage,
            tasks=len(self.tasks),
            seed=self.seed,
            arm=name,
            optimiser=optimiser,
            steps=steps,
            pretraining=self.pretraining,
            rates=(rates.base, rates.lora, rates.cores),
            parameters=learned.parameters,
            chance=tuple(task.chance() for task in self.tasks),
            matrix=tuple(map(tuple, learned.matrix)),
            shares=tuple(map(tuple, learned.shares)),
            inferred=inferred,
            inferred_by=by,
            largest_kernel=None if kernels is None else kernels.largest_kernel,
            seconds=time.perf_counter() - began,
        )


def _checked(operations, stage, seeds, arms, steps, pretraining, optimiser) -> tuple[str, ...]:
    if stage not in STAGES:
        raise InputError(f"the stage {plain(stage)!r} was given; allowed are {' and '.join(STAGES)}.")
    if not isinstance(operations, int) or not 2 <= operations <= 184:
        raise InputError(f"{operations} operations were asked for; allowed are 2 to 184.")
    if optimiser not in arm_list.OPTIMISERS:
        raise InputError(
            f"the optimiser {plain(optimiser)!r} was given; allowed are {' and '.join(arm_list.OPTIMISERS)}."
        )
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise InputError(f"the seeds {list(seeds)} were given; allowed is one or more, all different and not negative.")
    if (steps is not None and steps < 1) or pretraining < 1:
        raise InputError(f"{steps} steps and {pretraining} of pre-training were given; allowed is at least 1 of each.")
    unknown = [name for name in arms or () if name not in arm_list.ARMS]
    if unknown or (arms is not None and not arms):
        given = plain(unknown[0]) if unknown else ""
        raise InputError(f"the arm {given!r} was given; allowed are {', '.join(arm_list.ARMS)}.")
    return tuple(dict.fromkeys(arms)) if arms is not None else tuple(arm_list.ARMS)


def _shown(one: Measurement, digits: int = 3) -> str:
    if one.interval is None:
        return f"{one.value:.{digits}f}"
    return f"{one.value:.{digits}f} [{one.interval[0]:.{digits}f}, {one.interval[1]:.{digits}f}]"
