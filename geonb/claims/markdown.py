"""Pieces of Markdown that the pages of claims are made of."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text as it is; nothing is escaped.

    >>> print(markdown_table(("cell", "loss"), [["kjv", "3.2"]]))
    | cell | loss |
    |---|---|
    | kjv | 3.2 |
    """
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def percent_text(share: float | None) -> str:
    """A share in per cent to one digit, empty where there is none.

    >>> percent_text(0.0157), percent_text(None)
    ('1.6 %', '')
    """
    return "" if share is None else f"{100 * share:.1f} %"
