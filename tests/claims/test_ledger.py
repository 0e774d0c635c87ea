"""The ledger: what was published beside what was measured, as text, Markdown, table and page, whatever the texts are."""

import html
import json
import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geonb.claims.checks import Check
from geonb.claims.ledger import DECISIONS, Ledger, LedgerRow, ledger_of, write_ledger
from geonb.claims.ledger_pages import ledger_page
from geonb.claims.ledger_pictures import CLASSES, COLOURS, figure_picture, verdict_bars
from geonb.claims.reference import PublishedFigure
from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from tests.claims.checkout import checkout, notebook, verifying

HOSTILE = "<script>alert(1)</script> | a\x1b[2J\nb [x](http://e.org) `c` $d$ \"quoted\" 'q' @someone"


def figure(**changes):
    table = {
        "claim": "f4",
        "check": "the r",
        "published": -0.51,
        "interval": None,
        "n": 47,
        "unit": "",
        "on": "T",
        "note": "",
    }
    return PublishedFigure(**{**table, **changes})


def check(value=0.2, interval=(0.1, 0.3), threshold=0.5, name="the r", decides="holds"):
    measured = Measurement(value=value, interval=interval, n=30, null=None, unit="", operator="")
    return Check.of(name, measured, ">=", threshold, decides=decides)


def row(**changes):
    table = {
        "paper": "ledger",
        "claim": "f4",
        "statement": "It predicts.",
        "published": "disproven",
        "figures": (figure(),),
        "registered": "fails",
        "decision": "fails",
        "because": "the r: 0.2.",
        "passed": True,
        "problem": "",
        "checks": (check(name="shape", decides="machinery"), check()),
        "profile": "smoke",
        "model": "embedded",
        "seconds": 3.2,
        "finished": "2026-01-01T00:00:00+00:00",
        "is_current": True,
        "link": "executed/claims/f4.ipynb",
    }
    return LedgerRow(**{**table, **changes})


class Page(HTMLParser):
    """The tags, attributes and texts of a page, with every tag closed by its own."""

    VOID = ("meta", "br")

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.texts.append(data)


def test_a_published_figure_stands_beside_the_check_that_measures_the_same():
    assert row().compared() == ((figure(), check()),)
    assert list(row().told()) == [("-0.51 (n = 47), T", "the r: 0.2 [0.1, 0.3] (n = 30) (rule: >= 0.5)")]


def test_without_a_figure_of_its_own_the_check_that_decides_is_shown():
    ((published, ours),) = row(figures=()).compared()
    assert published is None and ours == check()
    lone, decided = row(figures=(figure(check=""),)).compared()
    assert lone == (figure(check=""), None) and decided == (None, check())
    assert row(figures=(), checks=()).compared() == ()
    only = check(name="shape", decides="machinery")
    ((_, ours),) = row(figures=(), checks=(only,)).told()
    assert ours.endswith("(machinery: >= 0.5)")


def test_the_counts_are_of_the_runs_decisions_and_of_what_failed():
    rows = (
        row(),
        row(claim="a", decision="holds", passed=False, problem="no"),
        row(claim="b", decision="not run", passed=None),
    )
    ledger = Ledger(source="out", rows=rows)
    assert ledger.counts() == {"holds": 1, "fails": 1, "not run": 1}
    assert repr(ledger) == "Ledger(3 claims: 1 holds, 1 fails, 1 not run; 1 failed)"
    assert Ledger.from_json(ledger.to_json()) == ledger
    assert "✓ f4" in ledger.to_text() and "✗ a " in ledger.to_text() and "– b" in ledger.to_text()


def test_every_decision_has_a_colour_and_a_class_of_its_own():
    assert len(DECISIONS) == len(COLOURS) == len(set(COLOURS)) == len(set(CLASSES.values()))


def test_a_row_of_an_earlier_rule_says_so():
    assert "of an earlier notebook or rule" in Ledger(source="x", rows=(row(is_current=False),)).to_text()


def hostile():
    return row(
        paper=HOSTILE,
        claim=HOSTILE,
        statement=HOSTILE,
        because=HOSTILE,
        problem=HOSTILE,
        model=HOSTILE,
        figures=(figure(unit=HOSTILE, on=HOSTILE, note=HOSTILE, check=HOSTILE),),
        checks=(check(name=HOSTILE),),
        link="executed/a b\"'><script>.ipynb",
    )


def test_nothing_in_a_page_can_run_or_reach_the_network_whatever_the_texts_are():
    ledger = Ledger(source=HOSTILE, rows=(hostile(), row()))
    for text in (ledger_page(ledger), ledger.to_html()):
        page = Page(text)
        assert not {"script", "img", "iframe", "link", "object"} & set(page.tags)
        assert not [one for one in page.attributes if one[1].startswith("on") or one[1] == "src"]
        assert [value for tag, name, value in page.attributes if name == "href"] == [
            "executed/a%20b%22%27%3E%3Cscript%3E.ipynb",
            "executed/claims/f4.ipynb",
        ]
        assert "\x1b" not in text and "@import" not in text and "url(" not in text
        assert "<script>alert(1)</script>" in "".join(page.texts)
    assert "\x1b" not in ledger.to_text() and "\x1b" not in ledger.to_markdown()


