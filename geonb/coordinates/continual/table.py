"""Run the forgetting table: every arm, every seed, on teachers or on operations, in one call that takes up where it stopped."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from geonb.coordinates.continual import arms as arm_list
from geonb.coordinates.continual.learner import capacity, task_phases
from geonb.coordinates.continual.reading import Sizes, equal_sizes
from geonb.coordinates.continual.results import ForgettingTable, tabulate
from geonb.coordinates.continual.rows import ForgettingRow, read_rows, row_key
from geonb.coordinates.continual.sequence_training import train
from geonb.errors import InputError
from geonb.record_lines import append_line
from geonb.records import plain

STAGES = ("teachers", "operations")
_OLDER = {"pilot": "teachers"}  # names of earlier versions
# teachers with adam: the best right after learning eight tasks of seed 100, which is not reported, of three to five values each
# (base 0.003 to 0.03, LoRA for each task 0.01 to 0.1, orthogonal cores 0.03 to 1, FiLM 0.03 to 0.3, phases 0.003 to 0.1); the
# penalty the one of 1 to 10,000 with the best ACC; operations with adam: the same with four operations of 300 steps of seed 100
# (LoRA 0.005 and 0.01, cores 0.003 to 0.1, FiLM 0.02 and 0.1), the others not searched; those of sgd were not searched at all
RATES = {
    ("teachers", "adam"): arm_list.Rates(base=0.01, lora=0.03, cores=0.1, film=0.3, theta=0.003, ewc=10.0),
    ("teachers", "sgd"): arm_list.Rates(base=0.3, lora=0.3, cores=1.0, film=0.3, theta=0.1, ewc=100.0),
    ("operations", "adam"): arm_list.Rates(base=0.001, lora=0.005, cores=0.01, film=0.02, theta=0.003, ewc=10.0),
    ("operations", "sgd"): arm_list.Rates(base=0.1, lora=0.3, cores=1.0, film=0.3, theta=0.1, ewc=100.0),
}
_STEPS = {"teachers": 200, "operations": 300}
# more is not better here: with 2,500 and 400 both a LoRA for each task and the cores knew less of the eight tasks of seed 0
PRETRAINING = 1500  # steps of the base
_TESTS = 40  # held-out questions an operation
_BATCH = 16

Progress = Callable[[str, int, int], None]


def forgetting_table(
    operations: int = 8,
    *,
    stage: str = "operations",
    seeds: Sequence[int] = (0, 1),
    arms: Sequence[str] | None = None,
    steps: int | None = None,
    pretraining: int = PRETRAINING,
    optimiser: str = "adam",
    pairs: int | None = None,
    lora: int | None = None,
    path: str | Path | None = None,
    bases: str | Path | None = None,
    progress: Progress = lambda name, done, total: None,
) -> ForgettingTable:
    """Run what is missing and tell all of it: every arm on `operations` tasks, for each seed.

    Unless told by `pairs` and `lora` (the rank of a task's LoRA), all arms whose form leaves a choice train about as many numbers
    (see `equal_sizes`). With `path` each run is one line of a JSONL file, and a call that was stopped goes on with the next run;
    the pre-trained bases are kept in `bases`, by default a folder of the cache. `progress` is told the run and its tasks done.
    Raises `InputError` for an unknown stage, arm or optimiser, no seeds, and sizes out of range, before anything is run.
    """
    stage = _OLDER.get(stage, stage)
    chosen = _checked(operations, stage, seeds, arms, steps, pretraining, optimiser, pairs, lora)
    each, before = steps or _STEPS[stage], pretraining if stage == "operations" else 0
    file = Path(path) if path is not None else None
    rows = read_rows(file) if file is not None else {}
    sizes = equal_sizes(_start(stage).maps, operations, pairs=pairs, lora=lora)  # type: ignore[attr-defined]
    asked = {
        "stage": stage,
        "tasks": operations,
        "optimiser": optimiser,
        "steps": each,
        "pretraining": before,
        "rates": RATES[stage, optimiser].values(),
        "pairs": sizes.pairs,
        "lora": sizes.lora,
    }
    wanted = []
    for seed in seeds:
        made = None
        for name in chosen:
            key = row_key(arm=name, seed=seed, **asked)
            wanted.append(key)
            if key in rows:
                continue
            made = made or _Stage(stage, operations, seed, before, sizes, bases, progress)
            rows[key] = made.run(name, each, optimiser, progress)
            if file is not None:
                append_line(file, rows[key])
    return tabulate([rows[key] for key in wanted])


def _start(stage: str):
    """An untrained network of a stage, for its shapes."""
    if stage == "teachers":
        from geonb.coordinates.continual.pilot import Perceptron

        return Perceptron(1, 0)
    from geonb.coordinates.continual.language import SIZES, CharacterModel
    from geonb.coordinates.model import CoordinateModel

    return CharacterModel(CoordinateModel(SIZES))


class _Stage:
    """The tasks and the network of one seed, from which every arm starts."""

    def __init__(
        self,
        stage: str,
        tasks: int,
        seed: int,
        pretraining: int,
        sizes: Sizes,
        bases: str | Path | None,
        progress: Progress,
    ) -> None:
        self.stage, self.seed, self.pretraining, self.sizes = stage, seed, pretraining, sizes
        if stage == "teachers":
            from geonb.coordinates.continual.pilot import Perceptron, teachers

            self.tasks, self.start = teachers(tasks, seed), Perceptron(1, seed)
            return
        from geonb.coordinates.continual.language import CharacterModel, OperationTask
        from geonb.coordinates.continual.pretraining import base_of
        from geonb.coordinates.continual.selection import task_order

        base = base_of(
            seed,
            pretraining,
            folder=bases,
            progress=lambda done, total: progress(f"base, seed {seed}", done, total),
        )
        self.start = CharacterModel(base)
        self.tasks = [
            OperationTask(one, form="named", batch=_BATCH, tests=_TESTS, seed=seed) for one in task_order(tasks, seed)
        ]

    def run(self, name: str, steps: int, optimiser: str, progress: Progress) -> ForgettingRow:
        arm, began = arm_list.ARMS[name], time.perf_counter()
        network, rates = copy.deepcopy(self.start), RATES[self.stage, optimiser]
        learned = train(
            arm,
            network,  # type: ignore[arg-type]
            self.tasks,
            steps=steps,
            rates=rates,
            sizes=self.sizes,
            optimiser=optimiser,
            seed=self.seed,
            progress=lambda done, total: progress(f"{name}, seed {self.seed}", done, total),
        )
        inferred, by = None, ""
        if self.stage == "operations" and arm.told_apart and not arm.joint:
            from geonb.coordinates.continual.inference import accuracy_by_guess

            by = "kernel" if arm.phases else "bag of words"
            inferred = tuple(accuracy_by_guess(network, self.tasks, learned.read_as, by=by, seed=self.seed))  # type: ignore
        kernels = None
        if arm.phases in ("random", "orthogonal"):
            kernels = capacity(task_phases(arm.phases, self.sizes.pairs, len(self.tasks), self.seed))
        return ForgettingRow(
            stage=self.stage,
            tasks=len(self.tasks),
            seed=self.seed,
            arm=name,
            optimiser=optimiser,
            steps=steps,
            pretraining=self.pretraining,
            rates=rates.values(),
            pairs=self.sizes.pairs,
            lora=self.sizes.lora,
            parameters=learned.parameters,
            read_for_one=learned.read_for_one,
            start=tuple(learned.start),
            before=() if arm.joint else tuple(learned.before),
            chance=tuple(task.chance() for task in self.tasks),
            matrix=tuple(map(tuple, learned.matrix)),
            shares=tuple(map(tuple, learned.shares)),
            inferred=inferred,
            inferred_by=by,
            largest_kernel=None if kernels is None else kernels.largest_kernel,
            seconds=time.perf_counter() - began,
        )


def _checked(operations, stage, seeds, arms, steps, pretraining, optimiser, pairs, lora) -> tuple[str, ...]:
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
    if pairs is not None and (not 1 <= pairs <= 1024 or pairs & (pairs - 1)):
        raise InputError(f"{pairs} pairs were given; allowed is a power of two up to 1024, for which phases are built.")
    if lora is not None and not 1 <= lora <= 32:
        raise InputError(f"a LoRA of rank {lora} was asked for; allowed are 1 to 32.")
    unknown = [name for name in arms or () if name not in arm_list.ARMS]
    if unknown or (arms is not None and not arms):
        given = plain(unknown[0]) if unknown else ""
        raise InputError(f"the arm {given!r} was given; allowed are {', '.join(arm_list.ARMS)}.")
    return tuple(dict.fromkeys(arms)) if arms is not None else tuple(arm_list.ARMS)
