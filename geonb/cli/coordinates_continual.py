"""`geonb coordinates forgetting`: what a model forgets when it learns operation after operation, by every arm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from geonb.cli import options
from geonb.cli.output import answer, note, prints
from geonb.errors import InputError

if TYPE_CHECKING:
    import geonb.coordinates.continual.table


@prints
def forgetting(
    tasks: int = typer.Option(
        8, help="How many tasks are learned one after the other, 2 to 184; 2m = 128 fit exactly."
    ),
    stage: str = typer.Option(
        "operations",
        help="operations (a small character model, exact answers), or pilot (random teachers: much faster).",
    ),
    seeds: int = typer.Option(2, help="How many seeds, from 0 up; each has its own order of tasks and its own start."),
    arms: str | None = typer.Option(
        None,
        help="Some of the arms, with commas; default all. Without lora-per-task the comparison that counts is missing.",
    ),
    steps: int | None = typer.Option(None, help="Steps for each task, the same for every arm."),
    pretraining: int = typer.Option(200, help="Steps of the base on 40 other operations before the first task."),
    optimiser: str = typer.Option("adam", help="adam or sgd; its state starts anew with every task."),
    rows: Path | None = typer.Option(
        None, help="A JSONL file of runs: a call that was stopped takes up where it was, and more seeds add to it."
    ),
    json: bool = options.AS_JSON,
) -> geonb.coordinates.continual.table.ForgettingTable:
    """Learn tasks in sequence by every arm, and tell accuracy and forgetting with intervals.

    Read ACC and F together: an arm that learns nothing forgets nothing. A LoRA for each task forgets nothing by construction;
    what coordinates add to it is the question. The capacity 2m is printed, with what follows where more tasks are asked for.
    """
    from geonb.coordinates.continual.table import forgetting_table

    if seeds < 1:
        raise InputError(f"--seeds was given {seeds}; allowed is at least 1.")
    if rows is not None and not rows.absolute().parent.is_dir():
        raise InputError(f"--rows was given {rows}, whose folder does not exist: make it first, or give another.")

    def progress(name: str, done: int, total: int) -> None:
        if not json and done == total:
            note(f"{name}: {total} tasks learned")

    found = forgetting_table(
        tasks,
        stage=stage,
        seeds=range(seeds),
        arms=None if arms is None else [one.strip() for one in arms.split(",")],
        steps=steps,
        pretraining=pretraining,
        optimiser=optimiser,
        path=rows,
        progress=progress,
    )
    return answer(found, as_json=json)
