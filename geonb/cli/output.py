"""How a command answers: a record as text, or exactly one JSON document on stdout; progress goes to stderr."""

from __future__ import annotations

import contextvars
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from geonb.records import Record, plain

AnyRecord = TypeVar("AnyRecord", bound=Record)
PRINTED = "__printed__"  # attribute of a command: its return annotation, as text
Command = TypeVar("Command", bound=Callable[..., Any])

# inside a notebook the magic shows the returned record itself, so a command must not print it too
_quiet: contextvars.ContextVar[bool] = contextvars.ContextVar("quiet", default=False)


@contextmanager
def returning_records() -> Iterator[None]:
    """Inside the block commands return their record without printing it."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def is_quiet() -> bool:
    """Whether a notebook shows what a command returns."""
    return _quiet.get()


def prints(command: Command) -> Command:
    """Keep what a command says that it returns, for `geonb schema`, and keep it from typer.

    typer evaluates every annotation whenever the program starts; the modules of the records import torch, so a command
    imports them for type checking alone and names its records by their whole path.
    """
    setattr(command, PRINTED, command.__annotations__["return"])
    command.__annotations__["return"] = Any
    return command


def answer(record: AnyRecord, *, as_json: bool = False, text: str | None = None) -> AnyRecord:
    """Print `record` (unless a notebook will show it) and hand it on."""
    if not _quiet.get():
        if as_json:
            sys.stdout.write(json.dumps(record.to_dict(), allow_nan=False, ensure_ascii=False) + "\n")
        else:
            sys.stdout.write(plain(text if text is not None else record.to_text(), keep="\n\t") + "\n")
        sys.stdout.flush()
    return record


def exit_code_of(result: Any) -> int:
    """1 when the result carries a verdict that is not "passed", else 0."""
    verification = getattr(result, "verification", result)
    verdict = getattr(verification, "verdict", None)
    return 0 if verdict in (None, "passed") else 1


def note(message: str) -> None:
    """One line for the person, on stderr so that stdout stays the answer."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()
