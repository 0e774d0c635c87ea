"""A source of any kind as rows: JSON lines, JSON, CSV, Parquet, plain text, a folder of these, a hub data set.

Files are read row by row. What is held at a time: one record (at most 16 MiB), of Parquet one row group; a JSON document
has no lines to read it by, so it is read whole and may have 256 MiB.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geonb.errors import InputError

LARGEST_RECORD = 16 * 2**20
LARGEST_JSON = 256 * 2**20
UNDECODABLE = "undecodable bytes"
NOT_JSON = "not JSON"
NOT_A_RECORD = "neither an object nor a string"
FIELDS = "another number of fields than the header"
QUOTES = "broken quotes"
TOO_LARGE = "longer than 16 MiB"

KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
KINDS |= dict.fromkeys((".txt", ".text", ".md"), "text")
# what data sets keep beside their data
_METADATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json"}
_SPLITS = (("train", "training"), ("validation", "valid", "val", "dev", "eval"), ("test", "testing"))
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_PACKED = {b"\x1f\x8b": "a gzip file", b"PK\x03\x04": "a zip file", b"\x28\xb5\x2f\xfd": "a zstd file"}
_SAMPLE = 2**16


@dataclass(frozen=True, slots=True)
class Row:
    """One record as it lies in its file: line (or row) number from 1, and its columns, or why there are none."""

    line: int
    value: dict[str, Any] | None
    problem: str = ""
    excerpt: str = ""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source; `rows` may be called more than once."""

    path: Path
    name: str
    kind: str
    by_line: bool = False

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """Every row; `columns` limits what is read of a file that stores its columns apart."""
        _refuse_utf16(self.path)
        if self.kind == "parquet":
            return _parquet(self.path, columns)
        if self.kind in ("csv", "tsv"):
            return _delimited(self.path, tabs=self.kind == "tsv")
        if self.kind == "text":
            return _plain_text(self.path, by_line=self.by_line)
        return _json_lines(self.path) if self.kind == "jsonl" else _json_document(self.path)


@dataclass(frozen=True, slots=True)
class Source:
    """What was given, what it turned out to be, its files in order, and what was left aside."""

    given: str
    kind: str
    files: tuple[SourceFile, ...]
    notes: tuple[str, ...] = ()


def open_source(source: str | Path, *, split: str = "train", by_line: bool = False) -> Source:
    """The files of `source`: a file, a folder, `embedded:NAME`, or a hub data set owner/name (the only one fetched).

    Of a folder or data set whose file names tell splits, those of `split` are taken. Plain text has a record between
    blank lines, or on every line with `by_line`. Raises `InputError` for what cannot be read.

    >>> open_source("embedded:kjv").kind
    'jsonl'
    """
    from geonb.assets import resolve_data

    path = resolve_data(source)
    if path.is_dir():
        return _folder(str(source), path, split, by_line)
    if path.is_file():
        if split != "train":
            raise InputError(f"--split was given {split!r}, but the single file {path} has no splits: leave it out.")
        kind = _kind_of(path)
        return Source(str(source), kind, (SourceFile(path, path.name, kind, by_line),))
    if _HUB_ID.fullmatch(str(source)) and not path.parent.is_dir():
        return _hub(str(source), split)
    raise InputError(
        f"{source} does not exist; allowed are a file (jsonl, json, csv, tsv, parquet, txt), a folder of such files, "
        "embedded:NAME, or a hub data set such as owner/name: check the path."
    )


def _kind_of(path: Path) -> str:
    """The kind by the file's ending, and by its first bytes where the ending says nothing or too little."""
    with path.open("rb") as stream:
        head = stream.read(_SAMPLE)
    for magic, name in _PACKED.items():
        if head.startswith(magic):
            raise InputError(f"{path} is {name}; allowed are jsonl, json, csv, tsv, parquet and text: unpack it first.")
    kind = KINDS.get(path.suffix.lower())
    if head.startswith(b"PAR1"):
        return "parquet"
    if kind == "json" or (kind is None and head.removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"{", b"[")):
        return "jsonl" if _has_json_lines(path) else "json"
    if kind is None and b"\0" in head:
        _refuse_utf16(path)
        raise InputError(f"{path} is neither text nor Parquet; allowed are jsonl, json, csv, tsv, parquet and text.")
    return kind or "text"


