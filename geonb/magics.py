"""`%geonb` and `%%geonb`: the same commands as in a shell, inside a notebook.

    %load_ext geonb
    plan = %geonb plan -m embedded -d embedded:kjv
    %geonb train status runs/mine --out status

A magic only splits the line and calls the command; the record it returns is what IPython displays.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class

from geonb.errors import GeonbError

_NAME = "geonb"


@magics_class
class GeonbMagics(Magics):
    """The magics of geonb."""

    @line_cell_magic(_NAME)
    def geonb(self, line: str, cell: str | None = None) -> Any:
        """Run a geonb command: `%geonb GROUP COMMAND [OPTIONS]`; `%geonb --help` lists them.

        In the cell form the body is either JSONL records, which become the command's data (-d), or TOML options, which
        become its flags. `--out NAME` binds the result to a variable as well. Errors are one line.
        """
        arguments = shlex.split(line)
        target = _take(arguments, "--out")
        try:
            with _body(cell) as extra:
                result = run(arguments + extra)
        except GeonbError as error:
            raise UsageError(str(error)) from None
        if target is not None:
            assert self.shell is not None
            self.shell.user_ns[target] = result
        return result


def run(arguments: list[str]) -> Any:
    """Run one command line in this process and return its record; what is wrong with the line is a `UsageError`."""
    from geonb.cli import exceptions
    from geonb.cli.app import run_command
    from geonb.cli.output import returning_records

    try:
        with returning_records():
            return run_command(arguments)[1]
    except exceptions.UsageError as error:
        raise UsageError(exceptions.message_of(error)) from None
    except exceptions.Abort:
        raise UsageError("stopped.") from None


def _take(arguments: list[str], flag: str) -> str | None:
    """Remove `flag VALUE` from the arguments and return the value."""
    if flag not in arguments:
        return None
    place = arguments.index(flag)
    if place + 1 >= len(arguments) or not arguments[place + 1].isidentifier():
        raise UsageError(f"{flag} needs the name of a variable after it.")
    value = arguments[place + 1]
    del arguments[place : place + 2]
    return value


@contextlib.contextmanager
def _body(cell: str | None):
    """The extra arguments that a cell's body stands for."""
    if cell is None or not cell.strip():
        yield []
    elif cell.lstrip().startswith("{"):
        with tempfile.TemporaryDirectory(prefix="geonb-cell-") as folder:
            path = Path(folder) / "cell.jsonl"
            path.write_text(cell.strip() + "\n", encoding="utf-8")
            yield ["--data", str(path)]
    else:
        try:
            options = tomllib.loads(cell)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"the cell is neither JSONL records nor TOML options ({error}).") from None
        yield [argument for name, value in options.items() for argument in _flag(name, value)]


def _flag(name: str, value: Any) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [flag] if value else []
    return [flag, value if isinstance(value, str) else json.dumps(value)]


def complete(shell: Any, event: Any) -> list[str]:
    """Groups, commands, flags, `embedded` and run folders for what stands before the cursor."""
    import typer

    from geonb.cli.app import app

    words = event.line.split()[1:]
    if words and not event.line.endswith(" "):
        words = words[:-1]
    command: Any = typer.main.get_command(app)
    for word in words:
        inner = getattr(command, "commands", {})
        command = inner.get(word, command)
    if hasattr(command, "commands"):
        return sorted(command.commands)
    flags = [flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)]
    runs = [str(path.parent) for path in Path().glob("*/plan.json")] + [
        str(p.parent) for p in Path().glob("runs/*/plan.json")
    ]
    return [*sorted(flag for flag in flags if flag.startswith("-")), "embedded", "embedded:kjv", "embedded:chat", *runs]


def register(shell: Any) -> None:
    """Add the magics and their completion to an IPython shell; nothing is printed."""
    shell.register_magics(GeonbMagics)
    for key in (f"%{_NAME}", f"%%{_NAME}"):
        shell.set_hook("complete_command", complete, str_key=key)


def unregister(shell: Any) -> None:
    """Take the magics out again."""
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop(_NAME, None)
