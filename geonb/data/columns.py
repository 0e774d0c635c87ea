"""Which columns of a table hold the text, the question and its answer, or the conversation; and a row as a record.

The order, first that fits: a conversation (a column of messages), a pair of prompt and answer, a text. A row uses the
first of these whose columns it fills, so a file may mix them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geonb.errors import InputError
from geonb.records import Record

CONVERSATION, PAIR, TEXT = "conversation", "pair", "text"
EMPTY = "empty"
NOT_A_STRING = "not a string"
NOT_MESSAGES = "not a list of messages"
NOT_UNICODE = "not valid Unicode"
NO_ANSWER = "no assistant turn"
UNKNOWN_ROLE = "unknown role"
TOOL_CALLS = "tool calls, which the format has no field for"
NO_COLUMN = "none of the chosen columns"

_CONVERSATIONS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns")
_PAIRS = (
    *(("prompt", name) for name in ("completion", "response", "answer", "output")),
    *(("instruction", name) for name in ("output", "response", "answer", "completion")),
    *(("question", name) for name in ("answer", "response", "output")),
    *(("query", name) for name in ("response", "answer")),
    ("input", "output"),
)
# without an answer beside it, the last four are prompts: read as text, and said so
_TEXTS = ("text", "content", "question", "input", "prompt", "instruction")
_SYSTEMS = ("system", "system_prompt")
_ROLES = {
    **{name: "user" for name in ("user", "human", "prompter", "question")},
    **{name: "assistant" for name in ("assistant", "gpt", "bot", "chatbot", "chatgpt", "model", "ai", "function_call")},
    **{name: "tool" for name in ("tool", "function", "observation")},
    **{name: name for name in ("system", "developer")},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnChoice(Record):
    """One reading of a row: `kind` is conversation, pair or text; `extra` are columns added to the prompt."""

    kind: str
    columns: tuple[str, ...]
    extra: dict[str, str]  # "system" or "input" -> its column
    because: str
    others: tuple[str, ...]


class Unusable(ValueError):
    """A row that becomes no record, with the reason it is counted under."""


def choose_columns(
    sample: Sequence[dict[str, Any]],
    *,
    text: str | None = None,
    prompt: str | None = None,
    answer: str | None = None,
    where: str = "the source",
) -> tuple[ColumnChoice, ...]:
    """The readings of rows like those of `sample`, first to try first; `text` or `prompt` with `answer` fix the one.

    Raises `InputError` when a column that was named is not there, or when none looks like text.

    >>> choose_columns([{"id": 1, "prompt": "2 + 2?", "answer": "4"}])[0].columns
    ('prompt', 'answer')
    """
    check_named(text, prompt, answer)
    names = list(dict.fromkeys(name for row in sample for name in row))
    listed = ", ".join(repr(name) for name in names[:20])
    for name in (text, prompt, answer):
        if name is not None and name not in names:
            raise InputError(f"{where} has no column {name!r}; there are {listed}: name one of these.")
    if text is not None:
        return (_choice(TEXT, (text,), "named by --text-column", names),)
    if prompt is not None and answer is not None:
        return (_choice(PAIR, (prompt, answer), "named by --prompt-column and --answer-column", names),)
    found = _detect(sample, names)
    if not found:
        raise InputError(
            f"{where} has no column that looks like text; there are {listed or 'none'}: name one with --text-column, or two "
            "with --prompt-column and --answer-column."
        )
    return found


def check_named(text: str | None, prompt: str | None, answer: str | None) -> None:
    """Refuse columns named in a combination that says nothing, or two things."""
    if (prompt is None) != (answer is None) or (text is not None and prompt is not None):
        raise InputError(
            "allowed are --text-column alone, or --prompt-column and --answer-column together: name one of these two ways."
        )


def _choice(kind: str, columns: tuple[str, ...], because: str, names: Sequence[str], **extra: str) -> ColumnChoice:
    taken = {*columns, *extra.values()}
    others = tuple(name for name in names if name not in taken)
    return ColumnChoice(kind=kind, columns=columns, extra=extra, because=because, others=others)


def _detect(sample: Sequence[dict[str, Any]], names: Sequence[str]) -> tuple[ColumnChoice, ...]:
    by_name = {name.strip().casefold(): name for name in reversed(names)}
    strings = {name for name in names if any(isinstance(row.get(name), str) and row[name].strip() for row in sample)}
    talks = {name for name in names if any(_messages_in(row.get(name)) is not None for row in sample)}
    found = []
    for wanted in _CONVERSATIONS:
        if by_name.get(wanted) in talks:
            because = f"{wanted!r} holds messages; a conversation comes before a pair and a text"
            found.append(_choice(CONVERSATION, (by_name[wanted],), because, names))
            break
    spoken = strings | talks
    for first, second in _PAIRS:
        if by_name.get(first) in spoken and by_name.get(second) in spoken:
            system = next((by_name[name] for name in _SYSTEMS if by_name.get(name) in strings), None)
            extra = {"system": system} if system is not None else {}
            if first == "instruction" and by_name.get("input") in strings:
                extra["input"] = by_name["input"]
            because = f"{first!r} and {second!r} are a prompt and its answer; a pair comes before a text"
            found.append(_choice(PAIR, (by_name[first], by_name[second]), because, names, **extra))
            break
    paired = {name for choice in found for name in (*choice.columns, *choice.extra.values())}
    texts = [name for name in _TEXTS if by_name.get(name) in strings - paired]
    # beside a pair, a lone question column is no text of its own
    texts = [name for name in texts if name in ("text", "content")] if found else texts
    if texts:
        because = f"{texts[0]!r} comes first of {', '.join(_TEXTS)}"
        if texts[0] not in ("text", "content"):
            because += "; there is no answer beside it, so a model learns to write such prompts"
        found.append(_choice(TEXT, (by_name[texts[0]],), because, names))
    if not found and len(strings) == 1:
        found.append(_choice(TEXT, tuple(strings), "the only column of strings", names))
    return tuple(found)


def _messages_in(value: Any) -> list[dict[str, Any]] | None:
    """The messages that a cell holds, as a list or as JSON text of one; None for anything else."""
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, list) or not value or not all(isinstance(message, dict) for message in value):
        return None
    return value if any({"role", "from", "speaker"} & set(message) for message in value) else None


def to_record(row: dict[str, Any], choices: Sequence[ColumnChoice], roles: Counter[str]) -> tuple[dict[str, Any], int]:
    """geonb's record of `row` ({"text"} or {"messages"}) and which choice it used; counts the roles it renamed.

    Raises `Unusable` with the reason for a row that becomes none.
    """
    filled = (i for i, one in enumerate(choices) if any(row.get(name) is not None for name in one.columns))
    position = next(filled, None)
    if position is None:
        raise Unusable(EMPTY if any(name in row for choice in choices for name in choice.columns) else NO_COLUMN)
    choice = choices[position]
    if choice.kind == TEXT:
        record: dict[str, Any] = {"text": _text_of(row.get(choice.columns[0]))}
    elif choice.kind == CONVERSATION:
        record = {"messages": _turns(row[choice.columns[0]], roles)}
    else:
        record = {"messages": _pair(row, choice, roles)}
    _check_answer(record.get("messages"))
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Unusable(NOT_UNICODE) from None
    return record, position


def _text_of(value: Any) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise Unusable(EMPTY)
    if not isinstance(value, str):
        raise Unusable(NOT_A_STRING)
    return value


def _pair(row: dict[str, Any], choice: ColumnChoice, roles: Counter[str]) -> list[dict[str, str]]:
    prompt, answer = (row.get(name) for name in choice.columns)
    if answer is None or (isinstance(answer, str) and not answer.strip()):
        raise Unusable(NO_ANSWER)
    messages = []
    system, context = (row.get(choice.extra.get(name, "")) for name in ("system", "input"))
    if isinstance(system, str) and system.strip():
        messages.append({"role": "system", "content": system})
    if _messages_in(prompt) is not None:
        messages += _turns(prompt, roles)
    else:
        asked = _text_of(prompt)
        asked += f"\n\n{context}" if isinstance(context, str) and context.strip() else ""
        messages.append({"role": "user", "content": asked})
    if _messages_in(answer) is not None:
        return messages + _turns(answer, roles)
    return [*messages, {"role": "assistant", "content": _text_of(answer)}]


def _turns(value: Any, roles: Counter[str]) -> list[dict[str, str]]:
    messages = _messages_in(value)
    if messages is None:
        raise Unusable(EMPTY if value in ("", []) else NOT_MESSAGES)
    turns, renamed = [], Counter()
    for message in messages:
        given = next((message[key] for key in ("role", "from", "speaker") if isinstance(message.get(key), str)), None)
        role = _ROLES.get(given.strip().casefold()) if given is not None else None
        if role is None:
            raise Unusable(UNKNOWN_ROLE)
        if message.get("tool_calls"):
            raise Unusable(TOOL_CALLS)
        content = next((message[key] for key in ("content", "value", "text") if message.get(key) is not None), None)
        turns.append({"role": role, "content": _content(content)})
        if given != role:
            renamed[f"{given} -> {role}"] += 1
    roles.update(renamed)
    return turns


def _content(value: Any) -> str:
    """A message's text; a list of parts is joined where all of them are text."""
    if isinstance(value, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in value):
        return "".join(part["text"] for part in value)
    if not isinstance(value, str):
        raise Unusable(NOT_A_STRING)
    return value


def _check_answer(messages: list[dict[str, str]] | None) -> None:
    if messages is None:
        return
    if not any(message["content"].strip() for message in messages):
        raise Unusable(EMPTY)
    if not any(message["role"] == "assistant" and message["content"].strip() for message in messages):
        raise Unusable(NO_ANSWER)