def _has_json_lines(path: Path) -> bool:
    """Whether the first line is a whole object and another line follows: JSON lines, whatever the file is called."""
    lines = (line for _, line in _lines(path) if line is None or line.strip())
    try:
        return isinstance(json.loads(next(lines, None) or b"0"), dict) and any(True for _ in lines)
    except (ValueError, RecursionError):
        return False


def _refuse_utf16(path: Path) -> None:
    with path.open("rb") as stream:
        head = stream.read(512)
    marked = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE))
    # without a mark: Latin letters in UTF-16 have a zero in every other byte, and nowhere else
    few, many = sorted((head[::2].count(0), head[1::2].count(0)))
    if marked or (many > 4 and few == 0 and many > 0.7 * (len(head) // 2)):
        raise InputError(f"{path} is UTF-16 or UTF-32 text; allowed is UTF-8: save it as UTF-8.")


def _lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Number and bytes of each line without its end; None for one that is longer than a record may be."""
    with path.open("rb") as stream:
        if stream.read(3) != codecs.BOM_UTF8:
            stream.seek(0)
        number = 0
        while line := stream.readline(LARGEST_RECORD + 2):
            number += 1
            is_whole = len(line) <= LARGEST_RECORD + 1
            while not is_whole and line and not line.endswith(b"\n"):
                line = stream.readline(LARGEST_RECORD)
            yield number, line.rstrip(b"\r\n") if is_whole else None


def _decoded(number: int, content: bytes | None) -> str | Row:
    if content is None:
        return Row(number, None, TOO_LARGE)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return Row(number, None, UNDECODABLE, content[:200].decode("utf-8", "backslashreplace"))


def _json_row(number: int, item: Any) -> Row:
    if isinstance(item, dict):
        return Row(number, item)
    if isinstance(item, str):
        return Row(number, {"text": item})
    if isinstance(item, list) and item and isinstance(item[0], dict):
        return Row(number, {"messages": item})
    return Row(number, None, NOT_A_RECORD, str(item)[:200])


def _json_lines(path: Path) -> Iterator[Row]:
    for number, line in _lines(path):
        text = _decoded(number, line)
        if isinstance(text, Row):
            yield text
        elif text.strip():
            try:
                yield _json_row(number, json.loads(text))
            except (ValueError, RecursionError):
                yield Row(number, None, NOT_JSON, text[:200])


def _json_document(path: Path) -> Iterator[Row]:
    size = path.stat().st_size
    if size > LARGEST_JSON:
        raise InputError(f"{path} is one JSON document of {size:,} bytes; allowed are 256 MiB: save it as JSON lines.")
    try:
        document = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError too
        raise InputError(f"{path} is not JSON in UTF-8 that can be read ({error}): mend it.") from None
    for number, item in enumerate(_records_of(path, document), 1):
        yield _json_row(number, item)


def _records_of(path: Path, document: Any) -> list[Any]:
    """An array's items; of an object the one array of objects in it, or the object itself where that is a record."""
    if isinstance(document, list):
        return document
    values = document.items() if isinstance(document, dict) else ()
    tables = [key for key, value in values if isinstance(value, list) and value and isinstance(value[0], dict)]
    if len(tables) == 1:
        is_conversation = {"role", "from", "speaker"} & set(document[tables[0]][0])
        return [document] if is_conversation else document[tables[0]]
    if not tables and any(isinstance(value, str) for _, value in values):
        return [document]
    raise InputError(
        f"{path} is neither an array of objects, nor an object with one such array, nor a record: mend it."
    )


def _delimited(path: Path, *, tabs: bool) -> Iterator[Row]:
    # surrogateescape: one bad byte costs its record, not the file
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        delimiter, quoting = _dialect(stream.read(_SAMPLE), "\t,;|" if tabs else ",;\t|")
        stream.seek(0)
        reader = csv.reader(stream, delimiter=delimiter, quoting=quoting, strict=True)
        header: list[str] = []
        while True:
            number = reader.line_num + 1
            try:
                fields = _next(reader)
            except csv.Error as error:
                if not header or "limit" in str(error):
                    raise InputError(f"{path} line {number} is not CSV ({error}): close its quotes.") from None
                yield Row(number, None, QUOTES, str(error))
                continue
            if fields is None:
                return
            if not header:
                header = _header(path, fields)
            elif fields:
                yield _delimited_row(number, header, fields)


def _delimited_row(number: int, header: list[str], fields: list[str]) -> Row:
    try:
        (joined := ",".join(fields)).encode()
    except UnicodeEncodeError:
        shown = joined[:200].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return Row(number, None, UNDECODABLE, shown)
    if len(fields) != len(header):
        return Row(number, None, FIELDS, f"{len(fields)} instead of {len(header)}: {joined[:160]}")
    return Row(number, dict(zip(header, fields, strict=True)))


def _next(reader: Any) -> list[str] | None:
    # the limit belongs to the whole process, so it is changed for the length of one call
    before = csv.field_size_limit(LARGEST_RECORD)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def _header(path: Path, fields: list[str]) -> list[str]:
    header = [name.strip() or f"column {position}" for position, name in enumerate(fields, 1)]
    if any(letter < " " or "\ud800" <= letter <= "\udfff" for letter in "".join(header)):
        raise InputError(f"{path}: its first line is no text in UTF-8 and cannot name the columns: mend the header.")
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None or not header:
        what = "has an empty first line" if not header else f"names the column {twice!r} twice"
        raise InputError(f"{path} {what}; its first line must name each column once: mend the header.")
    return header


def _dialect(sample: str, delimiters: str) -> tuple[str, Any]:
    """Delimiter and quoting under which most records have as many fields as the header, and the header most fields."""
    best, chosen = (False, -1.0, 0), (",", csv.QUOTE_MINIMAL)
    # text between tabs is often written without quoting, so that its quotes mean nothing
    quotings: list[tuple[str, Any]] = [*((one, csv.QUOTE_MINIMAL) for one in delimiters), ("\t", csv.QUOTE_NONE)]
    for delimiter, quoting in quotings:
        reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
        widths: list[int] = []
        fields: list[str] | None = []
        while fields is not None:
            try:
                fields = _next(reader)
                widths += [len(fields)] if fields else []
            except csv.Error:
                widths.append(0)
        # the sample ends in the middle of a record
        widths = widths[:-1] if len(sample) == _SAMPLE else widths
        if widths and widths[0]:
            score = (widths[0] > 1, widths.count(widths[0]) / len(widths), widths[0])
            if score > best:
                best, chosen = score, (delimiter, quoting)
    return chosen


def _parquet(path: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise InputError(f"{path} is Parquet, which needs pyarrow: install geonb[data].") from None
    try:
        with parquet.ParquetFile(path) as file:
            wanted = [name for name in columns if name in file.schema_arrow.names] if columns is not None else None
            batches = map(_batch_rows, file.iter_batches(batch_size=256, columns=wanted))
            for number, row in enumerate(itertools.chain.from_iterable(batches), 1):
                yield Row(number, row, UNDECODABLE if row is None else "")
    except (arrow.ArrowException, OSError) as error:
        reason = str(error).split("\n")[0][:160]
        raise InputError(f"{path} cannot be read as Parquet ({reason}): copy or download it again.") from None


def _batch_rows(batch: Any) -> list[dict[str, Any] | None]:
    """The rows of a batch; None for one whose text is not UTF-8, found by halving."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        half = batch.num_rows // 2
        return _batch_rows(batch.slice(0, half)) + _batch_rows(batch.slice(half)) if half else [None]


def _plain_text(path: Path, *, by_line: bool) -> Iterator[Row]:
    first, size, lines = 0, 0, []

    def record() -> Row:
        text = _decoded(first, b"\n".join(lines) if size <= LARGEST_RECORD else None)
        return text if isinstance(text, Row) else Row(first, {"text": text})

    for number, line in _lines(path):
        is_blank = line is not None and not line.strip()
        if lines and (is_blank or by_line):
            yield record()
            size, lines = 0, []
        if not is_blank:
            first = first if lines else number
            size += LARGEST_RECORD + 1 if line is None else len(line) + 1
            # of a record that is too large nothing more is kept
            lines.append(line if line is not None and size <= LARGEST_RECORD else b"")
    if lines:
        yield record()


def _folder(given: str, folder: Path, split: str, by_line: bool) -> Source:
    root = folder.resolve()
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        # a link may not lead out of the folder that was given
        if path.is_file() and path.resolve().is_relative_to(root) and not any(part[0] == "." for part in name.parts):
            files[name.as_posix()] = path
    chosen = _of_split(str(folder), list(_data_files(str(folder), list(files))), split)
    aside = [name for name in files if name not in chosen]
    shown = ", ".join(map(repr, aside[:5])) + (", ..." if len(aside) > 5 else "")
    opened = tuple(SourceFile(files[name], name, _kind_of(files[name]), by_line) for name in chosen)
    return Source(given, "folder", opened, (f"files left aside: {len(aside)} ({shown})",) if aside else ())


def _data_files(where: str, names: Sequence[str]) -> dict[str, str]:
    """The kind of each file that is data; beside data, a text file is a description of it."""
    kinds = {name: KINDS.get(Path(name).suffix.lower(), "") for name in names if Path(name).name not in _METADATA}
    data = {name: kind for name, kind in kinds.items() if kind}
    if not data:
        raise InputError(f"{where} holds no file of a kind that can be read; allowed are {', '.join(sorted(KINDS))}.")
    return {name: kind for name, kind in data.items() if kind != "text"} or data


def _of_split(where: str, names: Sequence[str], split: str) -> list[str]:
    """The files of one split by the words of their names; where no name tells a split, all belong to `train`."""
    words = {name: set(re.split(r"[^a-z0-9]+", name.lower())) for name in names}
    asked = next((group for group in _SPLITS if split.lower() in group), (split.lower(),))
    taken = [name for name in names if words[name] & set(asked)]
    if not taken and "train" in asked:
        taken = [name for name in names if not any(words[name] & set(group) for group in _SPLITS)]
    if not taken:
        there = [group[0] for group in _SPLITS if any(words[name] & set(group) for name in names)]
        raise InputError(f"{where} has no file of the split {split!r}; give one of {', '.join(there) or 'none'}.")
    return taken


def _hub(name: str, split: str) -> Source:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HFValidationError, HTTPError

    try:
        info = HfApi().dataset_info(name)
        kinds = _data_files(name, sorted(sibling.rfilename for sibling in info.siblings or ()))
        # a data set that comes in several formats holds the same records in each
        kind = min(kinds.values(), key=("parquet", "jsonl", "csv", "tsv", "json", "text").index)
        chosen = _of_split(name, [file for file, its in kinds.items() if its == kind], split)
        paths = [Path(hf_hub_download(name, file, repo_type="dataset", revision=info.sha)) for file in chosen]
    except (HTTPError, OSError, HFValidationError) as error:
        reason = str(error).split("\n")[0][:160]
        raise InputError(
            f"{name} is no local path, and the hub did not deliver that data set ({reason}): check the name and the network."
        ) from None
    files = tuple(SourceFile(path, file, _kind_of(path)) for path, file in zip(paths, chosen, strict=True))
    return Source(name, "hub data set", files, (f"{len(files)} {kind} files of revision {info.sha}",))
