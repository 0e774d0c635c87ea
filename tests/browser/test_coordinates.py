"""A coordinate model's run in real JupyterLab: its phases are marked on the trace, while it trains and afterwards."""

import pytest
from playwright.sync_api import expect

from tests.browser.lab_page import run_cell

PHASES = ["differentiation", "composition", "conversation"]
STEPS = 60
CELLS = [
    # another process trains, as from a shell
    "import subprocess, sys, time, pathlib\n"
    "job = subprocess.Popen([sys.executable, '-m', 'geonb', 'coordinates', 'train', '--preset', 'tiny', '-o', 'styles',\n"
    f"    '--steps', '{STEPS}', '--evaluate-every', '10', '--base-rate', '3e-3'], stderr=subprocess.DEVNULL)\n"
    "while not pathlib.Path('styles/trace.jsonl').exists():\n    time.sleep(0.1)",
    "from geonb.widgets import MassTrace\nview = MassTrace('styles')\nview",
    "print('ended with', job.wait())",
]


@pytest.fixture
def watched_run(open_notebook):
    page = open_notebook("coordinates.ipynb", CELLS)
    for index in range(3):
        run_cell(page, index)
    page.wait_for_selector(".gn-mass-trace", timeout=120_000)
    return page


def test_the_phases_of_a_coordinate_run_appear_on_its_live_trace(watched_run):
    page = watched_run
    trace = page.locator(".gn-mass-trace").first
    expect(trace.locator("[data-phase]").first).to_have_text(PHASES[0])
    expect(page.locator(".jp-OutputArea-output", has_text="ended with 0")).to_be_visible()
    expect(trace).to_have_attribute("data-steps", str(STEPS))
    assert trace.locator("[data-phase]").evaluate_all("all => all.map(one => one.dataset.phase)") == PHASES
    # 20, 40 and 40 percent of the steps, from left to right on one axis
    at = trace.locator("line.gn-phase").evaluate_all("all => all.map(one => +one.getAttribute('x1'))")
    assert at[0] < at[1] < at[2]
    assert (at[1] - at[0]) / (at[2] - at[0]) == pytest.approx(0.2 / 0.6, abs=0.05)
    assert trace.locator("[data-series='loss']").get_attribute("d").count("L") >= STEPS - 2
    expect(trace.locator(".gn-chip").first).to_contain_text("done")
    # what such a run has none of is not shown as lacking
    expect(trace.locator(".gn-lights")).to_be_hidden()
    expect(trace).not_to_contain_text("not measured yet")
    # two layers of four matrices, each with the share of its budget that is used
    assert int(trace.locator(".gn-strip").get_attribute("data-rows")) > 0
