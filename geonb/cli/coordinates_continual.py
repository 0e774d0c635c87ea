"""`geonb coordinates forgetting`: what a model forgets when it learns operation after operation, by every arm."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from geonb.cli import options
from geonb.cli.output import answer, is_quiet, note, prints
from geonb.errors import InputError

if TYPE_CHECKING:
    import geonb.coordinates.continual.results


@prints
def forgetting(
    tasks: int = typer.Option(8, help="How many tasks are learned one after the other, 2 to 184."),
    stage: str = typer.Option(
        "operations",
        help="operations (a small character model, exact answers), or teachers (random ones: much faster).",
    ),
    seeds: int = typer.Option(2, help="How many seeds, from 0 up; each has its own order of tasks and its own start."),
    arms: str | None = typer.Option(
        None,
        help="Some of the arms, with commas; default all. Without lora-per-task the comparison that counts is missing.",
    ),
    steps: int | None = typer.Option(None, help="Steps for each task, the same for every arm."),
    pretraining: int = typer.Option(1500, help="Steps of the base on 40 other operations before the first task."),
    optimiser: str = typer.Option("adam", help="adam or sgd; its state starts anew with every task."),
    pairs: int | None = typer.Option(
        None,
        help="m, a power of two: 2m tasks fit exactly; default the least that has room, for equal trained parameters.",
    ),
    lora: int | None = typer.Option(
        None, help="Rank of a task's LoRA; default the one with as many parameters as a coordinate's cores."
    ),
    rows: Path | None = typer.Option(
        None, help="A JSONL file of runs: a call that was stopped takes up where it was, and more seeds add to it."
    ),
    json: bool = options.AS_JSON,
) -> geonb.coordinates.continual.results.ForgettingTable:
    """Learn tasks in sequence by every arm, and tell accuracy and forgetting with intervals.

    Read ACC and F together: an arm that learns nothing forgets nothing. A LoRA for each task forgets nothing by construction;
    what coordinates add to it is the question. The capacity 2m is printed, with what follows where more tasks are asked for.
    """
    from geonb.coordinates.continual.table import forgetting_table

    if seeds < 1:
        raise InputError(f"--seeds was given {seeds}; allowed is at least 1.")
    if rows is not None and not rows.absolute().parent.is_dir():
        raise InputError(f"--rows was given {rows}, whose folder does not exist: make it first, or give another.")
    bar = _Bar(enabled=not json and not is_quiet())
    try:
        found = forgetting_table(
            tasks,
            stage=stage,
            seeds=range(seeds),
            arms=None if arms is None else [one.strip() for one in arms.split(",")],
            steps=steps,
            pretraining=pretraining,
            optimiser=optimiser,
            pairs=pairs,
            lora=lora,
            path=rows,
            progress=bar,
        )
    finally:
        bar.close()
    return answer(found, as_json=json)


class _Bar:
    """A bar on a terminal for what is going on, the base's steps or an arm's tasks; a line when it is done elsewhere."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled, self.on_terminal = enabled, sys.stderr.isatty()
        self.name, self.bar = "", None

    def __call__(self, name: str, done: int, total: int) -> None:
        if not self.enabled:
            return
        if not self.on_terminal:
            if done == total:
                note(f"{name}: {done} of {total} done")
            return
        if self.bar is None or name != self.name:
            from tqdm import tqdm

            self.close()
            self.name, self.bar = name, tqdm(total=total, desc=name, file=sys.stderr, dynamic_ncols=True)
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
