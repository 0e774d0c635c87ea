"""From checks to a verdict: the order of the rule, what fails a run, and what a reader and a runner are shown."""

import itertools
import json
import os
import subprocess
import sys

import nbformat
import pytest

from geonb.claims import ClaimResult, judge, result_of, verify
from geonb.claims.checks import Check
from geonb.claims.emit import MIME
from geonb.claims.register import Claim, Register
from geonb.claims.verdict import decide
from geonb.errors import ClaimError, GeonbError, InputError


def claim(name="tail", verdict="inconclusive"):
    return Claim(
        id=name, statement="The tail <predicts>.", paper="papers/tail", published="validated", verdict=verdict,
        notebook="notebooks/claims/tail.ipynb", rule="Holds where r is at least 0.5.", controls=("noise",),
        smoke={"profile": "smoke"}, full={"profile": "full"},
    )  # fmt: skip


def register(*claims):
    return Register(claims=claims or (claim(),))


def met(use, part=""):
    return Check.of(f"{use} met", 0, "<=", 1, part=part, decides=use)


def unmet(use, part=""):
    return Check.of(f"{use} unmet", 2, "<=", 1, part=part, decides=use)


def unknown(use, part=""):
    return Check.of(f"{use} unknown", None, "<=", 1, part=part, decides=use)


@pytest.mark.parametrize(
    ("checks", "decision"),
    [
        ([met("machinery")], "machinery only"),
        ([met("machinery"), met("evidence")], "machinery only"),
        ([met("holds")], "holds"),
        ([met("holds"), met("holds"), unmet("refuted")], "holds"),
        ([met("construction"), met("construction")], "holds by construction"),
        ([met("construction"), met("holds")], "holds"),
        ([unmet("construction")], "fails"),
        ([unknown("construction")], "inconclusive"),
        ([met("holds"), unmet("holds"), unmet("refuted")], "partly"),
        ([unmet("holds")], "fails"),
        ([met("holds"), met("refuted")], "fails"),
        ([unknown("holds"), met("refuted")], "fails"),
        ([met("holds"), unknown("holds")], "inconclusive"),
        ([met("holds"), unknown("refuted")], "inconclusive"),
        ([met("holds"), unmet("evidence")], "inconclusive"),
        ([met("holds"), unknown("evidence")], "inconclusive"),
        ([unmet("holds"), met("refuted"), unmet("evidence")], "inconclusive"),
        ([met("holds"), unmet("machinery")], "inconclusive"),
        ([met("holds"), unknown("machinery")], "inconclusive"),
    ],
)
def test_the_rule_in_its_order(checks, decision):
    for order in itertools.permutations(checks):
        assert decide(order)[0] == decision
    assert judge("tail", checks, profile="smoke", register=register()).verdicts[0].decision == decision


@pytest.mark.parametrize(
    ("registered", "checks", "passes"),
    [
        # a refuted claim passes when its refutation reproduces, and only then
        ("fails", [unmet("holds")], True),
        ("fails", [met("holds")], False),
        ("holds", [met("holds")], True),
        ("holds", [unmet("holds")], False),
        ("holds", [unmet("holds"), unmet("refuted")], False),
        ("partly", [unmet("holds"), unmet("refuted")], True),
        ("inconclusive", [met("holds")], True),
        ("inconclusive", [unmet("holds")], True),
        ("inconclusive", [unmet("holds"), unmet("evidence")], True),
        # what the register says is decided must be decided again
        ("holds", [met("holds"), unmet("evidence")], False),
        ("holds", [unknown("holds")], False),
        ("inconclusive", [met("machinery")], False),
        ("inconclusive", [met("holds"), unmet("machinery")], False),
        ("holds", [met("holds"), unknown("machinery")], False),
    ],
)
def test_a_full_run_fails_where_it_contradicts_the_register(registered, checks, passes):
    result = judge("tail", checks, register=register(claim(verdict=registered)))
    assert result.passed is passes and bool(result.problems) is not passes


