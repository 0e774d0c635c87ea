"""The view of a ledger holds every claim with its figures, its rule and its checks, and only that."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from geonb.claims.batch import BatchFacts
from geonb.claims.ledger import DECISIONS, Ledger, ledger_of
from geonb.claims.register import Register, load_claims
from geonb.errors import InputError
from geonb.widgets.dashboards.ledger_page import ledger_page, notebook_page
from geonb.widgets.dashboards.library import Library
from geonb.widgets.dashboards.notebook_text import in_a_frame, notebook_html
from geonb.widgets.ledger import LedgerView
from geonb.widgets.ledger_picture import ledger_picture
from geonb.widgets.svg import PALETTE
from tests.ledgers import EVIL, figure, row, small_ledger, write_papers
from tests.tiny import pictures

NO_REGISTER = Register(claims=())


@pytest.fixture
def ledger():
    return small_ledger()


@pytest.fixture
def view(ledger):
    return LedgerView(ledger, register=NO_REGISTER)


@pytest.fixture
def papers(tmp_path, monkeypatch):
    found = write_papers(tmp_path)
    monkeypatch.setenv("GEONB_PAPERS", str(found))
    return found


def of(view, claim):
    (found,) = [one for one in view.state()["rows"] if one["claim"] == claim]
    return found


# -- what is sent -----------------------------------------------------------------------------------------------------


def test_every_claim_is_sent_once_as_strict_json(view, ledger):
    state = json.loads(json.dumps(view.state(), allow_nan=False))
    assert [one["claim"] for one in state["rows"]] == [one.claim for one in ledger.rows] and view.data() == b""
    assert state["papers"] == ["results-ledger", "invariant-semantic-structure", "semantic-highway"]
    assert sum(state["counts"].values()) == len(ledger.rows) == 6
    assert [name for name, _ in state["decisions"]] == list(DECISIONS), "each with a colour, in the order of the groups"


def test_published_and_measured_stand_beside_the_threshold(view):
    (pair,) = of(view, "w4-alignment")["pairs"]
    assert pair["published"] == [0.99, 0.98, 1.0] and pair["measured"] == [0.686, 0.61, 0.74]
    assert (pair["threshold"], pair["comparison"], pair["unit"]) == (0.9, ">=", "CKA")
    assert "0.99" in pair["told"][0] and "0.686" in pair["told"][1]


def test_what_was_not_measured_or_not_published_is_nothing(view):
    (never,) = of(view, "p5-depth")["pairs"]
    assert (never["published"], never["measured"], never["threshold"]) == ([15.8, 15.8, 15.8], None, None)
    (unpublished,) = of(view, "p1-primes")["pairs"]
    assert unpublished["published"] is None and unpublished["measured"] == [0.5, 0.1, 0.9]
    assert of(view, "f4-stable-rank")["pairs"] == []


def test_numbers_that_are_none_leave_strict_json(ledger):
    (first, *_) = ledger.rows
    check = replace(first.checks[0], measured=float("inf"), interval=(float("-inf"), float("nan")))
    view = LedgerView(Ledger(source="x", rows=(replace(first, checks=(check,)),)), register=NO_REGISTER)
    json.dumps(view.state(), allow_nan=False)
    assert view.state()["rows"][0]["pairs"][0]["measured"] is None and pictures(view.static())


def test_every_check_is_told_with_what_it_is_for(view):
    checks = of(view, "w4-alignment")["checks"]
    assert [check["met"] for check in checks] == ["not met", "met"]
    assert [check["decides"] for check in checks] == ["needed to hold", "would refute"]
    assert of(view, "p1-primes")["checks"][0]["met"] == "undecided"


def test_rule_and_controls_come_from_the_register(papers):
    view = LedgerView(ledger_of())
    rules = {claim.id: claim.rule for claim in load_claims(papers / "claims.toml").claims}
    assert {one["claim"]: one["rule"] for one in view.state()["rows"]} == rules
    assert of(view, "deep-valley")["controls"] == ["The profile falls."]


def test_without_a_register_the_rest_is_there(tmp_path, monkeypatch, ledger):
    monkeypatch.setenv("GEONB_PAPERS", str(tmp_path))
    assert {one["rule"] for one in LedgerView(ledger).state()["rows"]} == {""}


def test_a_row_has_an_address_only_where_a_page_serves_its_notebook(ledger):
    rows = (ledger.rows[0], replace(ledger.rows[1], link=""))
    alone = LedgerView(Ledger(source="x", rows=rows), register=NO_REGISTER).state()["rows"]
    assert [(one["link"], one["notebook"]) for one in alone] == [("", ledger.rows[0].link), ("", "")]
    served = LedgerView(
        Ledger(source="x", rows=rows), register=NO_REGISTER, link=lambda row: f"notebook?claim={row.claim}"
    )
    assert [one["link"] for one in served.state()["rows"]] == ["notebook?claim=w4-alignment", ""]


# -- what is asked ----------------------------------------------------------------------------------------------------


def test_a_claim_is_opened_and_a_verdict_chosen(view):
    assert view.show(claim="w7-scale-bound", decision="holds") is view
    assert (view.state()["opened"], view.state()["decision"]) == ("w7-scale-bound", "holds")


@pytest.mark.parametrize("asked", [{"claim": "w99"}, {"decision": "maybe"}])
def test_what_the_ledger_has_not_is_refused_with_what_it_has(view, asked):
    with pytest.raises(InputError, match="allowed are"):
        view.show(**asked)
    assert (view.opened, view.decision) == ("", "")


def test_the_page_says_what_it_opened_and_nonsense_is_nothing(view):
    view.receive({"kind": "show", "opened": "w4-alignment", "decision": "fails"})
    assert (view.opened, view.decision) == ("w4-alignment", "fails")
    view.receive({"kind": "show", "opened": EVIL, "decision": None})
    assert (view.opened, view.decision) == ("", "")


# -- still forms ------------------------------------------------------------------------------------------------------


def test_the_picture_has_a_hollow_and_a_full_mark_where_there_is_a_figure_of_each(ledger):
    svg = ledger_picture(ledger)
    circles = [one for one in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}circle")]
    hollow = [one for one in circles if one.get("fill") == "none"]
    full = [one for one in circles if one.get("fill") == PALETTE["blue"]]
    # the first hollow one is the legend's, whose full one is a path
    assert len(hollow) - 1 == 3 and len(full) == 4
    (pair,) = [one for one in hollow if one.get("cy") == full[0].get("cy")]
    assert float(full[0].get("cx")) < float(pair.get("cx")), "0.686 lies left of 0.99"


def test_the_static_form_names_every_claim_and_nothing_in_it_can_run(view, ledger):
    (text,) = pictures(view.static())
    assert all(one.claim in text and one.claim in view.static() for one in ledger.rows)
    bundle = view._repr_mimebundle_()
    assert "text/html" in (bundle[0] if isinstance(bundle, tuple) else bundle) and repr(view).startswith(
        "LedgerView(6 claims"
    )


def test_an_empty_ledger_and_one_of_many_claims_are_still_drawn():
    assert pictures(LedgerView(Ledger(source="x", rows=()), register=NO_REGISTER).static())
    many = Ledger(source="x", rows=tuple(row(f"c{n}") for n in range(100)))
    assert "20 more claims are in the table." in ledger_picture(many)


def test_the_figure_counts_the_verdicts_of_each_paper(view, ledger):
    bars = {bar.name: dict(zip(bar.y, bar.x, strict=True)) for bar in view.figure().data}
    assert set(bars) == {one.decision for one in ledger.rows}
    assert bars["fails"] == {"results-ledger": 1, "invariant-semantic-structure": 0, "semantic-highway": 0}


def test_markup_of_strangers_stays_text():
    fields = dict.fromkeys(("paper", "claim", "statement", "because", "problem", "model", "finished"), EVIL)
    hostile = row(**fields, decision="fails", passed=False, figures=(figure(EVIL, EVIL, 1.0, note=EVIL),))
    view = LedgerView(Ledger(source=EVIL, rows=(hostile,)), register=NO_REGISTER)
    assert "<script" not in view.static() and "<img src" not in view.static() and pictures(view.static())
    assert "<script" not in json.dumps(view.figure().to_plotly_json(), default=str)


# -- the dashboard ----------------------------------------------------------------------------------------------------


def test_the_dashboard_reads_the_register_at_hand(papers):
    library = Library(["embedded"])
    assert library.ledgers() == ["papers"]
    ledger, base = library.ledger("papers")
    assert len(ledger.rows) == 3 and (base / ledger.rows[0].link).is_file()
    assert ledger_page(library) is not None


def test_the_folder_of_a_batch_is_a_ledger_of_its_own_before_the_registers(papers, tmp_path):
    batch = tmp_path / "smoke"
    batch.mkdir()
    BatchFacts(profile="smoke", model="").save(batch / "batch.json")
    library = Library([str(batch)])
    assert library.ledgers() == ["smoke", "papers"] and library.ledger("smoke") == (ledger_of(batch), batch)


def test_without_a_register_there_is_no_ledger_and_a_page_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("GEONB_PAPERS", str(tmp_path))
    assert Library(["embedded"]).ledgers() == [] and ledger_page(Library(["embedded"])) is not None


def asked(monkeypatch, **query):
    from geonb.widgets.dashboards import ledger_page as module

    monkeypatch.setattr(module, "query", lambda name: [query[name]] if name in query else [])


def texts_of(page):
    return " ".join(str(getattr(one, "object", "")) for root in page._render_items.values() for one in root[0].select())


def test_a_notebook_is_read_in_a_frame_that_may_do_nothing(papers, monkeypatch):
    asked(monkeypatch, of="papers", claim="flat-weights")
    shown = texts_of(notebook_page(Library(["embedded"])))
    assert 'sandbox=""' in shown and "flat-weights" in shown and "<script" not in shown


@pytest.mark.parametrize(
    ("query", "sentence"),
    [({"of": "elsewhere", "claim": "hostile"}, "no such ledger"), ({"of": "papers", "claim": "x"}, "no such claim")],
)
def test_an_address_that_leads_nowhere_says_so(papers, monkeypatch, query, sentence):
    asked(monkeypatch, **query)
    assert sentence in texts_of(notebook_page(Library(["embedded"])))


def test_no_file_outside_the_ledgers_folder_is_ever_read(papers, monkeypatch):
    secret = papers.parents[1] / "secret.ipynb"
    secret.write_text('{"cells": []}')
    (papers.parent / "notebooks" / "hostile.ipynb").unlink()
    (papers.parent / "notebooks" / "hostile.ipynb").symlink_to(secret)
    asked(monkeypatch, of="papers", claim="hostile")
    assert "no such file beside the ledger" in texts_of(notebook_page(Library(["embedded"])))


def test_a_notebook_becomes_a_page_of_text_outputs_and_pictures(papers):
    page = notebook_html(papers.parent / "notebooks" / "hostile.ipynb")
    assert "Content-Security-Policy" in page and "default-src 'none'" in page
    assert "<h1>hostile</h1>" in page and "<p>drawn</p>" in page and "\x1b" not in page
    # the one output that is HTML is kept for the frame and its policy to hold; everything else is text
    assert page.count("<script>") == 1 and 'href="javascript' not in page
    framed = in_a_frame(page, title='"><script>')
    assert framed.count("<") == framed.count("<iframe") + framed.count("</iframe") == 2


@pytest.mark.parametrize("content", ["[]", '{"cells": 1}'])
def test_what_is_no_notebook_is_refused(tmp_path, content):
    path = tmp_path / "a.ipynb"
    path.write_text(content)
    with pytest.raises(InputError, match="is no notebook"):
        notebook_html(path)


@pytest.mark.parametrize(
    "cell",
    [
        {}, {"cell_type": "code"}, {"cell_type": "code", "source": None, "outputs": [None, {}, {"data": 3}]},
        {"cell_type": "markdown", "source": ["# a\n", "b"]},
        {"cell_type": "code", "outputs": [{"data": {"image/png": 'a"><b'}}, {"output_type": "error", "traceback": 3}]},
    ],
)  # fmt: skip
def test_a_cell_of_any_shape_is_passed_over_or_shown(tmp_path, cell):
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": [cell, 7]}))
    assert "<b" not in notebook_html(path).replace("<body", "")
