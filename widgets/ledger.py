"""LedgerView: every claim by paper or verdict, what was published against what was measured, and why it came out so."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable
from typing import Any

from geonb.claims.checks import DECIDES, Check
from geonb.claims.ledger import DECISIONS, Ledger, LedgerRow, run_told
from geonb.claims.ledger_pictures import COLOURS
from geonb.claims.reference import PublishedFigure
from geonb.claims.register import Register, load_claims
from geonb.errors import InputError
from geonb.record_tables import table_html
from geonb.widgets.view import View, picture_html

_SIGNS = {True: "met", False: "not met", None: "undecided"}


class LedgerView(View):
    """The rows of a `Ledger`, grouped by paper or by verdict, filtered and searched in the page.

    Each row draws the published figure hollow, ours full with its interval, and the rule's threshold; opening it shows
    the rule, the controls and every check, with a link to the notebook. `register` gives rules and controls, by default
    the one of this checkout where it can be read. `link` makes the address of a row's notebook for a page that serves it;
    without it the path is named.

    >>> LedgerView(ledger_of())    # doctest: +SKIP
    LedgerView(64 claims: 12 holds, 20 fails, ...)
    """

    name = "ledger"

    def __init__(
        self,
        ledger: Ledger,
        *,
        register: Register | None = None,
        link: Callable[[LedgerRow], str] | None = None,
    ) -> None:
        super().__init__()
        self.ledger = ledger
        # a widget does not know where its page stands: without a maker of addresses it names the path alone
        self._link = link or (lambda row: "")
        self._claims = {claim.id: claim for claim in (register or _register_at_hand()).claims}
        self.opened = ""  # the claim whose details are shown
        self.decision = ""  # the only one that is shown, "" for all

    def __repr__(self) -> str:
        return f"LedgerView({self.ledger.summary().removeprefix('Ledger(')}"

    @property
    def record(self) -> Ledger:
        """The ledger that is shown."""
        return self.ledger

    def show(self, *, claim: str = "", decision: str = "") -> LedgerView:
        """Open a claim, and show one verdict alone; raises `InputError` for what the ledger has not."""
        for what, given, allowed in (
            ("claim", claim, [row.claim for row in self.ledger.rows]),
            ("verdict", decision, DECISIONS),
        ):
            if given and given not in allowed:
                raise InputError(f"the {what} {given!r} was asked for; allowed are {', '.join(allowed[:12])}.")
        self.opened, self.decision = claim, decision
        self.push(data=False)
        return self

    def receive(self, event: dict[str, Any]) -> None:
        """What the page opened or filtered; it has drawn that already, so nothing is sent back."""
        opened, decision = (str(event.get(name) or "") for name in ("opened", "decision"))
        self.opened = opened if any(row.claim == opened for row in self.ledger.rows) else ""
        self.decision = decision if decision in DECISIONS else ""

    def state(self) -> dict[str, Any]:
        return {
            "title": self.ledger.source,
            "summary": self.ledger.summary().removeprefix("Ledger(").removesuffix(")"),
            "decisions": [[name, colour] for name, colour in zip(DECISIONS, COLOURS, strict=True)],
            "counts": self.ledger.counts(),
            "papers": list(self.ledger.papers()),
            "rows": [self._row(row) for row in self.ledger.rows],
            "opened": self.opened,
            "decision": self.decision,
        }

    def _row(self, row: LedgerRow) -> dict[str, Any]:
        claim = self._claims.get(row.claim)
        return {
            "claim": row.claim,
            "paper": row.paper,
            "statement": row.statement,
            "published": row.published,
            "registered": row.registered,
            "decision": row.decision,
            "because": row.because,
            "problem": row.problem,
            "passed": row.passed,
            "run": run_told(row),
            "finished": row.finished,
            "rule": claim.rule if claim is not None else "",
            "controls": list(claim.controls) if claim is not None else [],
            "link": self._link(row) if row.link else "",
            "notebook": row.link,
            "pairs": [
                {**drawn(figure, check), "told": list(told)}
                for (figure, check), told in zip(row.compared(), row.told(), strict=True)
            ],
            "checks": [
                {"sentence": check.sentence, "decides": DECIDES[check.decides], "met": _SIGNS[check.met]}
                for check in row.checks
            ],
        }

    # -- still pictures -------------------------------------------------------------------------------------------

    def static(self) -> str:
        from geonb.widgets.ledger_picture import ledger_picture

        parts = [picture_html(ledger_picture(self.ledger), alt=f"Ledger of claims: {self.ledger.summary()}")]
        names = ("claim", "published as", "register", "this run", "published", "measured")
        for paper, rows in self.ledger.papers().items():
            body = [
                (
                    f"{row.claim}: {row.statement}", row.published, row.registered,
                    f"{row.decision}{': ' if row.because else ''}{row.because}", *_joined(row.told()),
                )
                for row in rows
            ]  # fmt: skip
            table = table_html(names, body, caption=paper).replace("white-space:nowrap", "vertical-align:top")
            parts.append(f"<details><summary>{_told(paper, rows)}</summary>{table}</details>")
        return "".join(parts)

    def figure(self) -> Any:
        """How many claims of each paper came to which decision, as stacked bars."""
        import plotly.graph_objects as go

        from geonb.widgets.figures import literal, themed

        papers = self.ledger.papers()
        figure = go.Figure()
        for decision, colour in zip(DECISIONS, COLOURS, strict=True):
            counts = [sum(row.decision == decision for row in rows) for rows in papers.values()]
            if any(counts):
                figure.add_bar(
                    name=decision, x=counts, y=[literal(name) for name in papers], orientation="h", marker_color=colour
                )
        figure.update_layout(barmode="stack", xaxis_title="claims", yaxis_autorange="reversed")
        return themed(figure, title="Verdicts by paper", height=160 + 34 * len(papers))


def drawn(figure: PublishedFigure | None, check: Check | None) -> dict[str, Any]:
    """The numbers of one picture: [value, low, high] of published and measured, and the rule; None for what is not there."""
    return {
        "published": None if figure is None else _ends(figure.published, figure.interval),
        "measured": None if check is None or check.measured is None else _ends(check.measured, check.interval),
        "threshold": None if check is None else check.threshold,
        "comparison": "" if check is None else check.comparison,
        "unit": (check.unit if check is not None else "") or (figure.unit if figure is not None else ""),
    }


def _ends(value: float, interval: tuple[float, float] | None) -> list[float] | None:
    """Value, low and high as strict JSON can hold them; an end that is not finite is the value's own."""
    if not math.isfinite(value):
        return None
    low, high = interval or (value, value)
    return [value, low if math.isfinite(low) else value, high if math.isfinite(high) else value]


def _register_at_hand() -> Register:
    with contextlib.suppress(InputError):
        return load_claims()
    return Register(claims=())


def _joined(told: Iterable[tuple[str, str]]) -> tuple[str, str]:
    pairs = list(told)
    return "; ".join(filter(None, (one for one, _ in pairs))), "; ".join(filter(None, (one for _, one in pairs)))


def _told(paper: str, rows: tuple[LedgerRow, ...]) -> str:
    from geonb.widgets.svg import escape

    counts = {name: sum(row.decision == name for row in rows) for name in DECISIONS}
    return escape(f"{paper}: {', '.join(f'{count} {name}' for name, count in counts.items() if count)}")
