"""A source of any kind to geonb's JSONL, with what was taken, what was dropped and why, and how long the records are.

Everything streams: beside what `sources` holds of a file, a digest of 16 bytes and two lengths stay for each kept record
(114 bytes with Python's own share, measured on 500,000), whatever the records' size.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import shlex
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from geonb.data.columns import ColumnChoice, Unusable, check_named, choose_columns, to_record
from geonb.data.sources import Row, Source, SourceFile, open_source
from geonb.errors import InputError
from geonb.record_tables import table_html
from geonb.records import Record, plain

DUPLICATE = "duplicate"
_SAMPLE = 100  # rows that the columns are chosen from
_LISTED = 1000  # dropped records that are listed one by one
_EXCERPT = 80
# geonb's two forms, read wherever a file mixes them, also below the sample
_OWN = tuple(
    ColumnChoice(kind=kind, columns=(name,), extra={}, because="geonb's own form", others=())
    for kind, name in (("conversation", "messages"), ("text", "text"))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped(Record):
    """One record that was left out: where it stood, why, and how it begins."""

    file: str
    line: int
    reason: str
    excerpt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnsUsed(Record):
    """One reading of the source and how many of the kept records came by it."""

    choice: ColumnChoice
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths(Record):
    """Lengths of the kept records; median and p95 interpolate between neighbours."""

    unit: str
    minimum: int
    mean: float
    median: float
    p95: float
    maximum: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared(Record):
    """What became of a source: n_read = n_kept + n_removed, and `removed` counts the removed by reason."""

    source: str
    format: str
    files: tuple[str, ...]
    output: str
    digest: str  # sha256 of the output
    n_read: int
    n_kept: int
    n_removed: int
    removed: dict[str, int]
    dropped: tuple[Dropped, ...]
    columns: tuple[ColumnsUsed, ...]
    kinds: dict[str, int]  # kept records by "text" and "messages"
    roles: dict[str, int]  # "human -> user" and the like, messages renamed
    characters: Lengths
    tokens: Lengths | None
    context_length: int | None
    n_beyond_context: int | None
    notes: tuple[str, ...]
    next_command: str

    def summary(self) -> str:
        return f"Prepared({self.output!r}, {self.n_kept:,} of {self.n_read:,} records)"

    def to_text(self) -> str:
        lines = [
            f"{self.n_kept:,} of {self.n_read:,} records of {self.source!r} ({self.format}) -> {self.output!r}",
            "",
        ]
        for used in self.columns:
            choice = used.choice
            lines.append(f"  {choice.kind:12}  {' + '.join(map(repr, choice.columns))}: {used.n:,} records")
            lines.append(f"                {choice.because}")
            if choice.extra:
                lines.append(
                    f"                with {', '.join(f'{name} from {its!r}' for name, its in choice.extra.items())}"
                )
            if choice.others:
                lines.append(f"                not used: {', '.join(map(repr, choice.others[:12]))}")
        lines += [f"  {'role':12}  {name!r}, {count:,} messages" for name, count in self.roles.items()]
        lines += ["", f"  {'':12} {'least':>9} {'mean':>11} {'median':>9} {'p95':>9} {'most':>9}"]
        for one in (self.characters, self.tokens):
            if one is not None:
                numbers = f"{one.minimum:>9,} {one.mean:>11,.1f} {one.median:>9,.0f} {one.p95:>9,.0f} {one.maximum:>9,}"
                lines.append(f"  {one.unit:12} {numbers}")
        lines += ["", f"  removed       {self.n_removed:,}"]
        lines += [f"    {count:>8,}  {reason}" for reason, count in self.removed.items()]
        for one in self.dropped:
            lines.append(f"    {one.file!r} line {one.line}: {one.reason}: {one.excerpt!r}")
        if self.dropped and len(self.dropped) < self.n_removed:
            lines.append(f"    and {self.n_removed - len(self.dropped):,} more that are not listed")
        lines += [f"  note          {note}" for note in self.notes]
        text = "\n".join([*lines, "", f"  next          {self.next_command}"])
        # repr shows the control characters of names and excerpts; of what is left none reaches a terminal
        return plain(text, keep="\n")

    def to_html(self) -> str:
        lengths = [
            (one.unit, one.minimum, one.mean, one.median, one.p95, one.maximum)
            for one in (self.characters, self.tokens)
            if one is not None
        ]
        caption = f"{self.n_kept:,} of {self.n_read:,} records of {self.source} in {self.output}"
        tables = table_html(("", "least", "mean", "median", "p95", "most"), lengths, caption=caption)
        rows = [(one.choice.kind, " + ".join(one.choice.columns), one.choice.because, one.n) for one in self.columns]
        tables += table_html(("read as", "columns", "because", "records"), rows)
        if self.removed:
            tables += table_html(("removed because", "records"), self.removed.items())
        if self.dropped:
            listed = [(one.file, one.line, one.reason, repr(one.excerpt)) for one in self.dropped]
            tables += table_html(("file", "line", "removed because", "it begins"), listed)
        remarks = [(note,) for note in (*self.notes, f"next: {self.next_command}")]
        return tables + table_html(("notes",), remarks)


def prepare(
    source: str | Path,
    output: str | Path | None = None,
    *,
    tokenizer: Any = None,
    context_length: int | None = None,
    model: str = "embedded",
    text_column: str | None = None,
    prompt_column: str | None = None,
    answer_column: str | None = None,
    split: str = "train",
    by_line: bool = False,
    show_dropped: bool = False,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Prepared:
    """Write the records of `source` as JSONL that `read_records` reads, and say what was done.

    With `tokenizer` lengths are counted in tokens as well, as training would see them, against `context_length`; `model`
    only names them in the suggested next command. The default output stands beside the source, as
    NAME.prepared.jsonl. `show_dropped` lists up to 1,000 removed records. Raises `InputError` for a source that cannot be
    read or leaves no record, and for an output that exists without `overwrite`; nothing is written then.

    >>> prepare("embedded:kjv", "verses.jsonl", overwrite=True).removed
    {'duplicate': 1}
    """
    check_named(text_column, prompt_column, answer_column)
    opened = open_source(source, split=split, by_line=by_line)
    target = _target(opened, output, overwrite=overwrite)
    named = {"text": text_column, "prompt": prompt_column, "answer": answer_column}
    work = _Preparation(named, tokenizer, _LISTED if show_dropped else 0)
    with _written(target, exclusive=not overwrite) as stream:
        for file in opened.files:
            for line in work.lines(file):
                stream.write(line)
                if progress is not None and work.n_kept % 500 == 0:
                    progress(f"{work.n_read:,} records read, {work.n_kept:,} kept")
        if not work.n_kept:
            raise InputError(
                f"{source} leaves no record of {work.n_read} ({_counted(work.removed) or 'it is empty'}): "
                "name its columns, or give another source."
            )
    beyond = None
    if tokenizer is not None and context_length is not None:
        beyond = int((np.asarray(work.tokens) > context_length).sum())
    return Prepared(
        source=str(source),
        format=opened.kind,
        files=tuple(file.name for file in opened.files),
        output=str(target),
        digest=work.digest.hexdigest(),
        n_read=work.n_read,
        n_kept=work.n_kept,
        n_removed=sum(work.removed.values()),
        removed=dict(work.removed.most_common()),
        dropped=tuple(work.dropped),
        columns=work.columns(),
        kinds=dict(sorted(work.kinds.items())),
        roles=dict(sorted(work.roles.items())),
        characters=_lengths("characters", work.characters),
        tokens=_lengths("tokens", work.tokens) if len(work.tokens) else None,
        context_length=context_length,
        n_beyond_context=beyond,
        notes=tuple(_notes(opened, work, context_length, beyond)),
        next_command=shlex.join(["geonb", "plan", "-m", model, "-d", str(target)]),
    )


class _Preparation:
    """The counts that grow while rows go by."""

    def __init__(self, named: dict[str, str | None], tokenizer: Any, listed: int) -> None:
        self._named, self._tokenizer, self._room = named, tokenizer, listed
        self._seen: set[bytes] = set()
        self._used: dict[tuple[str, ...], tuple[ColumnChoice, int]] = {}
        self.n_read = self.n_kept = self.n_untokenised = 0
        self.untokenised = ""
        self.removed: Counter[str] = Counter()
        self.dropped: list[Dropped] = []
        self.kinds: Counter[str] = Counter()
        self.roles: Counter[str] = Counter()
        self.characters, self.tokens = array("q"), array("q")
        self.digest = hashlib.sha256()

    def columns(self) -> tuple[ColumnsUsed, ...]:
        return tuple(ColumnsUsed(choice=choice, n=n) for choice, n in self._used.values())

    def lines(self, file: SourceFile) -> Iterator[bytes]:
        """The kept records of one file as lines of JSONL."""
        values = (row.value for row in file.rows() if row.value is not None)
        sample = list(itertools.islice(values, _SAMPLE))
        choices: tuple[ColumnChoice, ...] = ()
        if sample:
            choices = choose_columns(sample, **self._named, where=str(file.path))
            if not any(self._named.values()):
                choices += tuple(own for own in _OWN if all(own.columns != choice.columns for choice in choices))
        for row in file.rows(_needed(choices)):
            self.n_read += 1
            try:
                record, position = self._record(row, choices)
            except Unusable as reason:
                self._drop(file, row, str(reason), _needed(choices))
                continue
            key = (choices[position].kind, *choices[position].columns)
            first, count = self._used.get(key, (choices[position], 0))
            self._used[key] = (first, count + 1)
            yield self._keep(record, row)

    def _record(self, row: Row, choices: tuple[ColumnChoice, ...]) -> tuple[dict[str, Any], int]:
        if row.value is None:
            raise Unusable(row.problem)
        renamed: Counter[str] = Counter()
        record, position = to_record(row.value, choices, renamed)
        digest = hashlib.blake2b(json.dumps(record).encode(), digest_size=16).digest()
        if digest in self._seen:
            raise Unusable(DUPLICATE)
        self._seen.add(digest)
        self.roles.update(renamed)
        return record, position

    def _keep(self, record: dict[str, Any], row: Row) -> bytes:
        self.n_kept += 1
        kind = "text" if "text" in record else "messages"
        self.kinds[kind] += 1
        contents = [record["text"]] if kind == "text" else [message["content"] for message in record["messages"]]
        self.characters.append(sum(map(len, contents)))
        if self._tokenizer is not None:
            self._count_tokens(record, row.line)
        group = (row.value or {}).get("group")
        line = _json_line({**record, "group": group} if isinstance(group, str) else record)
        self.digest.update(line)
        return line

    def _count_tokens(self, record: dict[str, Any], line: int) -> None:
        from geonb.data.dataset import tokenise
        from geonb.data.records import DataRecord

        messages = tuple(record.get("messages", ()))
        one = DataRecord(line, "messages" if messages else "text", record.get("text", ""), messages, None, "")
        try:
            self.tokens.append(len(tokenise([one], self._tokenizer, context_length=None).examples[0].input_ids))
        except InputError as error:
            self.n_untokenised += 1
            self.untokenised = self.untokenised or str(error)

    def _drop(self, file: SourceFile, row: Row, reason: str, columns: list[str]) -> None:
        self.removed[reason] += 1
        if len(self.dropped) < self._room:
            values = [str(row.value[name]) for name in columns if row.value and row.value.get(name)]
            # a lone surrogate cannot be written as UTF-8
            excerpt = (row.excerpt or " | ".join(values))[:_EXCERPT].encode("utf-8", "backslashreplace").decode()
            self.dropped.append(Dropped(file=file.name, line=row.line, reason=reason, excerpt=excerpt))


def _needed(choices: tuple[ColumnChoice, ...]) -> list[str]:
    return [name for choice in choices for name in (*choice.columns, *choice.extra.values())]


def _json_line(record: dict[str, Any]) -> bytes:
    text = json.dumps(record, ensure_ascii=False)
    # Unicode's own line ends would cut the line for a reader that splits at all of them
    for character in "\x85\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f"{text}\n".encode()


def _target(source: Source, output: str | Path | None, *, overwrite: bool) -> Path:
    if output is not None:
        target = Path(output).expanduser()
    else:
        is_shipped = source.given.startswith("embedded:")
        given = Path(source.given.removeprefix("embedded:").replace("/", "-") if is_shipped else source.given)
        beside = given.expanduser().parent if source.kind != "hub data set" else Path()
        target = beside / f"{given.stem if source.kind != 'folder' else given.name}.prepared.jsonl"
    if target.is_dir() or not target.absolute().parent.is_dir():
        what = "is a folder" if target.is_dir() else "lies in a folder that does not exist"
        raise InputError(f"the output {target} {what}; allowed is a file in a folder that exists: give another -o.")
    if any(target.resolve() == file.path.resolve() for file in source.files):
        raise InputError(f"the output {target} is the source itself: give another -o.")
    if source.kind == "folder" and target.resolve().is_relative_to(Path(source.given).expanduser().resolve()):
        raise InputError(
            f"the output {target} lies in the source's own folder, so the next call would read it: move it."
        )
    if target.exists() and not overwrite:
        raise InputError(f"the output {target} exists: give another -o, or --overwrite to replace it.")
    return target


@contextlib.contextmanager
def _written(target: Path, *, exclusive: bool) -> Iterator[BinaryIO]:
    """A stream into a temporary file beside `target` that takes its place when the block ends well."""
    handle, name = tempfile.mkstemp(dir=target.absolute().parent, prefix=f".{target.name}.", suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        if exclusive:
            os.link(temporary, target)
        else:
            temporary.replace(target)
    except FileExistsError:
        raise InputError(f"the output {target} was written by another process meanwhile: give another -o.") from None
    finally:
        temporary.unlink(missing_ok=True)


def _lengths(unit: str, lengths: array) -> Lengths:
    values = np.asarray(lengths)
    return Lengths(
        unit=unit,
        minimum=int(values.min()),
        mean=float(values.mean()),
        median=float(np.median(values)),
        p95=float(np.quantile(values, 0.95)),
        maximum=int(values.max()),
        total=int(values.sum()),
    )


def _counted(removed: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in removed.most_common())


def _notes(source: Source, work: _Preparation, context: int | None, beyond: int | None) -> Iterator[str]:
    from geonb.data.split import LEAST, MOST_SHARE

    yield from source.notes
    if beyond:
        yield f"{beyond:,} records are longer than the model's context of {context:,} tokens; training cuts them"
    if work.n_untokenised:
        yield f"{work.n_untokenised:,} records cannot be tokenised; the first: {work.untokenised}"
    if work.n_kept < (needed := math.ceil(LEAST / MOST_SHARE)):
        yield f"fewer than {needed} records leave none to evaluate on: give more, or a file with --eval-data"
