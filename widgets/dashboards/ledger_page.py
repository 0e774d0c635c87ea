"""The page of the ledger, and that of one of its notebooks."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from geonb.claims.ledger import DECISIONS, Ledger, LedgerRow
from geonb.errors import GeonbError
from geonb.widgets.dashboards.library import Library, one_of
from geonb.widgets.dashboards.notebook_text import in_a_frame, notebook_html
from geonb.widgets.dashboards.page import choices, framed, leave, note, query, remember
from geonb.widgets.ledger import LedgerView


def ledger_page(library: Library) -> Any:
    """`/ledger?of=NAME&opened=CLAIM&decision=VERDICT`: a batch's folder that was given, or the register's own results."""
    import panel as pn

    names = library.ledgers()
    chosen = one_of((query("of") or [None])[0], names)
    if chosen is None:
        return framed(
            "ledger",
            note(
                "There is no register of claims here: start in a checkout of geonb, name the folder that holds claims.toml "
                "with GEONB_PAPERS, or give the folder of a `geonb claims run`."
            ),
        )
    body = pn.Column(choices("ledger", "of", names, chosen), sizing_mode="stretch_width")
    try:
        ledger, _ = library.ledger(chosen)
        view = LedgerView(ledger, link=lambda row: f"notebook?{urlencode({'of': chosen, 'claim': row.claim})}")
    except (GeonbError, OSError, ValueError) as error:
        body.append(note(f"The ledger of {chosen} cannot be shown: {error}"))
        return framed("ledger", body)
    view.show(
        claim=one_of((query("opened") or [""])[0], ["", *(row.claim for row in ledger.rows)]) or "",
        decision=one_of((query("decision") or [""])[0], ["", *DECISIONS]) or "",
    )
    view.listeners.append(lambda event: remember(of=chosen, opened=view.opened, decision=view.decision))
    leave(view.close)
    body.append(view.panel())
    return framed("ledger", body)


def notebook_page(library: Library) -> Any:
    """`/notebook?of=NAME&claim=CLAIM`: the notebook of one row, to read."""
    import panel as pn

    of, wanted = (query("of") or [""])[0], (query("claim") or [""])[0]
    try:
        row, page = _notebook(library, of, wanted)
    except (GeonbError, OSError, ValueError) as error:
        return framed("ledger", note(f"The notebook of {wanted} cannot be shown: {error}"))
    back = f'<p><a style="color:inherit" href="ledger?{urlencode({"of": of, "opened": row.claim})}">back to the ledger</a></p>'
    body = pn.Column(
        note(f"{row.claim}: {row.link}"),
        pn.pane.HTML(back),
        pn.pane.HTML(in_a_frame(page, title=f"Notebook of {row.claim}"), sizing_mode="stretch_width"),
        sizing_mode="stretch_width",
    )
    return framed("ledger", body)


def _notebook(library: Library, of: str, wanted: str) -> tuple[LedgerRow, str]:
    if of not in library.ledgers():
        raise ValueError("there is no such ledger.")
    ledger, base = library.ledger(of)
    row = _row(ledger, wanted)
    base = base.resolve()
    path = (base / row.link).resolve()
    if not row.link or not path.is_relative_to(base) or path.suffix != ".ipynb" or not path.is_file():
        raise ValueError("there is no such file beside the ledger.")
    return row, notebook_html(path)


def _row(ledger: Ledger, wanted: str) -> LedgerRow:
    for row in ledger.rows:
        if row.claim == wanted:
            return row
    raise ValueError("the ledger has no such claim.")
