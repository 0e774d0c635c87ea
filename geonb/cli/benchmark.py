"""`geonb benchmark`: the zero-knob benchmark's models and its resumable queue of runs."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import typer

app = typer.Typer(help="Zero knobs against tuned rivals: train the models, fill the queue, see what the rows say.")
ROWS = typer.Option(Path("papers/zero-knob/results.jsonl"), "--rows", help="The results, one JSON line a run.")


@app.command("models")
def models(
    names: list[str] = typer.Argument(None, help="Which of them; default: all."),
    folder: Path = typer.Option(Path(".geonb-build"), help="Where corpus, checkpoints and logs are kept."),
) -> None:
    """Train the benchmark's base models (8 to 32 core minutes each; an interrupted one goes on)."""
    from geonb.cli.output import note
    from geonb.workbench.benchmark.models import RECIPES, train_model

    for name in names or list(RECIPES):
        note(f"{name}: {train_model(name, folder)}")


@app.command("zero-knob")
def zero_knob(
    rows: Path = ROWS,
    model: list[str] = typer.Option(None, help="Only these models (may be given more than once)."),
    domain: list[str] = typer.Option(None, help="Only these domains."),
    horizon: list[int] = typer.Option(None, help="Only these horizons T."),
    minutes: float | None = typer.Option(
        None, help="Begin no run after that many minutes; default: until all are made."
    ),
    show: bool = typer.Option(False, "--list", help="Only show what each stage still lacks."),
) -> None:
    """Make the runs that the design still lacks, the most telling first; stop at any time, and go on with the same command."""
    from geonb.cli.output import note
    from geonb.workbench.benchmark.design import Stage
    from geonb.workbench.benchmark.domains import domain_of
    from geonb.workbench.benchmark.job import Job, Row
    from geonb.workbench.benchmark.models import model_source
    from geonb.workbench.benchmark.queue import pending, read_rows, run_queue

    for name in model or []:
        model_source(name)
    for name in domain or []:
        domain_of(name)

    def accept(job: Job) -> bool:
        return (
            (not model or job.model in model)
            and (not domain or job.domain in domain)
            and (not horizon or job.horizon in horizon)
        )

    if show:
        found = read_rows(rows)
        typer.echo(f"{len(found)} runs in {rows}; known to be missing (more may follow from their results):")
        for stage, jobs in pending(found):
            typer.echo(f"  {sum(map(accept, jobs)):4d}  {stage.name}")
        return

    until = time.monotonic() + 60 * minutes if minutes is not None else float("inf")

    def starting(stage: Stage, job: Job, left: int):
        from tqdm import tqdm

        note(f"{stage.name} ({left} left): {job.key}")
        bar = tqdm(total=job.horizon, unit="step", file=sys.stderr, disable=not sys.stderr.isatty(), leave=False)

        def progress(step: int, total: int) -> None:
            bar.update(1)
            if step == total:
                bar.close()

        return progress

    def finished(row: Row) -> None:
        loss = "diverged" if row.validation is None else f"{row.validation:.4f}, base text {row.retention:.4f}"
        note(f"  {loss}  ({row.seconds:.0f} s, {1000 * row.seconds_per_step:.0f} ms a step)")

    made = run_queue(
        rows, accept=accept, should_stop=lambda: time.monotonic() > until, starting=starting, finished=finished
    )
    note(f"{made} runs made; rows in {rows}")
