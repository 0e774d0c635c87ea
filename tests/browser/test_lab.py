"""The views in real JupyterLab: a tour notebook, a live training that is stopped, a reload, a re-run."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.lab_page import run_all, run_cell, save, wait_until_idle

TOUR = Path(__file__).parents[2] / "notebooks" / "tour"


def test_a_fresh_clone_shows_the_pictures_of_a_notebook_that_is_not_trusted_yet(open_notebook, lab_root):
    shutil.copy(TOUR / "inspect.ipynb", lab_root / "fresh.ipynb")
    page = open_notebook("fresh.ipynb")
    pictures = page.locator(".jp-OutputArea img[src^='data:image/svg+xml']")
    expect(pictures).to_have_count(3)
    # decoded, not merely there
    widths = pictures.evaluate_all("images => images.map(image => image.naturalWidth)")
    assert min(widths) > 400
    assert "Error displaying widget" not in page.inner_text(".jp-Notebook")


def test_the_inspect_tour_runs_and_its_map_answers_clicks_and_keys(open_notebook, lab_root):
    shutil.copy(TOUR / "inspect.ipynb", lab_root / "inspect.ipynb")
    page = open_notebook("inspect.ipynb")
    run_all(page)
    wait_until_idle(page)
    views = page.locator(".gn-spectrum-explorer")
    expect(views).to_have_count(2)
    explorer = views.first
    expect(explorer).to_have_attribute("data-done", "29")
    # 4 layers x 7 roles, and the embedding
    assert explorer.locator("[data-cell]").count() == 29
    explorer.locator("[data-cell='2|up']").click()
    expect(explorer.locator(".gn-chosen-name")).to_have_text("model.layers.2.mlp.up_proj.weight")
    page.keyboard.press("ArrowLeft")
    expect(explorer.locator(".gn-chosen-name")).to_have_text("model.layers.2.mlp.gate_proj.weight")
    page.keyboard.press("ArrowDown")
    expect(explorer.locator(".gn-chosen-name")).to_have_text("model.layers.3.mlp.gate_proj.weight")
    for series in ("values", "twin", "noise edge"):
        assert explorer.locator(f"[data-series='{series}']").get_attribute("d").startswith("M")
    assert explorer.locator(".gn-k").count() == 1 and explorer.locator(".gn-tail").count() == 1
    explorer.locator("select").select_option("sigma_k")
    expect(explorer.locator(".gn-cell").first).not_to_contain_text("%")


CELLS = [
    "%load_ext geonb",
    "%%geonb train -m embedded -d embedded:chat -o live --overwrite --out job\nmax_steps = 400",
    "%geonb stop",
    "print(job.result().stop.reason)",
]


@pytest.fixture
def live(open_notebook):
    page = open_notebook("live.ipynb", CELLS)
    run_cell(page, 0)
    run_cell(page, 1)
    page.wait_for_selector(".gn-mass-trace", timeout=120_000)
    yield page
    # whatever happened, nothing goes on training behind the other tests
    page.evaluate("() => document.querySelector('.gn-mass-trace .gn-stop')?.click()")


def steps(page) -> int:
    return int(page.locator(".gn-mass-trace").first.get_attribute("data-steps"))


def test_a_live_trace_moves_survives_a_reload_and_is_stopped_with_a_checkpoint(live, lab_root):
    page = live
    page.wait_for_function("() => +document.querySelector('.gn-mass-trace').dataset.steps >= 3", timeout=120_000)
    first = steps(page)
    page.wait_for_function(f"() => +document.querySelector('.gn-mass-trace').dataset.steps > {first + 2}")
    trace = page.locator(".gn-mass-trace")
    expect(trace.locator(".gn-chip").first).to_contain_text("training")
    for series in ("ceiling", "sps", "weyl", "step", "loss"):
        assert trace.locator(f"[data-series='{series}']").get_attribute("d").count("L") >= first
    assert trace.locator(".gn-ribbon rect").count() >= 1
    assert trace.locator(".gn-light").first.get_attribute("data-status") == "unmeasured"
    assert int(trace.locator(".gn-strip").get_attribute("data-rows")) == 28

    save(page)
    page.reload()
    page.wait_for_selector(".gn-mass-trace", timeout=60_000)
    again = steps(page)
    page.wait_for_function(f"() => +document.querySelector('.gn-mass-trace').dataset.steps > {again + 1}")

    page.locator(".gn-mass-trace .gn-stop").click()
    expect(page.locator(".gn-mass-trace .gn-chip").first).to_contain_text("stopped")
    assert (lab_root / "live" / "checkpoint" / "state.safetensors").is_file()
    assert not (lab_root / "live" / "stop").exists()
    run_cell(page, 3)
    expect(page.locator(".jp-OutputArea-output", has_text="requested")).to_be_visible()
    saved = (lab_root / "live.ipynb").read_text(encoding="utf-8")
    assert '"state"' not in saved and len(saved) < 200_000


def test_running_a_cell_again_closes_the_view_that_it_replaces(open_notebook, finished_run):
    cells = [
        f"from geonb.widgets import MassTrace\nMassTrace({str(finished_run)!r})",
        "from ipywidgets import Widget\nimport ipywidgets.widgets.widget as w\nprint('alive', len(w._instances))",
    ]
    page = open_notebook("rerun.ipynb", cells)
    for _ in range(3):
        run_cell(page, 0)
        page.wait_for_selector(".gn-mass-trace .gn-evaluation")
    run_cell(page, 1)
    output = page.locator(".jp-OutputArea-output", has_text="alive")
    expect(output).to_be_visible()
    # the view itself and the layout that every widget has; three runs would otherwise leave six
    assert int(output.inner_text().split()[-1]) <= 2
    assert page.locator(".gn-mass-trace").count() == 1


def test_errors_are_one_line_and_completion_knows_the_commands(open_notebook):
    page = open_notebook("errors.ipynb", ["%load_ext geonb", "%geonb model info /no/such/model"])
    run_all(page)
    wait_until_idle(page)
    shown = page.locator(".jp-OutputArea-output").last.inner_text()
    assert "does not exist" in shown and "Traceback" not in shown
