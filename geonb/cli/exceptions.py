"""The exceptions of the command parser, by way of typer's public names: newer typers carry a click of their own."""

from __future__ import annotations

import typer

Abort = typer.Abort
Exit = typer.Exit
# BadParameter is the public subclass of what every wrong command line raises
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def is_help(error: Exception) -> bool:
    """Whether a usage error only asks for the help of a group that was called without a command."""
    return type(error).__name__ == "NoArgsIsHelpError"


def message_of(error: Exception) -> str:
    """A usage error as one sentence, with where to read more."""
    text = error.format_message() if hasattr(error, "format_message") else str(error)  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    hint = f" Try `{context.command_path} --help`." if context is not None else ""
    return " ".join(text.split()) + hint
