"""The documentation packages that the embedded model learns from, with their licences, and their text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from geonb.errors import InputError


@dataclass(frozen=True, slots=True)
class Source:
    """One Debian package of documentation: where its HTML lies and under which licence it may be used."""

    package: str
    folder: str
    licence: str
    holder: str


SOURCES = (
    Source("python3.11-doc", "/usr/share/doc/python3.11/html", "PSF-2.0", "Python Software Foundation"),
    Source(
        "postgresql-doc-15",
        "/usr/share/doc/postgresql-doc-15/html",
        "PostgreSQL",
        "The PostgreSQL Global Development Group; The Regents of the University of California",
    ),
    Source("sqlite3-doc", "/usr/share/doc/sqlite3", "blessing (public domain)", "the SQLite authors"),
    Source("nodejs-doc", "/usr/share/doc/nodejs/api", "MIT", "Node.js contributors"),
)

_SKIPPED = {"script", "style", "nav", "head", "svg", "footer", "form", "button", "select"}
_BLOCKS = {"p", "div", "li", "dd", "dt", "pre", "h1", "h2", "h3", "h4", "tr", "section", "table", "br", "blockquote"}
# pages that are lists of links, not prose
_NOT_PROSE = re.compile(r"(genindex|py-modindex|search|contents|bookindex|all\.html|changelog|copyright|index\.html)")
_NAVIGATION = re.compile(r"^(next|previous|prev|up|home|index|modules|\||»|¶|·|table of contents|navigation)\W*$", re.I)


class _Text(HTMLParser):
    """Collects the visible text of a page, one block a line; code keeps its line breaks."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.lines: list[str] = []
        self._line: list[str] = []
        self._skipping = 0
        self._code = 0

    def handle_starttag(self, tag, attrs):
        if tag in _SKIPPED:
            self._skipping += 1
        if tag in _BLOCKS:
            self._end_line()
        if tag == "pre":
            self._code += 1

    def handle_endtag(self, tag):
        if tag in _SKIPPED and self._skipping:
            self._skipping -= 1
        if tag in _BLOCKS:
            self._end_line()
        if tag == "pre" and self._code:
            self._code -= 1

    def handle_data(self, data):
        if self._skipping:
            return
        if self._code:
            first, *rest = data.split("\n")
            self._line.append(first)
            for line in rest:
                self._end_line(keep_indent=True)
                self._line.append(line)
        else:
            self._line.append(re.sub(r"\s+", " ", data))

    def _end_line(self, *, keep_indent: bool = False) -> None:
        line = "".join(self._line)
        self._line = []
        line = line.rstrip() if keep_indent or self._code else line.strip()
        if line and not _NAVIGATION.match(line.strip()):
            self.lines.append(line)


def plain_text(page: str) -> str:
    """The visible text of one HTML page in plain ASCII punctuation, one block a line."""
    parser = _Text()
    parser.feed(page)
    parser.close()
    text = "\n".join(parser.lines)
    for fancy, plain in (
        ("“", '"'),
        ("”", '"'),
        ("‘", "'"),
        ("’", "'"),
        ("—", "--"),
        ("–", "-"),
        ("…", "..."),
        ("¶", ""),
    ):
        text = text.replace(fancy, plain)
    return re.sub(r"[^\x09\x0a\x20-\x7e]", "", text)


def pages(source: Source) -> Iterator[tuple[str, str]]:
    """`(name, text)` of every page of prose of one package, in sorted order."""
    folder = Path(source.folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not there; the corpus needs Debian's {source.package}: install that package.")
    found: list[tuple[str, str]] = []
    for path in sorted(folder.rglob("*.html")):
        name = path.relative_to(folder).as_posix()
        if _NOT_PROSE.search(name):
            continue
        text = plain_text(path.read_text(encoding="utf-8", errors="ignore"))
        found.append((name, text))
    # a line on more than one page in twenty is a frame around the prose, not prose
    frames = Counter(line for _, text in found for line in set(text.split("\n")))
    common = {line for line, count in frames.items() if count > max(4, len(found) / 20)}
    for name, text in found:
        prose = "\n".join(line for line in text.split("\n") if line not in common or line.startswith(" "))
        if len(prose) > 400:
            yield f"{source.package}/{name}", prose
