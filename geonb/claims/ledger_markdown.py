"""The ledger as Markdown: one table a paper, for a README or a page of a repository."""

from __future__ import annotations

import re
from urllib.parse import quote

from geonb.claims.ledger import Ledger, LedgerRow, run_told
from geonb.records import plain

_MEANING = re.compile(r"([\\`*_{}\[\]()|~$])")
# what becomes a link or calls somebody without any markup
_ENTITIES = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("://", ":&#47;/"), ("www.", "www&#46;"), ("@", "&#64;"))
_SIGNS = {True: "✓", False: "✗", None: "–"}


def ledger_markdown(ledger: Ledger, picture: str = "") -> str:
    """Markdown in which no text of a file can be a heading, a link, markup, or a second cell.

    `picture` is the name of a file beside it with the verdicts by paper.
    """
    lines = ["# Ledger of claims", "", f"{_safe(ledger.summary().removeprefix('Ledger(').removesuffix(')'))}.", ""]
    if picture:
        lines += [f"![The verdicts by paper, as in the table below]({quote(picture)})", ""]
    lines += _counts(ledger)
    for paper, rows in ledger.papers().items():
        lines += [
            "",
            f"## {_safe(paper)}",
            "",
            "| | claim | published | figure | ours | register | this run | how | notebook |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [_line(row) for row in rows]
    return "\n".join(lines) + "\n"


def _counts(ledger: Ledger) -> list[str]:
    decisions = list(ledger.counts())
    lines = [f"| paper | {' | '.join(decisions)} |", "|---|" + "---:|" * len(decisions)]
    for paper, rows in ledger.papers().items():
        counts = [sum(row.decision == decision for row in rows) for decision in decisions]
        lines.append(f"| {_safe(paper)} | {' | '.join(str(count or '') for count in counts)} |")
    return lines


def _line(row: LedgerRow) -> str:
    pairs = list(row.told())
    said = f"**{_safe(row.decision)}**" + (f"<br>{_safe(row.problem)}" if row.problem else "")
    cells = (
        _SIGNS[row.passed],
        f"**{_safe(row.claim)}**<br>{_safe(row.statement)}",
        _safe(row.published),
        "<br>".join(_safe(published) for published, _ in pairs if published),
        "<br>".join(_safe(ours) for _, ours in pairs if ours),
        _safe(row.registered),
        said,
        _safe(run_told(row)),
        f"[open]({quote(row.link)})" if row.link else "",
    )
    return f"| {' | '.join(cells)} |"


def _safe(text: str) -> str:
    """Text that Markdown and HTML take for nothing but itself, on one line."""
    one_line = plain(" ".join(text.split()))
    for letters, entity in _ENTITIES:
        one_line = one_line.replace(letters, entity)
    return _MEANING.sub(r"\\\1", one_line)
