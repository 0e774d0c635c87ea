"""Run notebooks and keep their outputs as they are committed: static pictures, no widget state, no timings.

python notebooks/refresh.py [NOTEBOOK...]
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent
_LIMIT = 200_000
# what an output may hold in a committed notebook: text, pages and pictures, never a view that needs a kernel
_KEPT = ("text/plain", "text/html", "image/svg+xml", "image/png")


def refreshed(path: Path) -> dict:
    """The notebook at `path`, executed in its smoke profile and cleaned."""
    import papermill

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.ipynb"
        papermill.execute_notebook(
            str(path), str(target), cwd=folder, kernel_name="python3", store_widget_state=False, progress_bar=True
        )
        notebook = json.loads(target.read_text(encoding="utf-8"))
    notebook["metadata"] = {name: notebook["metadata"][name] for name in ("kernelspec", "language_info")}
    notebook["metadata"]["language_info"] = {"name": "python"}
    cells = [cell for cell in notebook["cells"] if "injected-parameters" not in cell["metadata"].get("tags", [])]
    count = 0
    for place, cell in enumerate(cells):
        cell["id"] = f"cell-{place:02d}"
        cell["metadata"] = {"tags": cell["metadata"].get("tags", [])}
        if cell["cell_type"] == "code":
            # nbval takes a cell with outputs and no number for one that was never run
            count += 1
            cell["execution_count"] = count
            cell["outputs"] = [_cleaned(output, count) for output in cell["outputs"] if _is_kept(output)]
    notebook["cells"] = cells
    return notebook


def _is_kept(output: dict) -> bool:
    # a bar of a library is a widget with nothing to fall back on
    is_bar = "application/vnd.jupyter.widget-view+json" in output.get("data", {}) and "text/html" not in output["data"]
    return output.get("name") != "stderr" and not is_bar


def _cleaned(output: dict, count: int) -> dict:
    # the folder that a notebook made for itself is another one each time, and says nothing of its reader's machine
    output = json.loads(re.sub(re.escape(tempfile.gettempdir()) + r"/tmp\w+", "shelf", json.dumps(output)))
    if "data" in output:
        output["data"] = {kind: value for kind, value in output["data"].items() if kind in _KEPT}
        output["metadata"] = {}
    if "execution_count" in output:
        output["execution_count"] = count
    return output


def main() -> None:
    """Refresh the named notebooks, or all of them."""
    os.environ["GEONB_VIEWS"] = "static"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    named = [Path(name).resolve() for name in sys.argv[1:]] or sorted(ROOT.rglob("*.ipynb"))
    for path in named:
        text = json.dumps(refreshed(path), indent=1, ensure_ascii=False) + "\n"
        size = len(text.encode("utf-8"))
        if size >= _LIMIT:
            raise SystemExit(
                f"{path.name} would have {size:,} bytes; allowed are fewer than {_LIMIT:,}: show less in it."
            )
        path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {size:,} bytes")


if __name__ == "__main__":
    main()
