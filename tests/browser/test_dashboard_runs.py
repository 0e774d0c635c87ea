"""The dashboard's runs page, in a real browser: a run that is finished, live, deleted, cut, beside another, or hostile."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from urllib.parse import urlencode

import pytest
from playwright.sync_api import expect

from tests.browser import runs


@pytest.fixture(scope="session")
def site(dashboard, trained):
    return dashboard(trained.parent)


@pytest.fixture
def trace(watched, site, trained):
    """The view of the finished run."""
    watched.goto(f"{site}/runs?run=tiny")
    found = watched.locator(".gn-mass-trace")
    expect(found).to_have_attribute("data-steps", str(runs.STEPS))
    return found


def evaluations_of(run):
    events = [json.loads(line) for line in (run / "trace.jsonl").read_text().splitlines()]
    return [event for event in events if event["kind"] == "eval"]


def points(path):
    return len(re.findall("[ML]", path.get_attribute("d")))


# -- a finished run -----------------------------------------------------------------------------------------------------


def test_a_finished_run_shows_its_steps_evaluations_lights_gates_and_samples(trace, trained):
    evaluations = evaluations_of(trained)
    verification = json.loads((trained / "verification.json").read_text())
    samples = json.loads((trained / "samples.json").read_text())["samples"]
    expect(trace.locator(".gn-chip").first).to_have_text("done")
    for series in ("ceiling", "sps", "weyl", "step", "loss"):
        assert points(trace.locator(f'path[data-series="{series}"]')) == runs.STEPS
    # validation and held-out base text
    expect(trace.locator("circle.gn-evaluation")).to_have_count(2 * len(evaluations))
    assert {str(step) for step in range(runs.STEPS + 1)} <= set(trace.locator("text.gn-tick").all_text_contents())
    lights = trace.locator(".gn-light")
    assert lights.all_inner_texts() == [f"{one['name']}: {one['status']}" for one in evaluations[-1]["conditions"]]
    gates = trace.locator(".gn-gate")
    assert gates.all_inner_texts() == [gate["name"] for gate in verification["gates"]]
    assert [gate.get_attribute("data-status") for gate in gates.all()] == [
        gate["status"] for gate in verification["gates"]
    ]
    expect(trace.locator(".gn-gates")).to_contain_text(f"Verification {verification['verdict']}")
    trace.locator(".gn-samples summary").click()
    cells = trace.locator(".gn-samples tbody td")
    expect(cells.first).to_be_visible()
    assert cells.all_text_contents() == [row[key] for row in samples for key in ("prompt", "base", "adapted")]


def test_scrubbing_the_slider_reads_out_another_step(trace):
    slider, readout = trace.get_by_label("Scrub through the steps"), trace.locator(".gn-readout")
    expect(readout).to_contain_text(f"step {runs.STEPS} · loss")
    last = readout.inner_text()
    slider.fill("0")
    expect(readout).to_contain_text("step 1 · loss")
    expect(trace.locator("line.gn-cursor")).to_have_count(1)
    slider.fill("700")
    expect(readout).to_contain_text("step 3 · loss")
    slider.fill("1000")
    expect(readout).to_have_text(last)
    expect(trace.locator("line.gn-cursor")).to_have_count(0)


def test_a_replay_starts_from_the_first_step_and_pauses(trace):
    button, path = trace.locator("button", has_text="Replay"), trace.locator("path[data-series=loss]")
    button.click()
    pause = trace.locator("button", has_text="Pause")
    expect(pause).to_be_visible()
    expect(trace.locator(".gn-readout")).to_contain_text("step 2 · loss")
    assert points(path) < runs.STEPS
    pause.click()
    expect(button).to_be_visible()
    readout = trace.locator(".gn-readout").inner_text()
    assert f"step {runs.STEPS} " not in readout
    # two frames later nothing has moved on
    trace.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert trace.locator(".gn-readout").inner_text() == readout


def test_the_card_of_the_adapter_appears_under_the_trace(trace, watched, trained):
    card = watched.locator(".gn-adapter-card")
    expect(card.locator("[data-verdict]")).to_be_visible()
    names = {row.get_attribute("data-name") for row in card.locator("g.gn-row").all()}
    plan = json.loads((trained / "plan.json").read_text())
    assert len(names) == sum(target["chosen"] for target in plan["targets"]) > 10
    expect(card.locator(".gn-name")).to_have_text("adapter")
    expect(card).to_contain_text("rank used of declared")


# -- a live run ---------------------------------------------------------------------------------------------------------


def test_two_browsers_watch_a_run_in_another_process_and_one_stops_it(watched, new_context, site, trained):
    folder = trained.parent / "live"
    other = new_context().new_page()
    errors = []
    other.on("pageerror", lambda error: errors.append(str(error)))
    pages = (watched, other)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    watched.goto(f"{site}/runs?run=tiny")
    expect(watched.locator(".gn-mass-trace")).to_be_visible()
    process = subprocess.Popen([sys.executable, "-c", runs.LIVE, str(folder)], env=environment)
    try:
        # the list gains the row by itself
        watched.locator('tr[data-run="live"] a').click(timeout=90_000)
        other.goto(f"{site}/runs?run=live")
        traces = [page.locator(".gn-mass-trace") for page in pages]
        for trace in traces:
            expect(trace).to_have_attribute("data-steps", re.compile("^[1-9]"), timeout=90_000)
            seen = trace.get_attribute("data-steps")
            expect(trace).not_to_have_attribute("data-steps", seen)
            assert int(trace.get_attribute("data-steps")) > int(seen)
        for page, trace in zip(pages, traces, strict=True):
            expect(trace.locator(".gn-chip").first).to_have_text("training")
            expect(page.locator('tr[data-run="live"] .gn-chip')).to_have_text("training")
        traces[1].locator("button", has_text="Stop").click()
        for page, trace in zip(pages, traces, strict=True):
            expect(trace.locator(".gn-chip").first).to_have_text("stopped", timeout=90_000)
            expect(trace.locator("button.gn-stop")).to_be_hidden()
            expect(page.locator('tr[data-run="live"] .gn-chip')).to_have_text("stopped")
        assert process.wait(60) == 0
    finally:
        process.kill()
    assert errors == []
    assert (folder / "checkpoint" / "state.safetensors").is_file()
    assert json.loads((folder / "status.json").read_text())["state"] == "stopped"
    assert 0 < int(traces[0].get_attribute("data-steps")) < 400


# -- runs that go away, or are not whole --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state",
    [
        "training",
        "done",
    ],
)
def test_a_run_that_is_deleted_while_it_is_shown_is_told(watched, site, trained, state):
    folder = runs.copied(trained, f"leaving-{state}")
    if state == "training":
        runs.as_if_training(folder)
    watched.goto(f"{site}/runs?run={folder.name}")
    chip = watched.locator(".gn-mass-trace .gn-chip").first
    expect(chip).to_have_text(state)
    expect(watched.locator(f'tr[data-run="{folder.name}"]')).to_have_count(1)
    shutil.rmtree(folder)
    expect(watched.locator(f'tr[data-run="{folder.name}"]')).to_have_count(0)
    expect(watched.locator('tr[data-run="tiny"]')).to_have_count(1)
    expect(chip).to_have_text("gone", timeout=5000)
    expect(watched.locator(".gn-mass-trace")).to_contain_text("is not there any more")
    expect(watched.locator("button.gn-stop")).to_be_hidden()
    watched.reload()
    expect(watched.get_by_text(f"{folder.name} is not among the runs")).to_be_visible()


def test_a_half_written_run_is_listed_as_unreadable_and_its_pages_are_sentences(watched, site, trained):
    folder = runs.cut_in_the_middle(runs.copied(trained, "cut"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        watched.goto(f"{site}/runs?run=cut")
        row = watched.locator('tr[data-run="cut"]')
        expect(row.locator(".gn-chip")).to_have_text("unreadable")
        expect(row).to_contain_text("half-written, or on its way out")
        expect(watched.get_by_text("cut cannot be shown: ")).to_be_visible()
        expect(watched.locator(".gn-mass-trace")).to_have_count(0)
        expect(watched.locator('tr[data-run="tiny"] .gn-chip')).to_have_text("done")
        watched.goto(f"{site}/plan?run=cut")
        expect(watched.get_by_text("The plan of cut cannot be read")).to_be_visible()


def test_an_unknown_run_is_told_in_a_sentence_beside_one_that_is_there(watched, site):
    watched.goto(f"{site}/runs?{urlencode({'run': runs.IMAGE + 'nobody'})}")
    expect(watched.get_by_text(f"{runs.IMAGE}nobody is not among the runs")).to_be_visible()
    expect(watched.locator(".gn-mass-trace")).to_be_visible()
    assert watched.evaluate("window.pwned") is None


# -- runs side by side --------------------------------------------------------------------------------------------------


def test_two_ticked_runs_are_compared_with_their_intervals(watched, site, trained):
    folder = runs.worse(runs.copied(trained, "worse"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        watched.goto(f"{site}/runs?run=tiny")
        button = watched.locator(".gn-run-list button")
        expect(button).to_be_disabled()
        watched.get_by_label("compare worse", exact=True).check()
        expect(button).to_have_text("Compare 2 runs")
        button.click()
        expect(watched).to_have_url(re.compile("run=tiny&run=worse"))
        view = watched.locator(".gn-run-comparison")
        labels = view.locator("[data-run]")
        expect(labels).to_have_count(2)
        assert [label.get_attribute("data-run") for label in labels.all()] == ["tiny", "worse"]
        for series in ("tiny validation", "tiny retention", "worse validation", "worse retention"):
            assert points(view.locator(f'path[data-series="{series}"]')) == len(evaluations_of(trained))
        # both runs, on the task and on held-out base text
        expect(view.locator(".gn-forest .gn-interval")).to_have_count(4)
        task, retention = view.locator("tr[data-verdict]").all()
        expect(task.locator("td").first).to_have_text("worse − tiny")
        assert task.get_attribute("data-verdict") == "first is lower"
        expect(task).to_contain_text("tiny is lower")
        expect(task.locator("td").nth(2)).to_have_text("0.5")
        assert retention.get_attribute("data-verdict") == "no significant difference"
