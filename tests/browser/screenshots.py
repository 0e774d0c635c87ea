"""The screenshots of the README: every view in a real Chromium, on real runs of the embedded model.

python -m tests.browser.screenshots [--shelf FOLDER]

FOLDER holds two finished runs, `open` and `strict`; without it they are trained first (a few minutes).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path

from tests.browser.conftest import CHROMIUM
from tests.browser.lab_page import run_all, wait_until_idle
from tests.browser.servers import TOKEN, free_port, lab, notebook, serving

PICTURES = Path(__file__).parents[2] / "papers" / "pictures"
_STEPS = 120


def train(shelf: Path) -> None:
    """The two runs that the pictures show."""
    from geonb.plan import build_plan
    from geonb.train import run_training

    for budget in ("strict", "open"):
        if not (shelf / budget / "verification.json").is_file():
            plan = build_plan("embedded", "embedded:kjv", max_steps=_STEPS, budget=budget)
            run_training(plan, output=shelf / budget, overwrite=(shelf / budget).exists())


def keep(image: bytes, name: str) -> None:
    """Write a screenshot as a small palette PNG."""
    from PIL import Image

    picture = Image.open(io.BytesIO(image)).convert("RGB").quantize(255, dither=Image.Dither.NONE)
    picture.save(PICTURES / name, optimize=True)
    print(f"{name}: {(PICTURES / name).stat().st_size:,} bytes")


def framed(page, view: str) -> bytes:
    """The screenshot of a view with some paper around it."""
    found = page.locator(f".gn-{view}")
    found.evaluate("view => { view.style.padding = '14px'; view.style.background = 'var(--gn-paper)' }")
    return found.screenshot()


def of_dashboard(browser, address: str) -> None:
    """Model, plan, run, comparison and adapter."""
    page = browser.new_page(viewport={"width": 1180, "height": 900})
    page.set_default_timeout(60_000)
    page.goto(f"{address}/model?theme=light&matrix=model.layers.1.self_attn.q_proj.weight")
    page.wait_for_selector(".gn-spectrum-explorer[data-done='29']")
    keep(framed(page, "spectrum-explorer"), "spectrum-explorer.png")
    page.goto(f"{address}/plan?run=open&theme=light")
    page.locator(".gn-target-table [aria-label='Rank rule']").select_option("customary")
    page.wait_for_selector(".gn-was")
    keep(framed(page, "target-table"), "target-table.png")
    page.goto(f"{address}/runs?run=open&theme=dark")
    page.wait_for_selector(".gn-mass-trace .gn-gate")
    page.wait_for_selector(".gn-adapter-card .gn-row")
    keep(framed(page, "mass-trace"), "mass-trace.png")
    page.goto(f"{address}/runs?run=open&theme=light")
    page.wait_for_selector(".gn-adapter-card .gn-row")
    keep(framed(page, "adapter-card"), "adapter-card.png")
    page.goto(f"{address}/runs?run=open&run=strict&theme=light")
    page.wait_for_selector(".gn-run-comparison .gn-interval", state="attached")
    keep(framed(page, "run-comparison"), "run-comparison.png")
    page.close()


@contextlib.contextmanager
def ran_in_lab(browser, folder: Path, cells: list[str]):
    """A page of JupyterLab over `folder` on which a notebook of these cells has been run."""
    notebook(folder / "shown.ipynb", cells)
    with lab(folder, log=folder.with_suffix(".log")) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(120_000)
        page.goto(f"{address}/lab/workspaces/auto-x/tree/shown.ipynb?token={TOKEN}")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        run_all(page)
        wait_until_idle(page)
        yield page
        page.close()


def of_lab(browser, scratch: Path) -> None:
    """A notebook in JupyterLab while a run trains behind its cell."""
    cells = [
        "%load_ext geonb",
        "%%geonb train -m embedded -d embedded:kjv -o live --overwrite --out job\nmax_steps = 60",
    ]
    folder = scratch / "notebooks"
    folder.mkdir()
    with ran_in_lab(browser, folder, cells) as page:
        page.wait_for_function("() => +(document.querySelector('.gn-mass-trace')?.dataset.steps || 0) >= 30")
        keep(page.screenshot(), "jupyterlab.png")
        page.locator(".gn-mass-trace .gn-stop").click()
        page.wait_for_function("() => !document.querySelector('.gn-mass-trace').innerText.includes('stopping')")


def of_ledger(browser, scratch: Path) -> None:
    """The ledger of claims from the recorded results, with the first papers that have intervals to show."""
    from geonb.cli.app import run_command

    run_command(["claims", "ledger", "--html", str(scratch / "ledger.html")])
    page = browser.new_page(viewport={"width": 1180, "height": 1000})
    page.goto((scratch / "ledger.html").as_uri())
    page.wait_for_selector("h2")
    page.evaluate("""() => {
        const first = [...document.querySelectorAll("h2")].find((one) => one.textContent === "invariant-semantic-structure");
        for (let one = document.querySelector("h2"); one !== first;) {
            const next = one.nextElementSibling;
            one.remove();
            one = next;
        }
    }""")
    keep(page.screenshot(), "ledger.png")
    page.close()


def of_coordinates(browser, scratch: Path) -> None:
    """A small coordinate model's run with the three phases of its curriculum, in a notebook."""
    from geonb.coordinates.configuration import preset
    from geonb.coordinates.recipe import Recipe
    from geonb.coordinates.training import train as train_coordinates

    folder = scratch / "coordinates"
    folder.mkdir()
    recipe = Recipe(configuration=preset("tiny"), steps=300, evaluate_every=100, base_rate=3e-3)
    for _ in train_coordinates(recipe, folder / "styles"):
        pass
    with ran_in_lab(browser, folder, ["from geonb.widgets import MassTrace\nMassTrace('styles')"]) as page:
        page.wait_for_selector(".gn-mass-trace [data-phase]")
        keep(framed(page, "mass-trace"), "coordinate-run.png")


def main() -> None:
    """Train what is missing, serve, look, write."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shelf", type=Path)
    given = parser.parse_args()
    if CHROMIUM is None:
        raise SystemExit("no chromium on this machine: apt-get install chromium")
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shelf = (given.shelf or scratch / "runs").resolve()
        shelf.mkdir(parents=True, exist_ok=True)
        train(shelf)
        # views show the paths that they were given: relative ones say nothing of this machine
        os.chdir(shelf.parent)
        port = free_port()
        command = [sys.executable, "-m", "geonb.cli", "dashboard", "embedded", shelf.name, "--port", str(port)]
        address = f"http://127.0.0.1:{port}"
        stack.enter_context(serving(command, f"{address}/runs", log=scratch / "dashboard.log"))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        of_dashboard(browser, address)
        of_lab(browser, scratch)
        of_coordinates(browser, scratch)
        of_ledger(browser, scratch)
        browser.close()


if __name__ == "__main__":
    main()
