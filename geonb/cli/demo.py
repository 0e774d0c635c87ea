"""`geonb demo`: the whole road on the embedded model, offline, in a few minutes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from geonb.cli import options
from geonb.cli.output import answer, note, prints
from geonb.cli.progress import StageLine, TrainingBar

if TYPE_CHECKING:
    import geonb.train.execute


@prints
def demo(
    output: str = typer.Option("geonb-demo", "--output", "-o", help="The folder of the demonstration's run."),
    data: str = typer.Option("embedded:kjv", "--data", "-d", help="embedded:kjv, embedded:chat, or a JSONL file."),
    max_steps: int = typer.Option(200, "--max-steps", help="The horizon; 200 steps take about two minutes."),
    overwrite: bool = typer.Option(True, "--overwrite/--keep", help="Replace an earlier demonstration."),
    json: bool = options.AS_JSON,
) -> geonb.train.execute.Run:
    """See, derive, train, verify: the embedded model learns the King James Bible, and a report shows how."""
    from geonb.cli.train import stop_on_interrupt
    from geonb.plan.build import build_plan
    from geonb.train.execute import run_training
    from geonb.widgets.report import write_report

    with StageLine(enabled=not json) as progress:
        plan = build_plan("embedded", data, output=output, max_steps=max_steps, progress=progress, device="cpu")
    note(plan.to_text())
    with stop_on_interrupt() as stop:
        result = run_training(
            plan,
            output=output,
            overwrite=overwrite and Path(output).exists(),
            sinks=[TrainingBar(int(plan.horizon["steps"]), enabled=not json)],
            should_stop=stop.is_set,
            device="cpu",
        )
    assert result.folder is not None
    report = write_report(result.folder)
    record = answer(result, as_json=json)
    note(f"\nOpen {report} in a browser: the plan, the live trace and the spectra as pictures.")
    return record
