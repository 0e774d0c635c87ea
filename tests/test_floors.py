"""The core never imports a view: what import-linter cannot see, because widgets/ lies outside geonb/."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = [
    path
    for path in sorted((ROOT / "geonb").rglob("*.py"))
    if path.relative_to(ROOT / "geonb").parts[0] not in {"__main__.py", "cli", "magics.py"}
]


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_core_imports_no_view(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    assert not {
        name for name in names if name.startswith(("geonb.widgets", "geonb.cli", "plotly", "panel", "anywidget"))
    }


@pytest.mark.parametrize("path", [*CORE, *sorted((ROOT / "widgets").rglob("*.py"))], ids=lambda path: path.stem)
def test_no_file_is_longer_than_400_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
