"""Records of a JSONL file: {"text"} or {"messages"}, each checked with its line number."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geonb.errors import InputError
from geonb.records import has_half_character, is_file, read_bytes

_ROLES = ("system", "user", "assistant", "tool", "developer")


@dataclass(frozen=True, slots=True)
class DataRecord:
    """One checked record: its line, its kind ("text" or "messages"), its payload and an optional group."""

    line: int
    kind: str
    text: str
    messages: tuple[dict[str, str], ...]
    group: str | None
    digest: str


def read_records(path: str | Path) -> list[DataRecord]:
    """Every record of a JSONL file; the first line that is no record is an `InputError` with its number."""
    path = Path(path)
    if not is_file(path):
        raise InputError(f"{path} is not a file; the data is a JSONL file with one record a line: check the path.")
    try:
        # by line feeds alone: a JSON string may hold U+2028 and its kin as they are
        lines = read_bytes(path).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text (byte {error.start}); allowed is JSONL in UTF-8: save it so."
        ) from None
    records = [_record(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not records:
        raise InputError(f'{path} is empty; it needs at least one record a line, such as {{"text": "..."}}.')
    return records


def json_of_line(where: str, line: str) -> Any:
    """The value on one line of a JSONL file; `where` names file and line in the `InputError` for what is not read."""
    try:
        value = json.loads(line)
        if not has_half_character(value, line):
            return value
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where} is not JSON ({error.msg} at column {error.colno}): mend or remove the line."
        ) from None
    except (ValueError, RecursionError) as error:
        reason = str(error).split(";")[0][:100]
        raise InputError(f"{where} holds JSON that is not read ({reason}): mend or remove the line.") from None
    raise InputError(
        f"{where} holds half a character (a lone surrogate), which is no Unicode text: mend or remove the line."
    )


def _record(path: Path, number: int, line: str) -> DataRecord:
    where = f"{path} line {number}"
    data = json_of_line(where, line)
    if not isinstance(data, dict) or ("text" in data) == ("messages" in data):
        has = "both" if isinstance(data, dict) and "text" in data else "neither"
        raise InputError(
            f'{where} has {has} of the fields "text" and "messages"; a record has exactly one: mend the line.'
        )
    group = data.get("group")
    if group is not None and not isinstance(group, str):
        raise InputError(f'{where} has a "group" that is a {type(group).__name__}; allowed is a string: mend the line.')
    canonical = json.dumps({key: data[key] for key in ("text", "messages") if key in data}, sort_keys=True)
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    if "text" in data:
        text = data["text"]
        if not isinstance(text, str) or not text.strip():
            raise InputError(f'{where} has a "text" that is not a non-empty string: mend or remove the line.')
        return DataRecord(number, "text", text, (), group, digest)
    return DataRecord(number, "messages", "", _messages(where, data["messages"]), group, digest)


def _messages(where: str, messages: Any) -> tuple[dict[str, str], ...]:
    if not isinstance(messages, list) or not messages:
        raise InputError(f'{where} has "messages" that are not a non-empty list: mend the line.')
    checked = []
    for position, message in enumerate(messages, 1):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise InputError(
                f'{where}, message {position} has no "content" string: each message has "role" and "content".'
            )
        if message.get("role") not in _ROLES:
            raise InputError(
                f"{where}, message {position} has the role {message.get('role')!r}; allowed are {', '.join(_ROLES)}."
            )
        checked.append({"role": message["role"], "content": message["content"]})
    if not any(message["role"] == "assistant" for message in checked):
        raise InputError(
            f"{where} has no assistant turn, so there is nothing to learn from it: add one or remove the line."
        )
    return tuple(checked)