@pytest.mark.parametrize("registered", ["holds", "fails", "partly", "inconclusive"])
def test_a_smoke_run_may_leave_open_what_the_register_decides_but_must_work(registered):
    known = register(claim(verdict=registered))
    assert judge("tail", [met("machinery")], profile="smoke", register=known).passed
    assert judge("tail", [met("holds"), unmet("evidence")], profile="smoke", register=known).passed
    assert not judge("tail", [unmet("machinery")], profile="smoke", register=known).passed
    assert not judge("tail", [unknown("machinery")], profile="smoke", register=known).passed


def test_parts_are_judged_apart_and_one_that_fails_fails_the_run():
    known = register(claim("tail/fit", "holds"), claim("tail/null", "holds"))
    result = judge("tail", [met("holds", "fit"), unmet("holds", "null")], register=known)
    assert [one.decision for one in result.verdicts] == ["holds", "fails"]
    assert result.problems == (
        "tail/null: the register says holds, this run fails: holds unmet: 2, which is not <= 1.",
    )
    alone = judge("tail/fit", [met("holds")], register=known)
    assert alone.passed and [one.claim for one in alone.verdicts] == ["tail/fit"]
    silent = judge("tail", [met("machinery", "fit")], profile="smoke", register=known)
    assert [one.decision for one in silent.verdicts] == ["machinery only"] * 2


@pytest.mark.parametrize(
    ("checks", "profile", "sentence"),
    [
        ([], "full", "tail was given no check; allowed is at least one"),
        ([met("holds", "fit")], "full", "is of the part 'fit'; tail has ''"),
        ([met("holds")], "quick", "the profile 'quick' was given; allowed are smoke and full"),
        ([met("refuted")], "full", "can refute, and no check can hold"),
    ],
)
def test_what_cannot_be_judged_is_a_sentence(checks, profile, sentence):
    with pytest.raises(InputError, match=sentence):
        judge("tail", checks, profile=profile, register=register())


def test_a_result_shows_each_check_and_goes_through_json():
    result = judge("tail", [met("holds"), unmet("refuted")], register=register())
    assert ClaimResult.from_json(result.to_json()) == result
    assert "✓ holds met: 0 <= 1  [needed to hold]" in str(result) and "[would refute]" in str(result)
    assert "&lt;predicts&gt;" in result.to_html() and "<predicts>" not in result.to_html()
    assert repr(result) == "ClaimResult(tail, full: tail holds; passed)"


# -- the last cell of a notebook --------------------------------------------------------------------------------------


def test_a_passing_run_prints_itself_and_writes_its_result(tmp_path, capsys):
    target = tmp_path / "verdict.json"
    verify("tail", [met("holds")], register=register(), output=target)
    expected = judge("tail", [met("holds")], register=register())
    assert ClaimResult.load(target) == expected and str(expected) in capsys.readouterr().out


def test_a_failing_run_shows_and_writes_before_it_raises(tmp_path, capsys, monkeypatch):
    target = tmp_path / "verdict.json"
    monkeypatch.setenv("GEONB_VERDICT", str(target))
    with pytest.raises(ClaimError, match=r"^tail: machinery unmet: 2, which is not <= 1\. \(and 1 more\)$") as found:
        verify("tail", [unmet("machinery"), unknown("machinery"), met("holds")], register=register())
    assert isinstance(found.value, AssertionError) and isinstance(found.value, GeonbError)
    assert not ClaimResult.load(target).passed and "tail (full): failed" in capsys.readouterr().out


