"""`geonb schema`: which record each command prints with `--json`, and the JSON Schema of it."""

from __future__ import annotations

import json as json_text
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import typer

from geonb.cli import options
from geonb.cli.output import PRINTED, answer, prints
from geonb.errors import InputError
from geonb.record_tables import table_html
from geonb.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRecords(Record):
    """A command with `--json`, and the records of which it prints one."""

    command: str  # as it is typed, without `geonb`
    records: tuple[str, ...]
    about: str  # the first sentence of its help


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands(Record):
    """The commands that print JSON."""

    commands: tuple[CommandRecords, ...]

    def summary(self) -> str:
        return f"Commands({len(self.commands)} that print JSON)"

    def to_text(self) -> str:
        width = max(len(one.command) for one in self.commands)
        lines = [f"{one.command:{width}}  {' or '.join(one.records)}" for one in self.commands]
        return "\n".join(
            [*lines, "", "`geonb schema COMMAND`, such as `geonb schema train run`, prints the JSON Schema."]
        )

    def to_html(self) -> str:
        rows = [(one.command, " or ".join(one.records), one.about) for one in self.commands]
        return table_html(("command", "record", ""), rows, caption="What --json prints")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSchema(Record):
    """The JSON Schema (draft 2020-12) of the document that a command prints with `--json`."""

    command: str
    records: tuple[str, ...]
    schema: dict[str, Any]

    def summary(self) -> str:
        return f"CommandSchema({self.command!r}: {' or '.join(self.records)})"

    def to_text(self) -> str:
        # ASCII, because what a terminal may not print is escaped in a way that is no JSON
        return json_text.dumps(self.schema, indent=1, ensure_ascii=True)


@prints
def schema(
    command: list[str] | None = typer.Argument(
        None, metavar="[COMMAND...]", help="A command such as `train evaluate`, or a group; without it all are listed."
    ),
    json: bool = options.AS_JSON,
) -> Commands | CommandSchema:
    """Print the JSON Schema of what a command's `--json` prints, or list the commands with the record that each prints.

    Every `--json` is one document: the fields of one record, all of them there and no others. The schema is derived from
    the types of those fields, so it is that of this version. A number that is not finite is the text "inf", "-inf" or
    "nan". With --json of its own, the schema stands in a record beside the command's name.
    """
    from geonb.record_schema import record_schema

    words = tuple(command or ())
    found = {path: callback for path, callback in json_commands() if path[: len(words)] == words}
    if not found:
        raise InputError(
            f"{' '.join(words)!r} is no command that prints JSON; allowed are a group or a command of those that "
            "`geonb schema` lists."
        )
    if words not in found:
        return answer(Commands(commands=tuple(_entry(path, one) for path, one in found.items())), as_json=json)
    records = records_of(found[words])
    if not records:
        raise InputError(f"`geonb {' '.join(words)}` does not say which record it prints: report this as a defect.")
    name = " ".join(words)
    made = record_schema(*records, title=f"geonb {name} --json")
    return answer(
        CommandSchema(command=name, records=tuple(one.__name__ for one in records), schema=made), as_json=json
    )


def json_commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with `--json`, as the words that call it and the function that is called."""
    from geonb.cli.app import app

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, (*words, name))
        if any("--json" in parameter.opts for parameter in command.params):
            yield words, command.callback

    return walk(typer.main.get_command(app), ())


def records_of(command: Any) -> tuple[type[Record], ...]:
    """The records among what a command's function says that it returns; none where it was not marked by `prints`."""
    found = []
    for name in str(getattr(command, PRINTED, "")).split("|"):
        path = name.strip()
        kind = pkgutil.resolve_name(path if "." in path else f"{command.__module__}.{path}") if path else None
        # what a notebook gets of a training behind its cell is no record, and nothing that is printed
        if isinstance(kind, type) and issubclass(kind, Record):
            found.append(kind)
    return tuple(found)


def _entry(path: tuple[str, ...], command: Any) -> CommandRecords:
    about = " ".join((command.__doc__ or "").split("\n\n")[0].split())
    names = tuple(record.__name__ for record in records_of(command))
    return CommandRecords(command=" ".join(path), records=names, about=about)