def test_the_markdown_is_one_line_a_row_and_no_text_of_it_is_markup():
    lines = Ledger(source="x", rows=(hostile(),)).to_markdown().splitlines()
    (line,) = [line for line in lines if "alert" in line and line.startswith("| ✓")]
    assert len(re.findall(r"(?<!\\)\|", line)) == 10
    rest = line.replace("<br>", "").replace("**", "")
    assert not re.search(r"<\w|://|@|(?<!\\)[`$]", rest) and re.findall(r"(?<!\\)\]\(", rest) == ["]("]


def test_markdown_means_what_was_written():
    import markdown_it

    text = Ledger(source="x", rows=(hostile(),)).to_markdown()
    page = markdown_it.MarkdownIt("commonmark", {"html": False, "linkify": False}).enable("table").render(text)
    assert html.escape("<script>alert(1)</script>") in page and page.count("<a ") == 1
    assert page.count("<td") == 10 + 1


numbers = st.floats(allow_nan=True, allow_infinity=True)
pairs = st.none() | st.tuples(numbers, numbers)


limits = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=200)
@given(published=limits, ends=pairs, value=numbers, interval=pairs, threshold=limits)
def test_every_mark_of_a_picture_lies_in_it_and_is_a_number(published, ends, value, interval, threshold):
    picture = figure_picture(figure(published=published, interval=ends), check(value, interval, threshold))
    Page(picture)
    places = [float(one) for one in re.findall(r' (?:cx|x1|x2|x)="([^"]*)"', picture)]
    assert places and all(math.isfinite(one) and 0 <= one <= 260 for one in places)


@given(
    published=st.floats(0.01, 1), value=st.floats(0.01, 1), threshold=st.floats(0.01, 1), half=st.floats(0.001, 0.005)
)
def test_the_marks_stand_in_the_order_of_their_figures(published, value, threshold, half):
    picture = figure_picture(figure(published=published), check(value, (value - half, value + half), threshold))
    hollow, full = (float(one) for one in re.findall(r'<circle cx="([^"]*)"', picture))
    (rule,) = (float(one) for one in re.findall(r'x1="([^"]*)"[^>]*class="rule"', picture))
    low, high = map(float, re.findall(r'x1="([^"]*)" x2="([^"]*)"[^>]*class="ours"', picture)[0])
    assert low <= full <= high
    for first, second, a, b in ((published, value, hollow, full), (value, threshold, full, rule)):
        # a tenth of a pixel is what is written
        assert (first <= second) == (a <= b) or abs(a - b) <= 0.11


def test_figures_far_apart_stand_on_a_logarithmic_axis():
    assert ">log<" in figure_picture(figure(published=1e-6), check(1e3, None, 1))
    assert ">log<" not in figure_picture(figure(published=-1e-6), check(1e3, None, 1))
    assert figure_picture(None, None) == "" and figure_picture(None, check(math.nan, None)) == ""


def test_the_bars_are_as_long_as_the_counts():
    rows = [row(claim=str(place), decision="holds") for place in range(3)]
    rows += [row(), row(paper="other", decision="inconclusive")]
    picture = verdict_bars(Ledger(source="x", rows=tuple(rows)), standalone=True)
    width = {
        title: float(wide)
        for wide, title in re.findall(r'<rect [^>]*width="([^"]*)"[^>]*><title>([^<]*)</title>', picture)
    }
    assert set(width) == {"ledger: 3 holds", "ledger: 1 fails", "other: 1 inconclusive"}
    assert math.isclose(width["ledger: 3 holds"] + 1, 3 * (width["ledger: 1 fails"] + 1), abs_tol=0.3)


def papers_with_reference(root):
    papers = checkout(root, one=notebook(verifying("one")))
    table = {"paper": "tail", "source": "A report.", "figures": [{**figure(claim="one").to_dict()}]}
    (papers / "tail" / "reference.json").write_text(json.dumps(table))
    return papers


def test_without_runs_every_claim_stands_there_as_not_run(tmp_path):
    ledger = ledger_of(papers=papers_with_reference(tmp_path))
    (only,) = ledger.rows
    assert (only.decision, only.passed, only.link) == ("not run", None, "notebooks/claims/one.ipynb")
    assert only.figures == (figure(claim="one"),)


def test_links_lead_to_the_notebook_from_wherever_the_file_is(tmp_path):
    ledger = ledger_of(papers=papers_with_reference(tmp_path))
    (tmp_path / "site" / "deep").mkdir(parents=True)
    page, text, picture = write_ledger(
        ledger, base=tmp_path, html=tmp_path / "site/deep/ledger.html", markdown=tmp_path / "papers/ledger.md"
    )
    assert 'href="../../notebooks/claims/one.ipynb"' in page.read_text()
    assert "[open](../notebooks/claims/one.ipynb)" in text.read_text()
    assert "](ledger.svg)" in text.read_text() and picture == tmp_path / "papers/ledger.svg"
    assert ElementTree.fromstring(picture.read_text()).tag.endswith("svg")
    with pytest.raises(InputError, match="cannot be written; allowed is a file in a folder that is there"):
        write_ledger(ledger, base=tmp_path, html=tmp_path / "none" / "ledger.html")
