"""JSON Schema (draft 2020-12) of what a record's `to_dict` writes, derived from the types of its fields.

Nothing is written down twice: a class is described by the first part of its docstring, a field by the comment at the end
of its line. Every field is required, none may be added, and a number that is not finite is one of three texts, as
`geonb.records.encode` writes it.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import io
import re
import textwrap
import tokenize
import types
import typing
from pathlib import Path
from typing import Any

import numpy as np

from geonb.errors import InputError
from geonb.records import Record, encode

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NUMBER = {
    "description": "A number; one that is not finite is a text.",
    "anyOf": [{"type": "number"}, {"enum": ["inf", "-inf", "nan"]}],
}
_PLAIN = {bool: "boolean", int: "integer", str: "string", Path: "string", type(None): "null"}
_FOR_TOOLS = re.compile(r"(type:|noqa|pyright:|pragma:|fmt:)")


def record_schema(*records: type[Record], title: str = "") -> dict[str, Any]:
    """The JSON Schema of a document that is one of `records`, as `to_dict` writes them.

    Raises `InputError` where no record is given, and `TypeError` for a field whose type no record can store.

    >>> from geonb.geometry.measurement import Measurement
    >>> record_schema(Measurement)["$defs"]["Measurement"]["properties"]["n"]
    {'type': 'integer'}
    """
    if not records:
        raise InputError("a schema was asked of no record; give one or more classes that derive from Record.")
    found = _Definitions()
    references = [found.reference(record) for record in records]
    start = references[0] if len(references) == 1 else {"anyOf": references}
    head = {"$schema": DIALECT} | ({"title": title} if title else {})
    return {**head, **start, "$defs": found.schemas}


class _Definitions:
    """The `$defs` of a schema: every record that is met, once, under its name."""

    def __init__(self) -> None:
        self.schemas: dict[str, Any] = {}
        self._names: dict[type, str] = {}

    def reference(self, record: type[Record]) -> dict[str, Any]:
        if record not in self._names:
            taken = record.__name__ in self.schemas
            name = f"{record.__module__}.{record.__qualname__}" if taken else record.__name__
            self._names[record] = name
            self.schemas[name] = {}  # a record may hold others of its own kind
            self.schemas[name] = self._object(record)
        return {"$ref": f"#/$defs/{self._names[record]}"}

    def _object(self, record: type[Record]) -> dict[str, Any]:
        hints, comments = typing.get_type_hints(record), field_comments(record)
        fields = [field.name for field in dataclasses.fields(record)]
        tables, properties = getattr(record, "TABLES", {}), {}
        for name in fields:
            try:
                described = {"description": comments[name]} if name in comments else {}
                kind = self._table(tables[name]) if name in tables else self.of(hints[name])
                properties[name] = {**described, **kind}
            except TypeError as error:
                raise TypeError(f"{record.__name__}.{name} is {error}, which no record can store") from None
        text = _description(record)
        return {
            "title": record.__name__,
            **({"description": text} if text else {}),
            "type": "object",
            "properties": properties,
            "required": fields,
            "additionalProperties": False,
        }

    def _table(self, hints: dict[str, Any]) -> dict[str, Any]:
        """A dict field whose record says in `TABLES` what it holds at least."""
        return {
            "type": "object",
            "properties": {key: self.of(hint) for key, hint in hints.items()},
            "required": list(hints),
        }

    def of(self, hint: Any) -> dict[str, Any]:
        """The schema of one type."""
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if hint is Any or hint is object:
            return {}
        if hint is float:
            self.schemas.setdefault("number", _NUMBER)
            return {"$ref": "#/$defs/number"}
        if hint in _PLAIN:
            return {"type": _PLAIN[hint]}
        if isinstance(hint, type) and issubclass(hint, Record):
            return self.reference(hint)
        if hint is np.ndarray:
            return {"type": "array", "items": self.of(float)}
        if origin in (typing.Union, types.UnionType):
            return {"anyOf": [self.of(option) for option in arguments]}
        if origin is typing.Literal:
            return {"enum": [encode(value) for value in arguments]}
        if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
            count = len(arguments)
            items = [self.of(kind) for kind in arguments]
            return {"type": "array", "prefixItems": items, "items": False, "minItems": count, "maxItems": count}
        if origin in (list, tuple):
            return {"type": "array", "items": self.of(arguments[0])}
        if hint in (list, tuple):
            return {"type": "array"}
        if origin is dict:
            return {"type": "object", "additionalProperties": self.of(arguments[1])}
        if hint is dict:
            return {"type": "object"}
        raise TypeError(f"of the type {hint}")


def _description(record: type[Record]) -> str:
    """The docstring before its example, without line ends; "" where `dataclass` wrote it."""
    text = inspect.cleandoc(record.__doc__ or "").partition(">>>")[0]
    return "" if text.startswith(f"{record.__name__}(") else " ".join(text.split())


def field_comments(record: type[Record]) -> dict[str, str]:
    """What the comment at the end of each field's line says, by field; nothing where the source is not there.

    >>> from geonb.models.matrix_ref import MatrixRef
    >>> field_comments(MatrixRef)["shape"]
    '(out, in)'
    """
    found: dict[str, str] = {}
    for part in reversed(record.__mro__):
        if dataclasses.is_dataclass(part) and part is not Record:
            found |= _own_comments(part)
    return found


@functools.cache
def _own_comments(record: type) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(record))
        body = ast.parse(source).body[0]
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (OSError, TypeError, SyntaxError, IndexError, tokenize.TokenError):
        return {}
    comments = {one.start[0]: one.string.lstrip("# ").strip() for one in tokens if one.type == tokenize.COMMENT}
    found = {}
    for line in body.body if isinstance(body, ast.ClassDef) else ():
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            comment = comments.get(line.end_lineno or line.lineno, "")
            if comment and not _FOR_TOOLS.match(comment):
                found[line.target.id] = comment
    return found
