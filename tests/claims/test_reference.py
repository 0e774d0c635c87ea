"""Published figures are checked field by field, with the file and the figure in the sentence."""

import json

import pytest

from geonb.claims import load_reference, load_references
from geonb.claims.reference import Reference
from geonb.errors import InputError
from tests.claims.checkout import checkout, notebook, verifying

FIGURE = {
    "claim": "one",
    "check": "the r",
    "published": 0.5,
    "interval": [0.4, 0.6],
    "n": 47,
    "unit": "",
    "on": "SmolLM-135M",
    "note": "",
}


def write(root, figure=None, **changes):
    papers = checkout(root, one=notebook(verifying("one")))
    table = {"paper": "tail", "source": "A report of 2026.", "figures": [figure or FIGURE], **changes}
    (papers / "tail" / "reference.json").write_text(json.dumps(table), encoding="utf-8")
    return papers


def load(papers):
    (found,) = load_references(papers)
    return found


def test_a_figure_is_read_as_it_stands(tmp_path):
    found = load(write(tmp_path))
    assert found.to_dict()["figures"] == [FIGURE] and Reference.from_json(found.to_json()) == found
    assert "one: 0.5 [0.4, 0.6] (n = 47), SmolLM-135M" in found.to_text()


def test_what_is_not_known_is_null(tmp_path):
    (figure,) = load(write(tmp_path, {**FIGURE, "interval": None, "n": None})).figures
    assert figure.told() == "0.5"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"paper": "other"}, "is of the paper 'other'; allowed is 'tail', its folder's name"),
        ({"source": " "}, "the field 'source' is empty; allowed is a sentence"),
        ({"extra": 1}, "was given the unknown field 'extra'"),
        ({"figures": {}}, "in the field 'figures'; allowed is a list"),
        ({"figure": {**FIGURE, "claim": "two"}}, "figure 1: the claim 'two' is not in the register"),
        ({"figure": {**FIGURE, "claim": "\x1b[2J"}}, "is not in the register"),
        ({"figure": {**FIGURE, "published": "much"}}, "in the field 'published'; allowed is a number"),
        ({"figure": {**FIGURE, "published": "inf"}}, "figure 1: a number of one is not finite"),
        (
            {"figure": {**FIGURE, "interval": [0.6, 0.4]}},
            "the interval of one is [0.6, 0.4]; allowed is the lower end first",
        ),
        ({"figure": {**FIGURE, "interval": [0.6]}}, "allowed is a list of 2"),
        ({"figure": {**FIGURE, "n": 0}}, "n of one is 0; allowed is 1 or more"),
        ({"figure": {**FIGURE, "n": 1.5}}, "in the field 'n'; allowed is a whole number"),
        ({"figure": {"claim": "one"}}, "needs the field 'check'"),
    ],
)
def test_a_wrong_field_is_told_with_its_file(tmp_path, changes, said):
    papers = write(tmp_path, **changes)
    with pytest.raises(InputError) as told:
        load(papers)
    assert said in str(told.value) and "reference.json" in str(told.value) and "\x1b" not in str(told.value)


def test_a_paper_without_figures_is_told(tmp_path):
    papers = write(tmp_path)
    (papers / "tail" / "reference.json").unlink()
    assert load_references(papers) == ()
    with pytest.raises(InputError, match=r"reference.json is not a file: a paper's published figures stand there"):
        load_reference(papers / "tail")


def test_what_it_shows_is_escaped(tmp_path):
    found = load(write(tmp_path, {**FIGURE, "note": "<b>\x1b[2J"}, source="<script>"))
    assert "\x1b" not in str(found) and "<script>" not in found.to_html() and "<b>" not in found.to_html()
