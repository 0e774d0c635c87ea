"""Names, prompts, answers and reasons that are markup: text in every view, page, report and notebook, in a browser."""

import contextlib
import json
import re
import shutil
from urllib.parse import quote, urlencode, urlsplit

import pytest
from playwright.sync_api import expect

from tests.browser import runs
from tests.browser.lab_page import run_all, wait_until_idle


@pytest.fixture(scope="session")
def hostile(tmp_path_factory):
    return runs.hostile_model(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="session")
def site(dashboard, trained, hostile):
    return dashboard(hostile, trained.parent)


@pytest.fixture
def hostile_run(trained, hostile):
    folder = runs.hostile_run(trained, hostile)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def requests(watched):
    """Every address that the page has asked for."""
    asked = []
    watched.on("request", lambda request: asked.append(request.url))
    return asked


def assert_is_text(page, requests):
    """Nothing of what was shown became an element, was fetched or ran."""
    expect(page.locator("img[src='x']")).to_have_count(0)
    expect(page.locator("script", has_text="pwned")).to_have_count(0)
    assert page.evaluate("window.pwned") is None
    assert [url for url in requests if urlsplit(url).path.endswith("/x")] == []


def test_hostile_names_and_texts_are_shown_as_text_on_every_page(watched, requests, site, trained, hostile):
    # the model: its folder and its tensors
    watched.goto(f"{site}/model?model={quote(runs.IMAGE)}")
    explorer = watched.locator(".gn-spectrum-explorer")
    expect(explorer.locator(".gn-name")).to_have_text(runs.IMAGE)
    expect(explorer).to_have_attribute("data-done", re.compile("1[0-9]"))
    explorer.locator('[data-cell="-|other"]').click()
    expect(explorer.locator(".gn-chosen-name")).to_have_text(re.compile(r"^<(script|img).*>\.weight$"))
    explorer.locator("[data-member]").nth(1).hover()
    expect(explorer.locator(".gn-hint")).to_contain_text("window.pwned=1")
    assert_is_text(watched, requests)
    folder = runs.hostile_run(trained, hostile)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        # the plan: model, data, targets and reasons
        watched.goto(f"{site}/plan?run={quote(runs.IMAGE)}")
        table = watched.locator(".gn-target-table")
        expect(table.locator(".gn-name")).to_have_text(f"{runs.SCRIPT} on {runs.IMAGE}")
        expect(table.locator("tbody tr").first).to_contain_text(runs.SCRIPT)
        expect(table.locator("tbody tr").nth(1)).to_contain_text(runs.IMAGE)
        table.get_by_role("tab", name="The fifteen numbers").click()
        expect(table.locator(".gn-card").first).to_contain_text(runs.IMAGE)
        assert_is_text(watched, requests)
        # the run: its name, trace, gates, samples and adapter
        watched.goto(f"{site}/runs?run={quote(runs.IMAGE)}")
        trace = watched.locator(".gn-mass-trace")
        expect(trace.locator(".gn-name")).to_have_text(runs.IMAGE)
        expect(watched.locator("tr[data-run]", has_text=runs.SCRIPT)).to_contain_text(f"{runs.SCRIPT} on {runs.IMAGE}")
        expect(trace.locator(".gn-light").first).to_contain_text(runs.SCRIPT)
        expect(trace.locator(".gn-gate").first).to_have_text(runs.SCRIPT)
        expect(trace.locator("svg[role=img]")).to_contain_text(runs.SCRIPT)
        trace.locator(".gn-samples summary").click()
        expect(trace.locator(".gn-samples td")).to_have_text([runs.IMAGE, runs.SCRIPT, runs.IMAGE + runs.SCRIPT])
        expect(watched.locator(".gn-adapter-card")).to_contain_text(f"base {hostile}")
        assert_is_text(watched, requests)
        # beside another run
        watched.goto(f"{site}/runs?{urlencode([('run', runs.IMAGE), ('run', 'tiny')])}")
        expect(watched.locator(".gn-run-comparison [data-run]").first).to_contain_text(runs.IMAGE)
        expect(watched.locator(".gn-run-comparison")).to_contain_text(f"tiny − {runs.IMAGE}")
        assert_is_text(watched, requests)


