"""What a person does in JupyterLab, as functions of a page."""

from __future__ import annotations

import re

from playwright.sync_api import expect


def wait_until_ready(page) -> None:
    """Until the notebook is drawn and its kernel waits for work."""
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")


def run_all(page) -> None:
    """Run > Run All Cells."""
    first = page.locator(".jp-Notebook .jp-CodeCell .jp-InputPrompt").first
    before = first.inner_text()

    def choose():
        page.click(".jp-Notebook .jp-Cell >> nth=0")
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()

    _until_changed(first, before, choose)


def _until_changed(prompt, before, action) -> None:
    """Act again where JupyterLab took nothing, as it does while it still moves the focus about after a page was loaded."""
    page = prompt.page
    for attempt in range(4):
        # on a busy machine JupyterLab asks what to do about a slow server or a file that was just written
        if page.locator("dialog.jp-Dialog").count():
            page.locator("dialog.jp-Dialog .jp-mod-accept").first.click()
        action()
        try:
            expect(prompt).not_to_have_text(before, timeout=5000)
            return
        except AssertionError:
            if attempt == 3:
                raise


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

    _until_changed(prompt, prompt.inner_text(), press)


def save(page) -> None:
    """Ctrl+S, and until the document is clean."""
    page.locator(".jp-Notebook .jp-Cell").first.click()
    page.keyboard.press("Control+s")
    page.wait_for_function("() => !document.querySelector('.lm-DockPanel-tabBar .jp-mod-dirty')", timeout=20_000)
