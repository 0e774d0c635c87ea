"""The register: what it must say, and one sentence for each way to get it wrong."""

import tomllib
from pathlib import Path

import pytest

from geonb.claims import load_claims, papers_folder
from geonb.claims.register import Register
from geonb.errors import InputError

ROOT = Path(__file__).parents[2]
ROW = {
    "id": "tail-rank",
    "statement": "The tail predicts the rank.",
    "paper": "papers/tail",
    "published": "validated",
    "verdict": "inconclusive",
    "notebook": "notebooks/claims/tail.ipynb",
    "rule": "Holds where r is at least 0.5.",
    "controls": ["a random matrix"],
    "smoke": {"profile": "smoke", "n": 3},
    "full": {"profile": "full"},
}


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def write(folder, *rows):
    lines = [line for row in rows for line in ("[[claim]]", *(f"{key} = {toml(value)}" for key, value in row.items()))]
    path = folder / "claims.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_row_is_read_as_it_stands(tmp_path):
    (claim,) = load_claims(write(tmp_path, ROW)).claims
    assert {**claim.to_dict()} == ROW and claim.part == ""


def test_the_committed_register_is_sound_and_its_notebooks_and_papers_are_there():
    register = load_claims()
    raw = tomllib.loads((ROOT / "papers" / "claims.toml").read_text(encoding="utf-8"))["claim"]
    assert [claim.id for claim in register.claims] == [row["id"] for row in raw]
    for claim in register.claims:
        assert (ROOT / claim.notebook).is_file() and (ROOT / claim.paper / "README.md").is_file(), claim.id
    assert papers_folder() == ROOT / "papers"


def test_the_parameters_of_every_claim_are_those_of_its_notebook():
    import papermill

    for claim in load_claims().claims:
        known = papermill.inspect_notebook(str(ROOT / claim.notebook))
        assert set(claim.smoke) | set(claim.full) <= set(known), claim.id


def test_a_claim_with_parts_is_found_by_its_name_and_by_one_part(tmp_path):
    parts = [{**ROW, "id": f"tail-rank/{part}"} for part in ("fit", "null")]
    register = load_claims(write(tmp_path, *parts, {**ROW, "id": "other"}))
    assert [claim.part for claim in register.of("tail-rank").claims] == ["fit", "null"]
    assert [claim.id for claim in register.of("tail-rank/null").claims] == ["tail-rank/null"]
    with pytest.raises(InputError, match="the claim 'tail' was given; the register has tail-rank, other"):
        register.of("tail")


def test_a_register_shows_its_rules_and_escapes_what_it_shows(tmp_path):
    register = load_claims(write(tmp_path, {**ROW, "statement": "<b>bold</b>"}))
    assert "at least 0.5" in register.to_text() and "a random matrix" in register.to_html()
    assert "&lt;b&gt;bold" in register.to_html() and "<b>bold" not in register.to_html()
    assert Register.from_json(register.to_json()) == register and repr(register) == "Register(1 claims: 1 inconclusive)"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"id": "Tail Rank"}, "the id is 'Tail Rank'; allowed are small letters"),
        ({"id": "a/b/c"}, "the id is 'a/b/c'"),
        (
            {"verdict": "proven"},
            "the field 'verdict' is 'proven'; allowed are holds, holds by construction, partly, ",
        ),
        ({"published": "sure"}, "the field 'published' is 'sure'; allowed are proven"),
        ({"rule": " "}, "the field 'rule' is empty; allowed is a sentence: write it before the run"),
        ({"statement": ""}, "the field 'statement' is empty"),
        ({"notebook": "../x.ipynb"}, "allowed is a path below the root"),
        ({"paper": "/papers"}, "allowed is a path below the root"),
        ({"notebook": "notebooks/x.py"}, "allowed is a path of an .ipynb file"),
        ({"controls": []}, "the field 'controls' says nothing"),
        ({"controls": [""]}, "the field 'controls' says nothing"),
        ({"smoke": {"n": 3}}, "the parameters 'smoke' need profile = \"smoke\""),
        ({"full": {"profile": "smoke"}}, "the parameters 'full' need profile = \"full\""),
        ({"full": {"profile": "full", "n": [1]}}, "the parameter 'n' of 'full' is a tuple; allowed are text, numbers"),
        ({"statement": 3}, "has 3 in the field 'statement'; allowed is a text"),
        ({"seeds": 3}, "the unknown field 'seeds'"),
    ],
)
def test_a_row_that_cannot_stand_is_a_sentence_that_names_it(tmp_path, changes, sentence):
    with pytest.raises(InputError, match=sentence) as found:
        load_claims(write(tmp_path, {**ROW, "id": "first"}, {**ROW, **changes}))
    assert "claim 2" in str(found.value) and "\n" not in str(found.value)


def test_a_missing_field_is_named(tmp_path):
    with pytest.raises(InputError, match=r"claim 1 \(tail-rank\): Claim needs the field 'rule'"):
        load_claims(write(tmp_path, {key: value for key, value in ROW.items() if key != "rule"}))


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ((ROW, ROW), "the id is there twice"),
        ((ROW, {**ROW, "id": "tail-rank/fit"}), "tail-rank is there by itself and in parts"),
        (
            ({**ROW, "id": "a/x"}, {**ROW, "id": "a/y", "full": {"profile": "full", "n": 2}}),
            "a/y has another 'full' than a/x",
        ),
    ],
)
def test_rows_that_do_not_go_together_are_a_sentence(tmp_path, rows, sentence):
    with pytest.raises(InputError, match=sentence):
        load_claims(write(tmp_path, *rows))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "has nothing at its top"),
        (b"claim = 3", "allowed is a list of"),
        (b"claim = []", "allowed is a list of"),
        (b"claim = [3]", "allowed is one JSON object"),
        (b"[[claims]]\nid = 'x'", "has claims at its top"),
        (b"[[claim]]\nid = ", "is no TOML that is read"),
        (b"\xff\xfe", "is no TOML that is read"),
    ],
)
def test_a_file_that_is_no_register_is_a_sentence(tmp_path, text, sentence):
    path = tmp_path / "claims.toml"
    path.write_bytes(text)
    with pytest.raises(InputError, match=sentence):
        load_claims(path)


def test_a_register_that_is_not_there_is_a_sentence(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="is not a file: give the path of a register"):
        load_claims(tmp_path / "none.toml")
    monkeypatch.setenv("GEONB_PAPERS", str(tmp_path))
    with pytest.raises(InputError, match=r"claims\.toml is not in .* name the folder that holds it with GEONB_PAPERS"):
        papers_folder()
    write(tmp_path, ROW)
    assert papers_folder() == tmp_path and load_claims().claims[0].id == "tail-rank"
