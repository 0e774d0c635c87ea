"""`geonb train`: run a derived plan, and look at a run."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from geonb.cli import evaluate as evaluation
from geonb.cli import export as export_group
from geonb.cli import live, options
from geonb.cli import star as star_group
from geonb.cli import validate as validation
from geonb.cli.output import answer, note, prints
from geonb.cli.progress import StageLine, TrainingBar
from geonb.errors import InputError

if TYPE_CHECKING:
    import geonb.cli.live
    import geonb.plan.plan
    import geonb.train.execute
    import geonb.train.status

app = typer.Typer(
    help="Train with a derived plan, look at runs, hold adapters against their base, ship them.", no_args_is_help=True
)


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """The first Ctrl-C asks the loop to stop with a checkpoint; the second one interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number, frame):
        if stop.is_set():
            raise KeyboardInterrupt
        note("stopping at the next step, with a checkpoint (Ctrl-C again to break off)")
        stop.set()

    previous = signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)


@app.command()
@prints
def run(
    model: str | None = typer.Option(None, "--model", "-m", help="A Hugging Face folder, a hub id, or `embedded`."),
    data: str | None = typer.Option(None, "--data", "-d", help="JSONL of {text} or {messages}, or `embedded:kjv`."),
    output: str | None = options.OUTPUT,
    eval_data: str | None = options.EVAL_DATA,
    benchmark: str | None = options.BENCHMARK,
    no_save: bool = typer.Option(False, "--no-save", help="Train and verify, and leave nothing behind."),
    explain: bool = typer.Option(False, "--explain", help="Print the plan with every reason, then train."),
    plan_only: bool = typer.Option(False, "--plan-only", help="Print the plan and stop; nothing is written."),
    seq_length: int | None = options.SEQ_LENGTH,
    seed: int | None = options.SEED,
    max_steps: int | None = options.MAX_STEPS,
    epochs: int | None = options.EPOCHS,
    controller: str = options.CONTROLLER,
    basis: str = options.BASIS,
    budget: str = options.BUDGET,
    sides: str = options.SIDES,
    memory_budget: str | None = options.MEMORY_BUDGET,
    max_rank: int | None = options.MAX_RANK,
    rank_rule: str = options.RANK_RULE,
    exclude_roles: str | None = options.EXCLUDE_ROLES,
    target_experts: str | None = options.TARGET_EXPERTS,
    entropy_reg: bool = options.ENTROPY_REG,
    topo_monitor: bool = options.TOPO_MONITOR,
    dim_monitor: bool = options.DIM_MONITOR,
    device: str = options.DEVICE,
    resume: bool = typer.Option(False, "--resume", help="Go on with the run in --output from its last checkpoint."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace the run in --output."),
    json: bool = options.AS_JSON,
) -> geonb.train.execute.Run | geonb.plan.plan.Plan | geonb.cli.live.TrainingJob:
    """Derive a plan for MODEL on DATA, train with nothing to tune, verify, and leave a PEFT adapter."""
    from geonb.train.execute import run_training
    from geonb.train.run_folder import RunFolder, refuse_existing

    for first, second, clash in (
        ("--explain", "--plan-only", explain and plan_only),
        ("--no-save", "--output", no_save and output is not None),
        ("--no-save", "--resume", no_save and resume),
        ("--resume", "--overwrite", resume and overwrite),
        ("--resume", "--plan-only", resume and plan_only),
    ):
        if clash:
            raise InputError(f"{first} and {second} exclude each other; give one of them.")
    if benchmark is not None and not plan_only:
        raise InputError(
            f"--benchmark {benchmark} was given, and this version measures no task suites during a run; "
            "leave it out, or add --plan-only to see where it would stand."
        )
    if resume:
        if output is None:
            raise InputError("--resume needs the run to go on with; give its folder with -o.")
        plan = RunFolder.open(output).plan()
    else:
        if model is None or data is None:
            raise InputError(
                f"{'--model' if model is None else '--data'} is missing; `train run` needs -m MODEL -d FILE."
            )
        from geonb.plan.build import build_plan

        if not (plan_only or no_save or overwrite):
            refuse_existing(output)
        with StageLine(enabled=not json) as progress:
            plan = build_plan(
                model,
                data,
                output=output,
                eval_data=eval_data,
                seed=seed,
                seq_length=seq_length,
                max_steps=max_steps,
                epochs=epochs,
                controller=controller,
                basis=basis,
                budget=budget,
                sides=sides,
                memory_budget=memory_budget,
                max_rank=max_rank,
                rank_rule=rank_rule,
                exclude_roles=exclude_roles,
                target_experts=target_experts,
                entropy_reg=entropy_reg,
                topo_monitor=topo_monitor,
                dim_monitor=dim_monitor,
                benchmark=benchmark,
                device=device,
                progress=progress,
            )
    if plan_only:
        return answer(plan, as_json=json)
    if explain:
        note(plan.to_text(explain=True))
    folder = str(output if output is not None else plan.output)
    if not (no_save or overwrite or resume):
        refuse_existing(folder)

    def carry_out(*, watched: bool) -> Any:
        with stop_on_interrupt() as stop:
            return run_training(
                plan,
                output=output,
                save=not no_save,
                resume=resume,
                overwrite=overwrite,
                sinks=[TrainingBar(int(plan.horizon["steps"]))] if watched else [],
                should_stop=stop.is_set,
                device=device,
            )

    if live.is_background():
        if no_save:
            raise InputError("--no-save leaves no trace to follow: leave it out, or train without the background.")
        return live.TrainingJob(folder, lambda: _reported(carry_out(watched=False))).start()
    result = _reported(carry_out(watched=not json))
    if result.folder is not None:
        note(f"report: {RunFolder(result.folder).report_path}")
    return answer(result, as_json=json)


def _reported(result: Any) -> Any:
    """The result, after its report was written."""
    if result.folder is not None:
        from geonb.widgets.report import write_report

        write_report(result.folder)
    return result


@app.command()
@prints
def status(
    folder: str = typer.Argument(..., metavar="RUN", help="The folder of a run, live or dead."),
    watch: bool = typer.Option(False, "--watch", help="Look again every two seconds until the run ends."),
    json: bool = options.AS_JSON,
) -> geonb.train.status.RunStatus:
    """Where a run stands: step, loss, what binds, how long is left, and the verdict."""
    from geonb.train.status import run_status

    found = run_status(folder)
    while watch and found.state in {"training", "verifying"}:
        note(found.to_text())
        time.sleep(2)
        found = run_status(folder)
    return answer(found, as_json=json)


app.command()(evaluation.evaluate)
app.command()(evaluation.compare)
app.command("validate-derived")(validation.validate_derived)
app.command()(star_group.star)
app.command()(export_group.export)
app.command()(export_group.merge)
