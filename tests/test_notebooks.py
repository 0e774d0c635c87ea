"""Every committed notebook is small, holds no widget state, and runs under papermill in its smoke profile."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").rglob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_text_and_pictures_below_200_kb(path):
    assert path.stat().st_size < 200_000
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert "widgets" not in notebook["metadata"] and len(notebook["cells"]) <= 25
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    tagged = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    assert all(cell.get("outputs") or "import" in "".join(cell["source"]) or cell in tagged
               for cell in notebook["cells"] if cell["cell_type"] == "code")  # fmt: skip
    assert not any("is not defined" in json.dumps(cell) for cell in notebook["cells"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_under_papermill(path, tmp_path):
    import papermill

    inspected = papermill.inspect_notebook(str(path))
    given = {"profile": "smoke", "max_steps": 6}
    assert set(given) <= set(inspected)
    papermill.execute_notebook(
        str(path), str(tmp_path / "out.ipynb"), parameters=given, cwd=str(tmp_path), store_widget_state=False,
        progress_bar=False, kernel_name="python3",
    )  # fmt: skip
    assert "task improved" in (tmp_path / "out.ipynb").read_text(encoding="utf-8")
