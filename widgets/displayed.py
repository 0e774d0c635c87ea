"""Which live view stands in which notebook cell, so that re-running a cell closes what it replaces.

A widget that is only dropped stays alive for ever, in the kernel and in the page; views pile up with every re-run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

_open: dict[str, list[Callable[[], None]]] = {}
_hooked: set[int] = set()


def is_live() -> bool:
    """Whether a front end may be there to draw a live view: inside a Jupyter kernel, unless GEONB_VIEWS=static."""
    if os.environ.get("GEONB_VIEWS", "").lower() == "static":
        return False
    shell = _shell()
    return shell is not None and getattr(shell, "kernel", None) is not None


def _shell() -> Any:
    from IPython.core.getipython import get_ipython

    return get_ipython()


def current_cell() -> str | None:
    """The id of the cell that runs now, as JupyterLab sends it; None in other hosts."""
    kernel = getattr(_shell(), "kernel", None)
    if kernel is None:
        return None
    parent = kernel.get_parent("shell") if hasattr(kernel, "get_parent") else {}
    return (parent or {}).get("metadata", {}).get("cellId")


def remember(close: Callable[[], None]) -> None:
    """`close` is called when the cell that runs now runs again."""
    cell = current_cell()
    if cell is None:
        return
    _open.setdefault(cell, []).append(close)
    shell = _shell()
    if id(shell) not in _hooked:
        shell.events.register("pre_run_cell", _before_a_cell)
        _hooked.add(id(shell))


def _before_a_cell(info: Any = None) -> None:
    cell = getattr(info, "cell_id", None) or current_cell()
    if cell is not None:
        close_cell(cell)


def close_cell(cell: str) -> int:
    """Close every view that the cell shows; returns how many there were."""
    closing = _open.pop(cell, [])
    for close in closing:
        close()
    return len(closing)
