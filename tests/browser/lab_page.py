"""What a person does in JupyterLab, as functions of a page."""

from __future__ import annotations

import contextlib
import re
import time

from playwright.sync_api import expect


def wait_until_ready(page) -> None:
    """Until the notebook is drawn and its kernel waits for work."""
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")


def wait_until_connected(page, sessions: str, name: str, seconds: float = 60) -> None:
    """Until the server counts the page among its kernel's connections and the kernel is idle: what is run before may be lost."""
    deadline, calm = time.monotonic() + seconds, 0
    while calm < 3:
        assert time.monotonic() < deadline, f"{name} has no kernel that the page is connected to"
        kernels = [one["kernel"] for one in page.request.get(sessions).json() if one["path"] == name]
        ready = any(one["connections"] > 0 and one["execution_state"] == "idle" for one in kernels)
        calm = calm + 1 if ready else 0
        page.wait_for_timeout(300)


def run_all(page) -> None:
    """Run > Run All Cells."""
    first = page.locator(".jp-Notebook .jp-CodeCell .jp-InputPrompt").first
    before = first.inner_text()

    def choose():
        page.click(".jp-Notebook .jp-Cell >> nth=0")
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()

    _until_taken(first, before, choose)


def _until_taken(prompt, before, action) -> None:
    """Act again where JupyterLab took nothing, or lost it, as it does while it still connects to a kernel."""
    page = prompt.page
    for _ in range(5):
        # on a busy machine JupyterLab asks what to do about a slow server or a file that was just written
        if page.locator("dialog.jp-Dialog").count():
            page.locator("dialog.jp-Dialog .jp-mod-accept").first.click()
        action()
        with contextlib.suppress(AssertionError):
            expect(prompt).not_to_have_text(before, timeout=5000)
            if _is_kept(prompt, before):
                return
    raise AssertionError("JupyterLab lost five times what was run")


def _is_kept(prompt, before, seconds: float = 4) -> bool:
    """Whether a cell that waits for its number gets it or goes on waiting: one that is lost falls back to what it was."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        now = prompt.inner_text()
        if now == before:
            return False
        if any(letter.isdigit() for letter in now):
            return True
        prompt.page.wait_for_timeout(200)
    return True


def wait_until_idle(page, seconds: float = 120) -> None:
    """Until every code cell that was started has its number."""
    page.wait_for_function(
        """() => {
            const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map((found) => found.textContent);
            return prompts.length > 0 && prompts.every((text) => /\\[\\d+\\]/.test(text));
        }""",
        timeout=1000 * seconds,
    )


def run_cell(page, index: int) -> None:
    """Click into a cell and press Shift+Enter, until the kernel has taken it."""
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(index)
    prompt = cell.locator(".jp-InputPrompt")

    def press():
        cell.locator(".cm-content").click()
        expect(cell).to_have_class(re.compile("jp-mod-active"))
        page.keyboard.press("Shift+Enter")

    _until_taken(prompt, prompt.inner_text(), press)


def save(page) -> None:
    """Ctrl+S, and until the document is clean."""
    page.locator(".jp-Notebook .jp-Cell").first.click()
    page.keyboard.press("Control+s")
    page.wait_for_function("() => !document.querySelector('.lm-DockPanel-tabBar .jp-mod-dirty')", timeout=20_000)
