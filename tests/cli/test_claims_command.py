"""`geonb claims`: the register as a table, a batch with its ledger, and one sentence for each wrong word."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from geonb.claims.batch import Batch
from geonb.claims.ledger import Ledger
from geonb.claims.register import VERDICTS, Register
from geonb.cli.app import app, main
from tests.claims.checkout import add_notebook, checkout, notebook, register, row, verifying


@pytest.fixture
def papers(tmp_path, monkeypatch):
    """A checkout of two claims of two papers, and a working folder beside it."""
    for name in ("one", "two"):
        add_notebook(tmp_path, name, notebook(verifying(name)))
    found = register(tmp_path, row("one"), row("two", paper="papers/head", verdict="fails", statement="A\x1b[2Jb"))
    monkeypatch.setenv("GEONB_PAPERS", str(found))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return found


def call(*arguments):
    result = CliRunner().invoke(app, ["claims", *map(str, arguments)], standalone_mode=False)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def program(capsys, *arguments):
    """The exit code and what the program wrote, as a shell sees them."""
    with pytest.raises(SystemExit) as leave:
        main(["claims", *map(str, arguments)])
    return leave.value.code, *capsys.readouterr()


def test_the_list_is_a_table_with_one_line_a_claim(papers):
    lines = call("list").stdout.splitlines()
    assert lines[0].split() == ["claim", "our", "verdict", "published", "paper", "statement"]
    assert lines[1].split()[:4] == ["one", "holds", "validated", "tail"] and lines[2].endswith(r"A\x1b[2Jb")
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        (("two",), ["two"]),
        (("two", "one"), ["one", "two"]),
        (("--verdict", "fails"), ["two"]),
        (("--paper", "head"), ["two"]),
        (("--paper", "papers/tail"), ["one"]),
        (("one", "--verdict", "fails"), []),
    ],
)
def test_the_list_is_narrowed_by_name_verdict_and_paper(papers, arguments, ids):
    document = json.loads(call("list", *arguments, "--json").stdout)
    assert [claim.id for claim in Register.from_dict(document).claims] == ids
    assert len(call("list", *arguments).stdout.splitlines()) == 1 + len(ids)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "three"), "the claim 'three' was given; the register has one, two."),
        (("list", "--verdict", "true"), f"--verdict was given true; allowed are {', '.join(VERDICTS)}."),
        (("list", "--paper", "foot"), "--paper was given foot; the register has head, tail."),
        (("run", "three"), "the claim 'three' was given; the register has one, two."),
        (("run", "--profile", "quick"), "the profile 'quick' was given; allowed are smoke and full."),
        (("run", "--jobs", 0), "jobs was given 0; allowed is 1 or more: how many notebooks run at a time."),
        (("run", "--timeout", -1), "the time-out was given -1 s; allowed is any number above 0."),
        (("run", "--model", "embedded"), "the model embedded was given, and no notebook of one (notebooks/"),
        (("ledger", "nowhere"), "nowhere is no folder of a batch (no batch.json): make one with `geonb claims run`."),
        (("ledger", "--html", "none/ledger.html"), "none/ledger.html cannot be written; allowed is a file in a folder"),
    ],
)
def test_a_wrong_word_is_one_sentence_and_nothing_is_made(papers, capsys, arguments, said):
    code, out, error = program(capsys, *arguments)
    assert code == 2 and out == "" and error.startswith(f"geonb: {said}") and error.count("\n") == 1
    assert list((papers.parent / "here").iterdir()) == []


def test_the_ledger_of_the_papers_needs_no_run(papers):
    document = json.loads(call("ledger", "--json").stdout)
    assert [row.decision for row in Ledger.from_dict(document).rows] == ["not run", "not run"]
    assert "one" in call("ledger").stdout


@pytest.mark.slow
def test_a_run_writes_its_ledger_and_its_exit_code_is_its_verdict(papers, capsys):
    code, out, error = program(capsys, "run", "--jobs", 2, "--json")
    found = Batch.from_dict(json.loads(out))
    # the value 0.7 holds, and the second row says that it fails
    assert code == 1 and {run.plan.ids[0]: run.state for run in found.runs} == {"one": "passed", "two": "failed"}
    assert "claims/two failed: two: the register says fails, this run holds" in error and "claims-run/smoke" in error
    folder = papers.parent / "here" / "claims-run" / "smoke"
    assert {path.name for path in folder.iterdir()} >= {"ledger.html", "ledger.md", "batch.json", ".gitignore"}
    assert (folder / ".gitignore").read_text() == "*\n" and not list(papers.glob("*/results.json"))
    assert 'href="executed/claims/one.ipynb"' in (folder / "ledger.html").read_text()
    assert (folder / "executed/claims/one.ipynb").is_file()
    # what passed is asked for alone, finished already, and now recorded
    code, out, error = program(capsys, "run", "one", "--record")
    assert code == 0 and "1 notebooks in claims-run/smoke (smoke): passed" in out and "recorded: " in error
    assert [path.parent.name for path in papers.glob("*/results.json")] == ["tail"]
    code, out, _ = program(capsys, "ledger", "--json")
    assert code == 0
    assert [(r["claim"], r["decision"]) for r in json.loads(out)["rows"]] == [("one", "holds"), ("two", "not run")]
    code, out, error = program(capsys, "ledger", folder, "--html", "page.html", "--markdown", "page.md")
    assert code == 0 and "2 claims: 2 holds; 1 failed" in out and error.count("written: ") == 3
    link = "claims-run/smoke/executed/claims/one.ipynb"
    assert f'href="{link}"' in (papers.parent / "here/page.html").read_text()
    assert f"]({link})" in (papers.parent / "here/page.md").read_text()


@pytest.mark.slow
def test_control_c_keeps_what_finished_and_writes_its_ledger(tmp_path, monkeypatch):
    sleeping = notebook("import time; time.sleep(60)", verifying("second"))
    monkeypatch.setenv("GEONB_PAPERS", str(checkout(tmp_path, first=notebook(verifying("first")), second=sleeping)))
    folder = tmp_path / "out"
    command = [sys.executable, "-m", "geonb.cli", "claims", "run", "-o", str(folder)]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ.copy()
    )
    deadline = time.monotonic() + 60
    while not (folder / "runs/claims/first.json").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert process.returncode == 130 and out == "" and "\nledger: " in error and "Traceback" not in error
    assert "first" in (folder / "ledger.md").read_text() and "second" not in (folder / "ledger.md").read_text()
