"""`%geonb` and `%%geonb`: the same commands as in a shell, inside a notebook.

    %load_ext geonb
    plan = %geonb plan -m embedded -d embedded:kjv
    %geonb train status runs/mine --out status
    %%geonb train -o runs/mine
    model = "embedded"
    data = "embedded:kjv"

A magic only splits the line and calls the command; the record it returns is what IPython displays.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class

from geonb.errors import GeonbError
from geonb.records import plain

_NAME = "geonb"
# strings and comments of TOML, those without an end too, so that every text is passed over once
_QUOTED = re.compile(
    r'''"""(?:\\.|[^\\])*?(?:"""|\Z)|\'\'\'.*?(?:\'\'\'|\Z)|"(?:\\.|[^"\\\n])*"?|'[^'\n]*'?|#[^\n]*''', re.DOTALL
)
# a key of so many parts that tomllib, which keeps each beginning of it, takes a gigabyte for forty kilobytes
_DOTTED = re.compile(r"(?<![\w-])(?:[\w-]++[ \t]*+\.[ \t]*+){20}")


@magics_class
class GeonbMagics(Magics):
    """The magics of geonb."""

    @line_cell_magic(_NAME)
    def geonb(self, line: str, cell: str | None = None) -> Any:
        """Run a geonb command: `%geonb GROUP COMMAND [OPTIONS]`; `%geonb --help` lists them.

        In the cell form the body is either JSONL records, which become the command's data (-d), or TOML options, which
        become its flags. `%%geonb train` trains behind the cell: the trace lives, `%geonb stop` ends it, and the
        result is a job whose `.result()` waits (`--background` does the same on one line). `--out NAME` binds the
        result to a variable as well. Errors are one line.
        """
        try:
            arguments = shlex.split(line)
        except ValueError as error:
            raise UsageError(f"the line cannot be read ({error}): check its quotes.") from None
        target = _take(arguments, "--out")
        behind = _is_training(arguments) and (_took(arguments, "--background") or cell is not None)
        try:
            result = run(_named(arguments) + _body(cell), behind=behind)
        except GeonbError as error:
            raise UsageError(str(error)) from None
        except OSError as error:
            raise UsageError(f"{error.filename or 'a file'}: {error.strerror or error}; check the path.") from None
        if target is not None:
            assert self.shell is not None
            self.shell.user_ns[target] = result
        return result


def run(arguments: list[str], *, behind: bool = False) -> Any:
    """Run one command line in this process and return its record; what is wrong with the line is a `UsageError`.

    `behind` starts a training in a thread and returns its job.
    """
    from geonb.cli import exceptions
    from geonb.cli.app import run_command
    from geonb.cli.live import in_background
    from geonb.cli.output import returning_records

    try:
        with returning_records(), in_background() if behind else contextlib.nullcontext():
            return run_command(arguments)[1]
    except exceptions.UsageError as error:
        raise UsageError(exceptions.message_of(error)) from None
    except exceptions.Abort:
        raise UsageError("stopped.") from None


def _is_training(arguments: list[str]) -> bool:
    """Whether the line is `train ...` or `train run ...`."""
    return arguments[:1] == ["train"] and (len(arguments) < 2 or arguments[1] == "run" or arguments[1].startswith("-"))


def _named(arguments: list[str]) -> list[str]:
    """`train` alone means `train run`."""
    return ["train", "run", *arguments[1:]] if _is_training(arguments) and arguments[1:2] != ["run"] else arguments


def _took(arguments: list[str], flag: str) -> bool:
    """Remove `flag` from the arguments; whether it was there."""
    if flag not in arguments:
        return False
    arguments.remove(flag)
    return True


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


def _body(cell: str | None) -> list[str]:
    """The extra arguments that a cell's body stands for."""
    if cell is None or not cell.strip():
        return []
    try:
        cell.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"the cell holds a character that is no Unicode text at position {error.start}: mend it."
        ) from None
    if cell.lstrip().startswith("{"):
        return ["--data", str(_kept(cell.strip() + "\n"))]
    if _DOTTED.search(_QUOTED.sub("q", cell)):
        raise UsageError("the cell is neither JSONL records nor TOML options (a key of more than 20 parts).")
    try:
        options = tomllib.loads(cell)
    except (ValueError, RecursionError) as error:
        # not TOML, a number of thousands of digits, or lists a thousand deep
        reason = str(error).split(";")[0][:160]
        raise UsageError(f"the cell is neither JSONL records nor TOML options ({reason}).") from None
    return [argument for name, value in options.items() for argument in _flag(name, value)]


def _kept(records: str) -> Path:
    """The records of a cell as a file named by its content: a run that goes on later finds the same data again."""
    from geonb.models.cache import cache_folder
    from geonb.records import atomic_write

    folder = cache_folder() / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(records.encode()).hexdigest()[:16]}.jsonl"
    return path if path.exists() else atomic_write(path, records)


def _flag(name: str, value: Any) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [flag] if value else []
    try:
        if isinstance(value, list):
            return [flag, ",".join(str(item) for item in value)]
        return [flag, value if isinstance(value, str) else json.dumps(value, default=str)]
    except (ValueError, RecursionError):
        # a hexadecimal number may be as long as it likes, and Python writes none of more than 4,300 digits
        raise UsageError(
            f"the cell's option {plain(name)[:40]} is a number of thousands of digits: correct it."
        ) from None


def complete(shell: Any, event: Any) -> list[str]:
    """Groups, commands, flags, `embedded` and run folders for what stands before the cursor."""
    import typer

    from geonb.cli.app import app

    words = event.line.split()[1:]
    if words[:1] == ["train"] and len(words) > 1 and words[1].startswith("-"):
        words.insert(1, "run")
    if words and not event.line.endswith(" "):
        words = words[:-1]
    command: Any = typer.main.get_command(app)
    for word in words:
        inner = getattr(command, "commands", {})
        command = inner.get(word, command)
    if hasattr(command, "commands"):
        return sorted(command.commands)
    flags = [flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)]
    flags = [*sorted(flag for flag in flags if flag.startswith("-")), "--out", "--background"]
    return [*flags, "embedded", "embedded:kjv", "embedded:chat", *_run_folders()]


def _run_folders() -> list[str]:
    """Runs below the working folder, newest first."""
    plans = [path for pattern in ("*/plan.json", "runs/*/plan.json") for path in Path().glob(pattern)]
    return [str(path.parent) for path in sorted(plans, key=lambda path: -path.stat().st_mtime)][:50]


def register(shell: Any) -> None:
    """Add the magics and their completion to an IPython shell; nothing is printed."""
    from geonb.widgets import view_of

    shell.register_magics(GeonbMagics)
    view_of.register(shell)
    for key in (f"%{_NAME}", f"%%{_NAME}"):
        shell.set_hook("complete_command", complete, str_key=key)


def unregister(shell: Any) -> None:
    """Take the magics and the views out again."""
    from geonb.widgets import view_of

    view_of.unregister(shell)
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop(_NAME, None)
