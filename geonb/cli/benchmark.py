"""`geonb benchmark`: the zero-knob benchmark's models and its resumable queue of runs."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from geonb.cli import options
from geonb.cli.output import answer, note, prints
from geonb.cli.progress import PretrainingBar
from geonb.errors import InputError

if TYPE_CHECKING:
    import geonb.workbench.benchmark.queue
    import geonb.workbench.benchmark.tables

app = typer.Typer(
    help="Zero knobs against tuned rivals: train the models, fill the queue, see what is left.", no_args_is_help=True
)
ROWS = typer.Option(Path("papers/zero-knob/results.jsonl"), "--rows", help="The results, one JSON line a run.")


@app.command("models")
def models(
    names: list[str] = typer.Argument(None, help="Which of them; default: all."),
    folder: Path = typer.Option(Path(".geonb-build"), help="Where corpus, checkpoints and logs are kept."),
) -> None:
    """Train the benchmark's base models (10 to 48 core minutes each; an interrupted one goes on)."""
    from geonb.workbench.benchmark.models import RECIPES, train_model

    # before the first of them learns for minutes
    for name in names or []:
        if name not in RECIPES:
            raise InputError(f"the model {name!r} was given; the benchmark trains {', '.join(RECIPES)}.")
    for name in names or list(RECIPES):
        note(f"{name}: {train_model(name, folder, progress=PretrainingBar(name))}")


@app.command("zero-knob")
@prints
def zero_knob(
    rows: Path = ROWS,
    model: list[str] = typer.Option(
        None,
        help="Only these models (may be given more than once); `llama-1m-3k` stands for `llama-1m-3k+bf16` too. A folder or hub "
        "id of your own is compared at T = 200; give it its own --rows.",
    ),
    domain: list[str] = typer.Option(None, help="Only these domains; `kjv` stands for `kjv+64` too."),
    horizon: list[int] = typer.Option(None, help="Only these horizons T."),
    stage: list[str] = typer.Option(
        None, help="Only the stages whose names begin so, such as `break it`: see them with --list."
    ),
    minutes: float | None = typer.Option(
        None, help="Begin no run after that many minutes; default: until all are made."
    ),
    show: bool = typer.Option(False, "--list", help="Only show what each stage still lacks."),
    json: bool = options.AS_JSON,
) -> geonb.workbench.benchmark.queue.QueueState:
    """Make the runs that the design still lacks, the most telling first; stop at any time, and go on with the same command."""
    from geonb.models.checkpoint import Checkpoint
    from geonb.workbench.benchmark import design
    from geonb.workbench.benchmark.conditions import parted
    from geonb.workbench.benchmark.design import Stage
    from geonb.workbench.benchmark.job import Job, Row
    from geonb.workbench.benchmark.models import can_be_made, model_source
    from geonb.workbench.benchmark.queue import queue_state, run_queue

    # a path is a model of one's own; a condition is named with what it was made of, and not listed beside it
    own = [one for one in model or [] if "/" in one or Path(one).is_dir()]
    every = (*design.STAGES, *(stage for one in own for stage in design.stages_of(one)))
    cells = [cell for one in every for cell in one.cells]
    without = [cell.without_condition if not cell.is_plain else cell for cell in cells]
    for option, chosen, shown, known in (
        ("--model", model, [cell.model for cell in without if can_be_made(cell.model)], [cell.model for cell in cells]),
        ("--domain", domain, [cell.domain for cell in without], [cell.domain for cell in cells]),
        ("--horizon", horizon, [cell.horizon for cell in without], [cell.horizon for cell in cells]),
    ):
        for one in chosen or []:
            if one not in shown and one not in known:
                more = ", and any folder or hub id" if option == "--model" else ""
                raise InputError(
                    f"{option} was given {one}; the design has {', '.join(map(str, dict.fromkeys(shown)))}{more}."
                )
    for name in stage or []:
        if not any(one.name.startswith(name) for one in every):
            raise InputError(
                f"--stage was given {name}; the design has {', '.join(one.name for one in design.STAGES)}."
            )
    stages = tuple(one for one in every if not stage or one.name.startswith(tuple(stage)))
    if minutes is not None and not minutes > 0:
        raise InputError(f"--minutes was given {minutes:g}; allowed is any number above 0.")

    def accept(job: Job) -> bool:
        return (
            (not model or job.model in model or parted(job.model)[0] in model)
            and (not domain or job.domain in domain or job.domain.partition("+")[0] in domain)
            and (not horizon or job.horizon in horizon)
        )

    if show:
        return answer(queue_state(rows, accept=accept, stages=stages), as_json=json)

    for name in model or []:
        Checkpoint.open(model_source(name))
    until = time.monotonic() + 60 * minutes if minutes is not None else float("inf")

    bars: list[Any] = []

    def starting(stage: Stage, job: Job, left: int):
        from tqdm import tqdm

        note(f"{stage.name} ({left} left): {job.key}")
        bars.append(tqdm(total=job.steps, unit="step", file=sys.stderr, disable=not sys.stderr.isatty(), leave=False))
        return lambda step, total: bars[-1].update(1)

    def finished(row: Row) -> None:
        # a run that diverged ends before its last step
        bars.pop().close()
        loss = "diverged" if row.validation is None else f"{row.validation:.4f}, base text {row.retention:.4f}"
        note(f"  {loss}  ({row.seconds:.0f} s, {1000 * row.seconds_per_step:.0f} ms a step)")

    made = run_queue(
        rows,
        accept=accept,
        should_stop=lambda: time.monotonic() > until,
        starting=starting,
        finished=finished,
        stages=stages,
    )
    return answer(queue_state(rows, accept=accept, made=made, stages=stages), as_json=json)


@app.command("table")
@prints
def table(
    rows: Path = ROWS,
    arm: str = typer.Option(
        "balanced",
        help="geonb's arm: the budget balanced (the product's default), open or strict, or the key of any other, such as "
        "`frank-wolfe basis=top`.",
    ),
    broken: bool = typer.Option(
        False,
        "--break-it",
        help="The cells under conditions that were made to break the method, in place of the plain ones.",
    ),
    write: list[Path] = typer.Option(
        None,
        help="Write the rows' figures into the blocks that this Markdown page marks with `<!-- zero-knob: NAME -->`.",
    ),
    json: bool = options.AS_JSON,
) -> geonb.workbench.benchmark.tables.ZeroKnobResults:
    """What the rows say: the arm beside the best tuned AdamW of each cell, its retention, and every fixed setting's regret."""
    from geonb.workbench.benchmark.arm import BUDGETS
    from geonb.workbench.benchmark.queue import read_rows
    from geonb.workbench.benchmark.tables import results

    if not rows.is_file():
        raise InputError(f"{rows} is not there; allowed is a results file: fill one with `geonb benchmark zero-knob`.")
    # what was made to break a method is no sample of what it is used for: the means are of one kind or of the other
    found = read_rows(rows)
    chosen = {key: row for key, row in found.items() if row.job.is_plain is not broken}
    told = results(chosen, BUDGETS[arm].key if arm in BUDGETS else arm)
    if write:
        from geonb.claims.zero_knob_page import fill_pages

        for page in fill_pages(write, found):
            note(f"{page}: its figures are those of {rows}")
    return answer(told, as_json=json)
