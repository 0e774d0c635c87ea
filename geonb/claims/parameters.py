"""What a claim's notebook takes and judges, read from its cells without running any of them."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geonb.errors import InputError
from geonb.records import is_file, parse_json, plain, read_bytes

TAG = "parameters"
_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "a table",
}


def parameters_of(notebook: str | Path) -> dict[str, Any]:
    """The parameters of a notebook and their defaults, in the order of its one cell tagged `parameters`.

    The cell is read as Python, so a comment may hold whatever it likes. Raises `InputError` for a file that is no
    notebook, for none or several such cells, and for a statement in it that gives no literal to one name.

    >>> parameters_of("notebooks/claims/zero_knob.ipynb")["profile"]    # doctest: +SKIP
    'smoke'
    """
    path = Path(notebook)
    tagged = [cell for cell in cells_of(path) if TAG in _tags(cell)]
    if len(tagged) != 1 or tagged[0].get("cell_type") != "code":
        raise InputError(
            f"{plain(path)} has {len(tagged)} cells with the tag {TAG!r}; allowed is exactly one, a code cell: tag the "
            "cell that gives the parameters their defaults."
        )
    source = source_of(tagged[0])
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(
            f"the cell {TAG!r} of {plain(path)} is no Python ({plain(error)[:120]}): write one `name = literal` a line."
        ) from None
    found: dict[str, Any] = {}
    for statement in tree.body:
        name, value = _assigned(statement)
        if name is None:
            shown = plain(ast.get_source_segment(source, statement) or "")[:60]
            raise InputError(
                f"the cell {TAG!r} of {plain(path)} has the statement {shown!r}; allowed is one `name = literal` a line: "
                "move everything else to a later cell."
            )
        found[name] = value
    return found


def check_parameters(known: Mapping[str, Any], given: Mapping[str, Any], where: str) -> None:
    """Raise `InputError` for a name that `known` lacks and for a value of another type than the default's.

    A whole number stands for a number; a default of None takes everything.

    >>> check_parameters({"n": 3}, {"n": 5}, "the notebook")
    """
    for name, value in given.items():
        if name not in known:
            raise InputError(
                f"{plain(where)} was given the parameter {plain(name)!r}; its notebook has {', '.join(known) or 'none'}."
            )
        default = known[name]
        kind = type(default)
        fits = type(value) is kind or (kind is float and type(value) is int)
        if default is not None and not fits:
            raise InputError(
                f"{plain(where)} was given {plain(repr(value))[:60]} for the parameter {name!r}; allowed is "
                f"{_NAMES.get(kind, kind.__name__)}, like its default {plain(repr(default))[:60]}."
            )


def judged_ids(notebook: str | Path) -> tuple[str, ...] | None:
    """The ids that the last code cell hands to `verify`, in order; None where the cell names one in another way than a text.

    What is in the cell counts, wherever it is called from: `claims.verify("f4", ...)` and `verify("f4", ...)` alike.
    Raises `InputError` for a file that is no notebook.
    """
    code = [cell for cell in cells_of(notebook) if cell.get("cell_type") == "code"]
    try:
        tree = ast.parse(source_of(code[-1])) if code else ast.Module(body=[], type_ignores=[])
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "verify":
            first = node.args[0] if node.args else next((k.value for k in node.keywords if k.arg == "claim_id"), None)
            if not (isinstance(first, ast.Constant) and isinstance(first.value, str)):
                return None
            found.append((node.lineno, first.value))
    return tuple(dict.fromkeys(name for _, name in sorted(found)))


def notebook_hash(notebook: str | Path) -> str:
    """sha256 of what a notebook does and says: its cells' kinds, tags and sources, and not their outputs."""
    cells = [(cell.get("cell_type"), _tags(cell), source_of(cell)) for cell in cells_of(notebook)]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def cells_of(notebook: str | Path) -> list[dict[str, Any]]:
    """The cells of a notebook; raises `InputError` for a file that is none, or of another format than 4."""
    path = Path(notebook)
    if not is_file(path):
        raise InputError(f"{plain(path)} is not a file: give the path of a notebook (.ipynb).")
    data = parse_json(read_bytes(path), plain(path))
    cells = data.get("cells") if isinstance(data, dict) else None
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells) or data.get("nbformat") != 4:
        raise InputError(f"{plain(path)} is no notebook of format 4: save it with JupyterLab.")
    return cells


def source_of(cell: Mapping[str, Any]) -> str:
    """The text of a cell, which a file holds whole or in lines."""
    source = cell.get("source", "")
    return "".join(str(line) for line in source) if isinstance(source, list) else str(source)


def _tags(cell: Mapping[str, Any]) -> list[Any]:
    metadata = cell.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    return tags if isinstance(tags, list) else []


def _assigned(statement: ast.stmt) -> tuple[str | None, Any]:
    """The name and the literal of `name = literal`, also with an annotation; (None, None) for anything else."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target, value = statement.targets[0], statement.value
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        target, value = statement.target, statement.value
    else:
        return None, None
    if not isinstance(target, ast.Name):
        return None, None
    try:
        return target.id, ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None, None
