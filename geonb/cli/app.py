"""The one command surface: `geonb` in a shell and `%geonb` in a notebook are the same typer application."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any

import typer

from geonb.cli import adapter as adapter_group
from geonb.cli import adapter_analysis
from geonb.cli import benchmark as benchmark_group
from geonb.cli import claims as claims_group
from geonb.cli import coordinates as coordinates_group
from geonb.cli import dashboard as dashboard_group
from geonb.cli import data as data_group
from geonb.cli import demo as demo_group
from geonb.cli import infer as infer_group
from geonb.cli import merge as merge_group
from geonb.cli import model as model_group
from geonb.cli import models as models_group
from geonb.cli import plan as plan_group
from geonb.cli import quantize as quantize_group
from geonb.cli import schema as schema_group
from geonb.cli import spectra as spectra_group
from geonb.cli import stop as stop_group
from geonb.cli import system as system_group
from geonb.cli import train as train_group
from geonb.cli.exceptions import Abort, Exit, UsageError, is_help, message_of
from geonb.errors import GeonbError

app = typer.Typer(
    name="geonb",
    help="See a model's geometry, train an adapter with nothing to tune, verify it.\n\n"
    "Start with `geonb demo`; then `geonb spectra MODEL`, `geonb plan -m MODEL -d FILE`, "
    "`geonb train run -m MODEL -d FILE -o RUN`, and look at all of it with `geonb dashboard MODEL RUN`. "
    "MODEL is a Hugging Face folder, a hub id, or `embedded`.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(model_group.app, name="model")
for name, command in (
    ("list", models_group.list_models),
    ("add", models_group.add),
    ("delete", models_group.delete),
    ("search", models_group.search),
    ("quantize", quantize_group.quantize),
):
    model_group.app.command(name)(command)
app.add_typer(data_group.app, name="data")
app.add_typer(train_group.app, name="train")
app.add_typer(adapter_group.app, name="adapter")
adapter_group.app.command("analyze")(adapter_analysis.analyze)
adapter_group.app.command("calibrate-baseline")(adapter_analysis.calibrate_baseline)
app.add_typer(infer_group.app, name="infer")
app.add_typer(merge_group.app, name="merge")
app.add_typer(benchmark_group.app, name="benchmark")
app.add_typer(claims_group.app, name="claims")
app.add_typer(coordinates_group.app, name="coordinates")
app.add_typer(system_group.app, name="system")
app.command(name="spectra")(spectra_group.spectra)
app.command(name="plan")(plan_group.plan)
app.command(name="stop")(stop_group.stop)
app.command(name="dashboard")(dashboard_group.dashboard)
app.command(name="demo")(demo_group.demo)
app.command(name="schema")(schema_group.schema)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        from geonb._version import __version__

        typer.echo(__version__)
        raise typer.Exit()


# what torchao, where it is installed, says of its own missing kernels and of torch's names each time it is imported
for _talkative in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_talkative).setLevel(logging.ERROR)


def run_command(arguments: Sequence[str]) -> tuple[int, Any]:
    """Run one command line: `(exit code, the record it returned)`. Raises `GeonbError` for what a person can mend."""
    command = typer.main.get_command(app)
    try:
        result = command.main(args=list(arguments), prog_name="geonb", standalone_mode=False)
    except Exit as leave:
        return leave.exit_code, None
    except UsageError as error:
        if not is_help(error):
            raise
        typer.echo(error.format_message())  # type: ignore[attr-defined]
        return 0, None
    if isinstance(result, int) and not isinstance(result, bool):
        return result, None
    return 0, result


def main(arguments: Sequence[str] | None = None) -> None:
    """The `geonb` program: exit 0 done, 1 a check or gate failed, 2 the input was wrong."""
    from geonb.cli.output import exit_code_of

    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code, record = run_command(given)
    except UsageError as error:
        _fail(message_of(error), 2)
    except Abort:
        _fail("stopped.", 130)
    except GeonbError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        _fail(
            f"{error.filename or 'a file'}: {error.strerror or error}; check the path, its rights and the free space.",
            2,
        )
    except KeyboardInterrupt:
        _fail("stopped.", 130)
    else:
        raise SystemExit(code or exit_code_of(record))


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"geonb: {message}\n")
    raise SystemExit(code)
