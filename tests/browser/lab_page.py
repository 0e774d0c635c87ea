"""What a person does in JupyterLab, as functions of a page."""

from __future__ import annotations


def run_all(page) -> None:
    """Run > Run All Cells."""
    page.click(".jp-Notebook .jp-Cell >> nth=0")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()


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
    """Click into a cell and press Shift+Enter."""
    page.locator(".jp-Notebook .jp-CodeCell .jp-InputArea-editor").nth(index).click()
    page.keyboard.press("Shift+Enter")


def save(page) -> None:
    """Ctrl+S, and until the document is clean."""
    page.locator(".jp-Notebook .jp-Cell").first.click()
    page.keyboard.press("Control+s")
    page.wait_for_function("() => !document.querySelector('.lm-DockPanel-tabBar .jp-mod-dirty')", timeout=20_000)
