"""The last cell of a claim's notebook: show the verdict, hand it to whoever runs the notebook, and fail where it failed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from geonb.claims.checks import Check
from geonb.claims.register import Register
from geonb.claims.verdict import ClaimResult, judge
from geonb.errors import ClaimError, InputError
from geonb.records import atomic_write, is_file, parse_json, read_bytes

# an environment variable: where a runner wants the result of the notebook that it starts
OUTPUT = "GEONB_VERDICT"
MIME = f"application/vnd.geonb.{ClaimResult.__name__.lower()}.v1+json"


def verify(
    claim_id: str,
    checks: Sequence[Check],
    *,
    profile: str = "full",
    register: Register | None = None,
    output: str | Path | None = None,
) -> None:
    """Judge a claim (see `judge`), show the result, write it to `output` or $GEONB_VERDICT, and raise where it failed.

    The result is shown as text, HTML and JSON under the type `MIME`, so that an executed notebook holds it for
    `result_of`. A file is replaced only where it holds a result of the same claim. Raises `ClaimError` (an
    `AssertionError`) after all that where the run failed, and `InputError` for what cannot be judged or written.

    >>> verify("zero-knob", [Check.of("largest ||dW||_2 / R", 0.98, "<=", 1, part="bound")])    # doctest: +SKIP
    """
    result = judge(claim_id, checks, profile=profile, register=register)
    wanted = output or os.environ.get(OUTPUT)
    target = None if not wanted else _writable(Path(wanted), claim_id)
    _show(result)
    if target is not None:
        atomic_write(target, result.to_json(indent=1) + "\n")
    if not result.passed:
        first, *more = result.problems
        raise ClaimError(first + (f" (and {len(more)} more)" if more else ""))


def result_of(notebook: str | Path) -> ClaimResult:
    """The result that the last code cell of an executed notebook holds.

    No other cell counts: a run that broke before its end has no result, whatever it showed on the way. Raises
    `InputError` for a file that is no notebook or holds none: one that was never executed, broke, or was stripped of it.
    """
    path = Path(notebook)
    if not is_file(path):
        raise InputError(f"{path} is not a file: give the path of an executed notebook.")
    data = parse_json(read_bytes(path), str(path))
    found = [bundle[MIME] for bundle in _bundles(data) if MIME in bundle]
    if not found:
        raise InputError(
            f"{path} holds no result of a claim in its last code cell ({MIME}): execute it to its end, and keep its outputs."
        )
    return ClaimResult.from_dict(found[-1])


def _bundles(notebook: Any) -> Iterator[dict[str, Any]]:
    """The data of each output of the last code cell; what has another shape than a notebook's is passed over."""
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    cells = cells if isinstance(cells, list) else []
    code = [cell for cell in cells if isinstance(cell, dict) and cell.get("cell_type") == "code"]
    outputs = code[-1].get("outputs") if code else None
    for output in outputs if isinstance(outputs, list) else []:
        data = output.get("data") if isinstance(output, dict) else None
        if isinstance(data, dict):
            yield data


def _writable(path: Path, claim_id: str) -> Path:
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is no folder; allowed is a file in a folder that is there: make it first.")
    if path.exists():
        try:
            before = ClaimResult.load(path).claim
        except InputError:
            before = None
        if before != claim_id:
            raise InputError(f"{path} is there and holds no result of {claim_id}: give another file, or remove it.")
    return path


def _show(result: ClaimResult) -> None:
    # a notebook has IPython loaded already; a script has no use for it
    interactive = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive is not None else None
    if shell is not None and getattr(shell, "kernel", None) is not None:
        from IPython.display import display

        display(result)
    else:
        print(result)
