"""A batch runs real notebooks in real kernels: it checks all before the first, survives what fails, and resumes."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from geonb.claims.batch import Batch, batch_folder, claim_events, run_claims, runs_of
from geonb.claims.ledger import ledger_of
from geonb.claims.recorded import load_results, record_runs
from geonb.claims.register import load_claims
from geonb.errors import InputError
from tests.claims.checkout import add_notebook, checkout, notebook, register, row, verifying
from tests.tiny import tiny_model

RAISES = "raise ValueError('no \\x1b[2J data <b>')"
SLEEPS = "import time\nprint('asleep', flush=True)\ntime.sleep(600)"
# the value 0.3 is below the rule's 0.5, so the claim fails against a register that says it holds
LOW = 'profile = "smoke"\nvalue = 0.3'


def kinds(events):
    return [(event.kind, event.name) for event in events]


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """One batch of every kind of ending, two at a time; what it left in its folder is read by several tests."""
    root = tmp_path_factory.mktemp("checkout")
    papers = checkout(
        root,
        holds=notebook("import sys; print('to stderr', file=sys.stderr); value", verifying("holds")),
        contradicts=notebook(verifying("contradicts"), parameters=LOW),
        raises=notebook(RAISES, verifying("raises")),
        silent=notebook(verifying("silent") + "\nimport os; os.remove(os.environ['GEONB_VERDICT']); os._exit(3)"),
    )
    events = []
    found = run_claims(papers=papers, jobs=2, output=root / "out", progress=events.append)
    return root, papers, found, events


@pytest.mark.slow
def test_each_ending_has_its_state_and_its_reason_and_stops_no_other(batch):
    _, _, found, _ = batch
    states = {run.plan.ids[0]: (run.state, run.problem) for run in found.runs}
    assert states["holds"] == ("passed", "")
    assert (
        states["contradicts"][0] == "failed" and "the register says holds, this run fails" in states["contradicts"][1]
    )
    assert states["raises"] == ("broke", r"code cell 2 raised ValueError: no \x1b[2J data <b>")
    assert states["silent"][0] == "broke" and states["silent"][1]
    assert found.verdict == "failed" and "1 of 4 notebooks passed" in found.summary()
    assert Batch.from_json(found.to_json()) == found


@pytest.mark.slow
def test_no_more_than_jobs_run_at_a_time_and_every_start_has_its_end(batch):
    _, _, found, events = batch
    running, most = set(), 0
    for event in events[1:]:
        if event.kind == "started":
            running.add(event.name)
        else:
            running.remove(event.name)
        most = max(most, len(running))
    assert events[0].kind == "planned" and events[0].total == len(found.runs) == 4 and not running and most == 2
    assert [event.done for event in events if event.kind == "finished"] == [1, 2, 3, 4]


@pytest.mark.slow
def test_what_each_run_was_made_with_is_kept(batch):
    _, _, found, _ = batch
    run = next(run for run in found.runs if run.plan.ids == ("holds",))
    assert run.environment.python == ".".join(map(str, sys.version_info[:3])) and run.environment.threads
    assert set(run.environment.libraries) >= {"numpy", "torch"} and 0 < run.seconds < 120
    assert run.plan.parameters == {"profile": "smoke"} and run.plan.model == run.plan.model_hash == ""


@pytest.mark.slow
def test_executed_notebooks_are_kept_with_the_traceback_of_those_that_failed(batch):
    root, _, found, _ = batch
    kept = {
        run.plan.ids[0]: json.loads((root / "out" / run.executed).read_text()) for run in found.runs if run.executed
    }
    assert {"holds", "contradicts", "raises"} <= set(kept)

    def outputs(name):
        return [output for cell in kept[name]["cells"] for output in cell.get("outputs", [])]

    assert any(output.get("ename") == "ValueError" for output in outputs("raises"))
    assert any(output.get("ename") == "ClaimError" for output in outputs("contradicts"))
    assert "to stderr" not in json.dumps(outputs("holds"))
    # nothing that only a kernel or geonb could show, and nothing of the folder that it ran in
    shown = {kind for name in kept for output in outputs(name) for kind in output.get("data", {})}
    assert shown <= {"text/plain", "text/html", "image/svg+xml", "image/png"}
    assert "geonb-claim-" not in json.dumps(kept["holds"]) and kept["holds"]["metadata"].keys() == {
        "kernelspec",
        "language_info",
    }


@pytest.mark.slow
def test_no_kernel_is_left(batch):
    mine = psutil.Process().children(recursive=True)
    assert not [
        one for one in mine if "ipykernel" in " ".join(one.cmdline()) or "claims.execute" in " ".join(one.cmdline())
    ]


@pytest.mark.slow
def test_what_passed_or_failed_is_kept_and_what_broke_is_run_again(batch):
    root, papers, _, _ = batch
    events = list(claim_events(["holds", "contradicts", "raises"], papers=papers, output=root / "out"))
    assert kinds(events) == [
        ("planned", ""),
        ("kept", "claims/holds"),
        ("kept", "claims/contradicts"),
        ("started", "claims/raises"),
        ("finished", "claims/raises"),
    ]


@pytest.mark.slow
def test_the_results_are_recorded_for_the_paper_and_a_broken_run_replaces_nothing(batch):
    root, papers, found, _ = batch
    (path,) = record_runs(found.runs, papers=papers, register=load_claims(papers / "claims.toml"))
    results = load_results(papers / "tail").results
    assert path == papers.resolve() / "tail" / "results.json"
    assert [(one.claim, one.decision, one.passed) for one in results] == [
        ("holds", "holds", True),
        ("contradicts", "fails", False),
    ]
    assert results[0].checks[0].measured == 0.7 and str(root) not in path.read_text()
    before = path.read_text()
    record_runs(
        [run for run in found.runs if run.state == "broke"], papers=papers, register=load_claims(papers / "claims.toml")
    )
    assert path.read_text() == before
    ledger = ledger_of(papers=papers)
    assert [row.decision for row in ledger.rows] == ["holds", "fails", "not run", "not run"]
    assert "4 claims: 1 holds, 1 fails, 2 not run; 1 failed" in ledger.summary()


@pytest.mark.slow
def test_a_notebook_that_takes_too_long_is_ended_and_says_so_where_it_stood(tmp_path):
    papers = checkout(tmp_path, sleeps=notebook("'first'", SLEEPS, verifying("sleeps")))
    # long enough for a kernel to start on a busy machine
    (run,) = run_claims(papers=papers, output=tmp_path / "out", timeout=20).runs
    assert (run.state, run.problem) == ("timed out", "it was ended after 20 s, which is its time-out.")
    assert 20 <= run.seconds < 40 and run.results == ()
    cells = json.loads((tmp_path / "out" / run.executed).read_text())["cells"]
    assert [output["output_type"] for cell in cells for output in cell["outputs"]] == ["execute_result", "error"]
    assert not is_kernel_among(psutil.Process().children(recursive=True))


def tiny(root, count=1):
    return checkout(root, **{f"n{place}": notebook(verifying(f"n{place}")) for place in range(count)})


@pytest.mark.slow
def test_a_changed_notebook_rule_or_wish_is_run_again_and_a_changed_output_is_not(tmp_path):
    papers = tiny(tmp_path)

    def ran(**options):
        return [e.kind for e in claim_events(papers=papers, output=tmp_path / "out", **options)][-1] == "finished"

    assert ran() and not ran()
    data = notebook(verifying("n0"))
    data["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x"}]
    add_notebook(tmp_path, "n0", data)
    assert not ran()
    assert ran(again=True)
    register(tmp_path, row("n0", rule="Holds where r is at least 0.6."))
    assert ran()
    add_notebook(tmp_path, "n0", notebook("1 + 1", verifying("n0")))
    assert ran() and not ran()


def is_kernel_among(processes):
    for one in processes:
        try:
            if "ipykernel" in " ".join(one.cmdline()):
                return True
        except psutil.NoSuchProcess:  # gone meanwhile
            continue
    return False


@contextmanager
def running_batch(tmp_path, papers):
    """A batch in another process whose first notebook has finished and whose second sleeps, with all its processes."""
    script = (
        f"from geonb.claims import run_claims; run_claims(papers={str(papers)!r}, output={str(tmp_path / 'out')!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            children = psutil.Process(process.pid).children(recursive=True)
            if (tmp_path / "out/runs/claims/first.json").exists() and is_kernel_among(children):
                break
            time.sleep(0.2)
        else:
            raise AssertionError("the batch did not come as far as its second notebook")
        yield process, children
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_batch_ends_its_notebooks_keeps_what_finished_and_goes_on(tmp_path, how):
    papers = checkout(tmp_path, first=notebook(verifying("first")), second=notebook(SLEEPS, verifying("second")))
    with running_batch(tmp_path, papers) as (process, children):
        with pytest.raises(InputError, match="is being filled by another process"):
            run_claims(papers=papers, output=tmp_path / "out")
        os.kill(process.pid, how)
        process.wait(timeout=20)
        assert not psutil.wait_procs(children, timeout=15)[1]
    assert [run.plan.name for run in runs_of(tmp_path / "out")] == ["claims/first"]
    add_notebook(tmp_path, "second", notebook(verifying("second")))
    events = list(claim_events(papers=papers, output=tmp_path / "out"))
    assert kinds(events)[1:] == [
        ("kept", "claims/first"),
        ("started", "claims/second"),
        ("finished", "claims/second"),
    ]
    assert events[-1].run is not None and events[-1].run.state == "passed"


@pytest.mark.slow
def test_leaving_the_loop_ends_the_notebook_that_runs(tmp_path):
    papers = checkout(tmp_path, sleeps=notebook(SLEEPS, verifying("sleeps")))
    events = claim_events(papers=papers, output=tmp_path / "out")
    assert next(events).kind == "planned" and next(events).kind == "started"
    children = psutil.Process().children(recursive=True)
    assert children
    events.close()
    assert not psutil.wait_procs(children, timeout=5)[1]
    assert runs_of(tmp_path / "out") == ()


@pytest.mark.slow
def test_one_notebook_judges_several_claims_and_the_parts_of_one(tmp_path):
    add_notebook(tmp_path, "both", notebook(verifying("a", "b")))
    checks = ", ".join(f"claims.Check.of('r', value, '>=', 0.5, part={part!r}, decides='holds')" for part in "xy")
    source = f"from geonb import claims\nclaims.verify('c', [{checks}], profile=profile)"
    add_notebook(tmp_path, "parts", notebook(source))
    papers = register(tmp_path, row("a", "both"), row("b", "both"), row("c/x", "parts"), row("c/y", "parts"))
    found = run_claims(["b", "c/y"], papers=papers, output=tmp_path / "out", jobs=2)
    assert [(run.plan.ids, run.state, sorted(run.verdicts())) for run in found.runs] == [
        (("a", "b"), "passed", ["a", "b"]),
        (("c",), "passed", ["c/x", "c/y"]),
    ]
    ledger = ledger_of(tmp_path / "out", papers=papers)
    assert [(row.claim, row.decision, row.link) for row in ledger.rows] == [
        ("a", "holds", "executed/claims/both.ipynb"),
        ("b", "holds", "executed/claims/both.ipynb"),
        ("c/x", "holds", "executed/claims/parts.ipynb"),
        ("c/y", "holds", "executed/claims/parts.ipynb"),
    ]


@pytest.mark.slow
def test_the_full_profile_runs_on_a_model_in_a_folder_from_another_folder(tmp_path, tmp_path_factory, monkeypatch):
    model = tiny_model(tmp_path_factory)
    parameters = 'profile = "smoke"\nmodel = "embedded"'
    judged = verifying("one", value="float((Path(model) / 'config.json').is_file())")
    add_notebook(tmp_path, "one", notebook(f"from pathlib import Path\n{judged}", parameters=parameters))
    papers = register(tmp_path, row("one"))
    monkeypatch.chdir(model.parent)
    found = run_claims(papers=papers, output=tmp_path / "out", profile="full", model=model.name)
    assert found.verdict == "passed" and found.runs[0].plan.model_hash
    (path,) = record_runs(found.runs, papers=papers, register=load_claims(papers / "claims.toml"))
    # which model it was, and not where it lay
    (kept,) = load_results(path.parent).results
    assert (kept.profile, kept.model, kept.parameters["model"]) == ("full", model.name, model.name)
    assert str(model.parent) not in path.read_text()


def test_the_default_folder_is_one_for_each_profile_and_model():
    assert batch_folder(None, "smoke", None) == Path("claims-run/smoke")
    assert batch_folder(None, "full", "/models/llama 1m/") == Path("claims-run/full-llama-1m")
    assert batch_folder("mine", "full", "x") == Path("mine")
