"""An executed notebook as a page to read: everything in it is shown, nothing in it runs or asks the network."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geonb.errors import InputError
from geonb.records import parse_json, plain, read_bytes

_LIMIT = 20_000_000  # bytes
# with no script and no address allowed, an output may be whatever it is
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
body{font:15px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;max-width:60rem;margin:0 auto;padding:1rem;color:#1b1d21;
background:#fff;overflow-wrap:anywhere}
pre{background:#f4f5f7;border-radius:.4rem;padding:.5rem .8rem;overflow:auto;font-size:12.5px}
pre.out{background:none;border-left:3px solid #ccd;margin:.3rem 0}
pre.bad{border-left-color:#D55E00}
img{max-width:100%}table{border-collapse:collapse}td,th{padding:.15rem .5rem;text-align:left}
"""
_IMAGES = ("image/png", "image/jpeg")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def notebook_html(path: Path) -> str:
    """The notebook at `path` as a whole page; raises `InputError` for a file that is none or is too large."""
    raw = read_bytes(path)
    if len(raw) > _LIMIT:
        raise InputError(f"{path.name} has {len(raw):,} bytes; allowed are {_LIMIT:,}: open it in JupyterLab.")
    data = parse_json(raw, path.name)
    cells = data.get("cells") if isinstance(data, dict) else None
    if not isinstance(cells, list):
        raise InputError(f"{path.name} is no notebook: it has no list of cells.")
    body = "".join(part for cell in cells if isinstance(cell, dict) for part in _cell(cell))
    return (
        f'<!doctype html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{html.escape(plain(path.name))}</title><style>{_STYLE}</style>{body}"
    )


def in_a_frame(page: str, *, title: str) -> str:
    """A page inside another, in a frame that may do nothing at all."""
    return (
        f'<iframe sandbox="" title="{html.escape(plain(title), quote=True)}" srcdoc="{html.escape(page, quote=True)}" '
        'style="width:100%;height:80vh;border:1px solid #8884;border-radius:.4rem;background:#fff"></iframe>'
    )


def _cell(cell: dict[str, Any]) -> Iterator[str]:
    source = _text(cell.get("source"))
    if cell.get("cell_type") == "markdown":
        from markdown_it import MarkdownIt

        # markup of its own stays text
        yield MarkdownIt("commonmark", {"html": False}).enable("table").render(source)
    elif source.strip():
        yield f"<pre>{html.escape(source)}</pre>"
    outputs = cell.get("outputs")
    for output in outputs if isinstance(outputs, list) else []:
        if isinstance(output, dict):
            yield _output(output)


def _output(output: dict[str, Any]) -> str:
    if output.get("output_type") == "error":
        lines = output.get("traceback")
        told = "\n".join(map(str, lines)) if isinstance(lines, list) else _text(output.get("evalue"))
        return f'<pre class="out bad">{html.escape(_ANSI.sub("", told))}</pre>'
    data = output.get("data")
    if not isinstance(data, dict):
        return f'<pre class="out">{html.escape(_ANSI.sub("", _text(output.get("text"))))}</pre>'
    if "text/html" in data:
        return f"<div>{_text(data['text/html'])}</div>"
    for kind in _IMAGES:
        if kind in data:
            inside = re.sub(r"[^A-Za-z0-9+/=]", "", _text(data[kind]))
            return f'<img alt="a picture of the notebook" src="data:{kind};base64,{inside}">'
    if "text/markdown" in data and "text/plain" not in data:
        return f'<pre class="out">{html.escape(_text(data["text/markdown"]))}</pre>'
    return f'<pre class="out">{html.escape(_text(data.get("text/plain")))}</pre>'


def _text(source: Any) -> str:
    return "".join(map(str, source)) if isinstance(source, list) else str(source or "")
