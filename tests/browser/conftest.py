"""Debian's Chromium, JupyterLab and the dashboard as fixtures, and a page that no request may leave the machine from."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser import runs
from tests.browser.lab_page import wait_until_connected, wait_until_ready
from tests.browser.servers import TOKEN, free_port, lab, notebook, serving

# an evaluation on one core takes about ten seconds, and a stop is honoured after it
expect.set_options(timeout=60_000)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_collection_modifyitems(items):
    """Without a Chromium every test here skips, by name."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.slow)
            # jupyter, bokeh and playwright warn about each other's deprecations in this process
            item.add_marker(pytest.mark.filterwarnings("ignore"))
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="no chromium on this machine: apt-get install chromium"))


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args):
    """pytest-playwright starts Debian's Chromium instead of a downloaded one."""
    return {**browser_type_launch_args, "executable_path": CHROMIUM, "args": ["--no-sandbox"]}


@pytest.fixture(scope="session")
def browser_context_args(browser_context_args):
    return {**browser_context_args, "viewport": {"width": 1300, "height": 1500}}


@pytest.fixture
def watched(page):
    """A page whose every request stays on this machine and whose scripts raise nothing, checked when the test ends."""
    left, errors = [], []
    near = ("http://127.0.0.1:", "ws://127.0.0.1:", "http://localhost:", "ws://localhost:", "data:", "blob:", "file:")
    page.on("request", lambda request: None if request.url.startswith(near) else left.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_default_timeout(60_000)
    yield page
    assert left == []
    assert errors == []


@pytest.fixture(scope="session")
def lab_root(tmp_path_factory):
    return tmp_path_factory.mktemp("lab-root")


@pytest.fixture(scope="session")
def lab_address(lab_root, tmp_path_factory):
    """A running JupyterLab over `lab_root`."""
    with lab(lab_root, log=tmp_path_factory.mktemp("lab-log") / "lab.log") as address:
        yield address


@pytest.fixture
def open_notebook(watched, lab_address, lab_root):
    """Open a notebook of `lab_root` (made from `cells` when they are given) in a fresh JupyterLab workspace."""

    def open_it(name, cells=None):
        if cells is not None:
            notebook(lab_root / name, cells)
        watched.goto(f"{lab_address}/lab/workspaces/auto-{free_port()}/tree/{name}?token={TOKEN}")
        wait_until_ready(watched)
        wait_until_connected(watched, f"{lab_address}/api/sessions?token={TOKEN}", name)
        return watched

    return open_it


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """A short real run on the embedded model, verified, with its report."""
    from geonb.plan import build_plan
    from geonb.train import run_training
    from geonb.widgets import write_report

    folder = tmp_path_factory.mktemp("shelf") / "finished"
    plan = build_plan("embedded", "embedded:chat", max_steps=8, calibrate=False, output=folder)
    run_training(plan, output=folder, device="cpu")
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def dashboard(tmp_path_factory):
    """Start a dashboard of some sources; returns its address."""
    import contextlib
    import sys

    with contextlib.ExitStack() as stack:

        def start(*sources, environment=None, arguments=()):
            port = free_port()
            command = [
                sys.executable,
                "-m",
                "geonb.cli",
                "dashboard",
                *map(str, sources),
                "--port",
                str(port),
                *arguments,
            ]
            address = f"http://127.0.0.1:{port}"
            log = tmp_path_factory.mktemp("dashboard") / "log"
            stack.enter_context(serving(command, f"{address}/runs", log=log, environment=environment))
            return address

        yield start


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The finished run `tiny`, on a shelf that the tests add runs to."""
    root = tmp_path_factory.mktemp("trained")
    (root / "shelf").mkdir()
    data = runs.write_data(root / "data.jsonl")
    return runs.trained(root / "shelf" / "tiny", data, model=root / "model", steps=runs.STEPS)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory):
    return runs.hostile_model(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="session")
def hostile_talk(tmp_path_factory):
    """A real run on chats whose prompts are markup, after which the model answers with a script."""
    root = tmp_path_factory.mktemp("talk")
    return runs.trained_to_answer_with_a_script(root / "shelf" / "talk", root / "data.jsonl")
