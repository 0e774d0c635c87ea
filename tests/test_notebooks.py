"""Every committed notebook is small, holds pictures and no widget state, and runs under papermill in its smoke profile."""

import ast
import json
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(ROOT.rglob("*.ipynb"))
TOUR = [path for path in NOTEBOOKS if path.parent.name == "tour"]
CLAIMS = [path for path in NOTEBOOKS if path.parent.name in ("claims", "coordinates", "hyperparameters", "papers")]
PICTURE = re.compile(r'<img [^>]*src="data:image/svg\+xml,')
SMOKE = {"profile": "smoke", "max_steps": 6}


def cells_of(path, kind="code"):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def pictures(path):
    """How many pictures the outputs of a notebook hold."""
    html = [
        "".join(out["data"].get("text/html", "")) for cell in cells_of(path) for out in cell["outputs"] if "data" in out
    ]
    return sum(len(PICTURE.findall(text)) for text in html)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_text_and_pictures_below_200_kb(path):
    assert path.stat().st_size < 200_000
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert "widgets" not in notebook["metadata"] and len(notebook["cells"]) <= 25
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert "application/vnd.jupyter.widget" not in path.read_text(encoding="utf-8")
    tagged = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    silent = [cell for cell in cells_of(path) if not cell["outputs"] and cell not in tagged]
    assert all("import" in "".join(cell["source"]) or "%load_ext" in "".join(cell["source"]) for cell in silent)
    assert not any(out["output_type"] == "error" for cell in cells_of(path) for out in cell["outputs"])


def test_every_tour_notebook_opens_with_its_pictures_in_it():
    assert {path.stem for path in TOUR} == {"inspect", "plan", "train", "evaluate", "foreign_adapter", "ship", "star"}
    assert all(pictures(path) >= 1 for path in TOUR)


@pytest.mark.parametrize("path", CLAIMS, ids=lambda path: path.stem)
def test_a_claim_opens_with_its_pictures_and_ends_in_its_verdict(path):
    assert pictures(path) >= 1
    *_, last = cells_of(path)
    ending = ast.parse("".join(last["source"])).body[-1]
    assert ast.unparse(ending).startswith("claims.verify(")
    assert "(smoke): passed" in "".join(last["outputs"][-1]["data"]["text/plain"])


@pytest.mark.parametrize("path", [*TOUR, *CLAIMS], ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")
def test_nbconvert_shows_every_picture_without_a_kernel(path):
    from nbconvert import HTMLExporter

    text, _ = HTMLExporter(require_js_url="", mathjax_url="", mermaid_js_url="").from_filename(str(path))
    assert len(PICTURE.findall(text)) == pictures(path)
    assert "application/vnd.jupyter.widget-state" not in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_names_no_folder_of_a_machine(path):
    assert not re.search(r"/(tmp|home|root|Users)/\w", path.read_text(encoding="utf-8"))


# the notebooks of claims run under nbval, which CI asks of every notebook, and one of them in tests/claims under the runner
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path not in CLAIMS], ids=lambda path: path.stem)
def test_a_notebook_runs_under_papermill(path, tmp_path):
    import papermill

    inspected = papermill.inspect_notebook(str(path))
    assert "profile" in inspected
    papermill.execute_notebook(
        str(path), str(tmp_path / "out.ipynb"), parameters={name: SMOKE[name] for name in SMOKE if name in inspected},
        cwd=str(tmp_path), store_widget_state=False, progress_bar=False, kernel_name="python3",
    )  # fmt: skip
    done = tmp_path / "out.ipynb"
    # a live kernel leaves the static picture beside every live view
    views = [
        out
        for cell in cells_of(done)
        for out in cell["outputs"]
        # the bars of other libraries are widgets too, with nothing to fall back on
        if {"application/vnd.jupyter.widget-view+json", "text/html"} <= set(out.get("data", {}))
    ]
    assert all(PICTURE.search("".join(out["data"]["text/html"])) for out in views)
    # what ships, and the rounds of STaR, are shown in still pictures alone
    if path in TOUR and path.stem not in ("ship", "star"):
        assert len(views) >= 1 or os.environ.get("GEONB_VIEWS") == "static"
    # the last code cell asserts, and says what it saw
    assert cells_of(done)[-1]["outputs"][-1]["text"]
