"""`geonb train validate-derived`: the same derivation under several seeds, in search of one that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from geonb.cli import options
from geonb.cli.output import answer, note, prints
from geonb.cli.progress import StageLine

if TYPE_CHECKING:
    import geonb.workbench.validate


@prints
def validate_derived(
    model: str = options.MODEL,
    data: str = options.DATA,
    trials: int = typer.Option(5, "--trials", help="How many seeds; two or more."),
    base_seed: int | None = typer.Option(None, "--base-seed", help="The first seed; default: the derived one."),
    eval_data: str | None = options.EVAL_DATA,
    seq_length: int | None = options.SEQ_LENGTH,
    max_steps: int | None = options.MAX_STEPS,
    controller: str = options.CONTROLLER,
    output: str | None = typer.Option(
        None, "--output", "-o", help="Keep every run as seed-N in this folder; an interrupted validation goes on there."
    ),
    report_path: str | None = typer.Option(None, "--report-path", metavar="FILE.json", help="Write the result there."),
    device: str = options.DEVICE,
    json: bool = options.AS_JSON,
) -> geonb.workbench.validate.Validation:
    """Train the derived plan under several seeds and hunt for counterexamples, each failure by its name.

    The controller is that of `train run`. Exit 1 where one is found: the task did not improve, a bound or the interlacing
    was broken, the adapter acts not, merges or reloads otherwise, loops, forgets more than it learns, moved its
    representations beyond chance, diverged, used up its budget, or a required gate was not measured.
    """
    from geonb.workbench.validate import validate_derived as validate

    with StageLine(enabled=not json) as progress:
        found = validate(
            model,
            data,
            trials=trials,
            base_seed=base_seed,
            eval_data=eval_data,
            output=output,
            device=device,
            progress=progress,
            seq_length=seq_length,
            max_steps=max_steps,
            controller=controller,
        )
    if report_path is not None:
        note(f"report: {found.save(report_path)}")
    return answer(found, as_json=json)
