"""What is read without a kernel: exported notebooks and the report of a run."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect

ROOT = Path(__file__).parents[2] / "notebooks"
TOUR = sorted((ROOT / "tour").glob("*.ipynb"))


@pytest.mark.parametrize("path", TOUR, ids=lambda path: path.stem)
def test_an_exported_notebook_draws_every_picture_and_fetches_nothing(watched, tmp_path, path):
    from nbconvert import HTMLExporter

    text, _ = HTMLExporter(require_js_url="", mathjax_url="", mermaid_js_url="").from_filename(str(path))
    target = tmp_path / "out.html"
    target.write_text(text, encoding="utf-8")
    watched.goto(target.as_uri())
    drawn = watched.locator("img[src^='data:image/svg+xml']").evaluate_all(
        "images => images.map(image => [image.complete, image.naturalWidth])"
    )
    outputs = [out for cell in json.loads(path.read_text())["cells"] for out in cell.get("outputs", [])]
    stored = sum("".join(out.get("data", {}).get("text/html", "")).count("<img ") for out in outputs)
    assert len(drawn) == stored >= 1
    assert all(complete and width > 100 for complete, width in drawn)


def test_the_report_of_a_run_is_one_page_with_its_pictures(watched, finished_run):
    watched.goto((finished_run / "report.html").as_uri())
    assert watched.locator("svg").count() >= 3
    expect(watched.locator("h2").first).to_have_text("Trace")
    expect(watched.get_by_text("Before and after")).to_be_visible()
