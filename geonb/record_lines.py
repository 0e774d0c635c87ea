"""Records as lines of a JSONL file that grows run by run, can be cut at any moment and is taken up again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypeVar

from geonb.errors import InputError
from geonb.records import Record

R = TypeVar("R", bound=Record)


def read_lines(path: Path, kind: type[R], what: str) -> list[R]:
    """Every whole line of `path` as a record, in order; [] where there is no file.

    What follows the last line feed was cut by a kill and is left out: it is made again. Raises `InputError` naming the line that
    is no `what` ("row of the benchmark").
    """
    if not path.is_file():
        return []
    found = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines[:-1], 1):
        if not line.strip():
            continue
        try:
            found.append(kind.from_json(line))
        except InputError as error:
            raise InputError(f"{path} line {number} is no {what} ({error}): mend or remove the line.") from None
    return found


def append_line(path: Path, record: Record) -> None:
    """Write one line to the end of `path` and see it onto the disk; a line that a kill left half is cut off first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as stream:
        size = stream.seek(0, os.SEEK_END)
        if size:
            stream.seek(0)
            whole = stream.read().rfind(b"\n") + 1
            if whole < size:
                stream.truncate(whole)
        stream.write((json.dumps(record.to_dict(), allow_nan=False, separators=(",", ":")) + "\n").encode())
        stream.flush()
        os.fsync(stream.fileno())