def test_a_result_replaces_one_of_its_own_claim_and_nothing_else(tmp_path):
    target = tmp_path / "verdict.json"
    for check in (met("holds"), unmet("holds")):
        verify("tail", [check], register=register(), output=target)
    assert ClaimResult.load(target).verdicts[0].decision == "fails"
    with pytest.raises(InputError, match="is there and holds no result of other"):
        verify("other", [met("holds")], register=register(claim("other")), output=target)
    own = tmp_path / "notes.txt"
    own.write_text("mine")
    with pytest.raises(InputError, match="is there and holds no result of tail"):
        verify("tail", [met("holds")], register=register(), output=own)
    assert own.read_text() == "mine"
    with pytest.raises(InputError, match="is no folder; allowed is a file in a folder that is there"):
        verify("tail", [met("holds")], register=register(), output=tmp_path / "none" / "verdict.json")


CELL = """
from geonb.claims import Check, load_claims, verify
verify("tail", [Check.of("r", {r}, ">=", 0.5, decides="holds")], register=load_claims("claims.toml"))
"""


def executed(folder, r, verdict):
    """A notebook with one cell, run by papermill as a batch would."""
    import papermill

    from tests.claims.test_register import ROW, write

    write(folder, {**ROW, "id": "tail", "verdict": verdict})
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL.format(r=r))])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    source, target = folder / "in.ipynb", folder / "out.ipynb"
    nbformat.write(book, source)
    try:
        papermill.execute_notebook(str(source), str(target), cwd=str(folder), progress_bar=False, kernel_name="python3")
    except papermill.PapermillExecutionError as error:
        return target, error
    return target, None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("r", "decision", "passes"), [(0.7, "holds", True), (0.2, "fails", False)])
def test_a_runner_finds_the_result_in_the_executed_notebook_also_where_it_failed(tmp_path, r, decision, passes):
    target, error = executed(tmp_path, r, verdict="holds")
    result = result_of(target)
    assert result.passed is passes and result.verdicts[0].decision == decision
    assert (error is None) is passes
    if error is not None:
        assert error.ename == "ClaimError"


def notebook(folder, *outputs, after=()):
    path = folder / "made.ipynb"
    cells = [{"cell_type": "markdown", "source": ""}, {"cell_type": "code", "outputs": list(outputs)}, *after]
    path.write_text(json.dumps({"cells": cells}))
    return path


def test_the_last_result_of_the_last_code_cell_counts(tmp_path):
    results = [judge("tail", [check], register=register()) for check in (met("holds"), unmet("holds"))]
    outputs = [{"data": {MIME: one.to_dict()}} for one in results]
    assert result_of(notebook(tmp_path, {"text": "x"}, *outputs)) == results[1]
    assert MIME in results[0]._repr_mimebundle_()


def test_what_a_run_showed_before_it_broke_is_no_result(tmp_path):
    shown = {"data": {MIME: judge("tail", [met("holds")], register=register()).to_dict()}}
    note = {"cell_type": "markdown", "source": "the end"}
    assert result_of(notebook(tmp_path, shown, after=[note])).passed
    with pytest.raises(InputError, match="in its last code cell"):
        result_of(notebook(tmp_path, shown, after=[{"cell_type": "code", "outputs": []}, note]))


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"cells": 3}', '{"cells": [3, {"cell_type": "code", "outputs": [4, {"data": 5}]}]}']
)
def test_a_file_without_a_result_is_a_sentence(tmp_path, text):
    path = tmp_path / "made.ipynb"
    path.write_text(text)
    with pytest.raises(InputError, match="holds no result of a claim"):
        result_of(path)


def test_a_file_that_is_no_notebook_is_a_sentence(tmp_path):
    (tmp_path / "x.ipynb").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        result_of(tmp_path / "x.ipynb")
    with pytest.raises(InputError, match="is not a file: give the path of an executed notebook"):
        result_of(tmp_path / "none.ipynb")


def test_the_floor_of_claims_imports_nothing_heavy():
    heavy = "torch scipy transformers IPython peft plotly".split()
    code = f"import geonb.claims as c, sys; c.verify, c.load_claims; print([n for n in {heavy!r} if n in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": ""}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout.strip() == "[]"