def test_a_model_that_answers_with_a_script_is_quoted_by_its_run_and_its_report(
    watched, requests, dashboard, hostile_talk
):
    samples = json.loads((hostile_talk / "samples.json").read_text())["samples"]
    # written by the trained model itself
    assert any(sample["adapted"] == runs.SCRIPT for sample in samples)
    assert all(sample["prompt"].startswith(runs.IMAGE) for sample in samples)
    watched.goto(f"{dashboard(hostile_talk)}/runs")
    trace = watched.locator(".gn-mass-trace")
    trace.locator(".gn-samples summary").click()
    expect(trace.locator(".gn-samples td", has_text=runs.SCRIPT).first).to_be_visible()
    expect(trace.locator(".gn-samples td", has_text=runs.IMAGE).first).to_be_visible()
    assert_is_text(watched, requests)
    watched.goto((hostile_talk / "report.html").as_uri())
    expect(watched.get_by_text(runs.SCRIPT).first).to_be_visible()
    expect(watched.get_by_text(runs.IMAGE).first).to_be_visible()
    assert_is_text(watched, requests)


def views(run, other, model):
    from geonb.train.run_folder import RunFolder
    from geonb.widgets import AdapterCard, MassTrace, RunComparison, SpectrumExplorer, TargetTable

    return [
        SpectrumExplorer(str(model)).complete(),
        TargetTable(RunFolder.open(run).plan()),
        MassTrace(run),
        AdapterCard(run / "adapter"),
        RunComparison([run, other]),
    ]


@pytest.mark.parametrize("form", ["static", "plotly"])
def test_still_pictures_and_figures_show_markup_as_text(
    watched, requests, trained, hostile, hostile_run, tmp_path, form
):
    for view in views(hostile_run, trained, hostile):
        name = type(view).__name__
        page = tmp_path / f"{name}.html"
        if form == "static":
            page.write_text(f"<!doctype html><meta charset=utf-8><body>{view.static()}", encoding="utf-8")
        else:
            view.figure().write_html(page, include_plotlyjs=True)
        watched.goto(page.as_uri())
        if form == "plotly":
            expect(watched.locator(".main-svg").first).to_be_visible()
        assert_is_text(watched, requests)
        assert "window.pwned=1" in page.read_text(encoding="utf-8"), f"{name} hides what it was given"


def test_the_report_of_a_hostile_run_shows_markup_as_text(watched, requests, hostile_run):
    from geonb.widgets import write_report

    watched.goto(write_report(hostile_run).as_uri())
    expect(watched.locator("h1")).to_have_text(f"{runs.SCRIPT} on {runs.IMAGE}")
    assert_is_text(watched, requests)


def test_live_views_in_a_notebook_show_markup_as_text(watched, requests, open_notebook, trained, hostile, hostile_run):
    cells = [
        "from pathlib import Path\nfrom geonb.train.run_folder import RunFolder\n"
        "from geonb.widgets import AdapterCard, MassTrace, RunComparison, SpectrumExplorer, TargetTable\n"
        f"run, other = Path({str(hostile_run)!r}), Path({str(trained)!r})",
        f"SpectrumExplorer({str(hostile)!r})",
        "TargetTable(RunFolder.open(run).plan())",
        "MassTrace(run)",
        "AdapterCard(run / 'adapter')",
        "RunComparison([run, other])",
    ]
    page = open_notebook("hostile.ipynb", cells)
    run_all(page)
    wait_until_idle(page)
    shown = ("spectrum-explorer", "target-table", "mass-trace", "adapter-card", "run-comparison")
    for name in shown:
        expect(page.locator(f".gn-{name}")).to_contain_text("window.pwned=1")
    assert_is_text(page, requests)
