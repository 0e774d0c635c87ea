"""What every result has in common: frozen, JSON in and out, text and HTML display.

A record is a frozen dataclass that derives from `Record`. It knows nothing of widgets: it shows itself as text and as
plain, escaped, self-contained HTML, and hands its JSON to notebooks under a MIME type of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import html
import json
import math
import os
import tempfile
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from geonb.errors import InputError

# what a record counts fits; with a longer number no display and no array can do anything
_LARGEST = 2**64
_NON_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def encode(value: Any) -> Any:
    """Turn a record, array, tuple, mapping or scalar into what strict JSON can hold (non-finite floats as strings)."""
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, np.ndarray):
        return [encode(item) for item in value.tolist()]
    if isinstance(value, np.generic):
        return encode(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | bool | int):
        return value
    raise TypeError(f"{type(value).__name__} cannot be stored in a record")


def decode(value: Any, hint: Any) -> Any:
    """Turn JSON data back into the type that a record's field is annotated with; raises `TypeError` for another type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(value, arguments)
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint.from_dict(_expected(value, Mapping, "an object"))
    if hint is np.ndarray:
        return np.asarray([_decode_number(item) for item in _expected(value, list | tuple, "a list")], dtype=np.float64)
    if hint is float:
        return _decode_number(value)
    if hint is bool or hint is str:
        return _expected(value, hint, "true or false" if hint is bool else "a text")
    if hint is int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError("a whole number")
        if not -_LARGEST < value < _LARGEST:
            raise TypeError("a whole number of at most 64 bits")
        return value
    if origin is typing.Literal:
        if value not in arguments:
            raise TypeError(f"one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        items = _expected(value, list | tuple, "a list")
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(decode(item, arguments[0]) for item in items)
        if len(items) != len(arguments):
            raise TypeError(f"a list of {len(arguments)}")
        return tuple(decode(item, kind) for item, kind in zip(items, arguments, strict=True))
    if origin is list:
        return [decode(item, arguments[0]) for item in _expected(value, list | tuple, "a list")]
    if origin is dict:
        return {key: decode(item, arguments[1]) for key, item in _expected(value, Mapping, "an object").items()}
    return _decode_untyped(value)


def decode_table(value: Any, hints: Mapping[str, Any]) -> dict[str, Any]:
    """JSON data as an object that has every key of `hints` in its type; other keys are kept as they are.

    >>> decode_table({"steps": 3, "note": "x"}, {"steps": int})
    {'steps': 3, 'note': 'x'}
    """
    table = _expected(value, Mapping, "an object")
    for name in hints:
        if name not in table:
            raise TypeError(f"an object with the key {name!r}")
    found = {}
    for name, item in table.items():
        try:
            found[name] = decode(item, hints.get(name, Any))
        except TypeError as error:
            raise TypeError(f"an object whose {name!r} is {error}") from None
    return found


def _decode_union(value: Any, arguments: tuple[Any, ...]) -> Any:
    if value is None and type(None) in arguments:
        return None
    options = [option for option in arguments if option is not type(None)]
    return decode(value, options[0]) if len(options) == 1 else _decode_untyped(value)


def _expected(value: Any, kind: Any, name: str) -> Any:
    if not isinstance(value, kind):
        raise TypeError(name)
    return value


def _decode_number(value: Any) -> float:
    try:
        found = _decode_float(value)
    except OverflowError:
        raise TypeError("a number of ordinary size") from None
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise TypeError("a number")
    return float(found)


def _decode_float(value: Any) -> Any:
    if isinstance(value, str):
        return _NON_FINITE.get(value, value)
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _decode_untyped(value: Any) -> Any:
    """Lists become tuples, so that a record that was read back equals the one that was written."""
    if isinstance(value, list):
        return tuple(_decode_untyped(item) for item in value)
    if isinstance(value, dict):
        return {key: _decode_untyped(item) for key, item in value.items()}
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value


def parse_json(text: str | bytes, where: str) -> Any:
    """The value that JSON `text` holds; `where` begins the sentence of the `InputError` for what is not read.

    >>> parse_json("[1, 2]", "the file")
    [1, 2]
    """
    try:
        # json itself lets half a character pass in bytes
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        value = json.loads(text)
        if not has_half_character(value, text):
            return value
    except json.JSONDecodeError as error:
        raise InputError(f"{where} is not JSON (line {error.lineno}): {error.msg}.") from None
    except (ValueError, RecursionError) as error:
        # bytes that are no UTF-8, numbers of thousands of digits, lists a thousand deep
        raise InputError(f"{where} is not JSON that is read ({str(error).split(';')[0][:100]}).") from None
    raise InputError(f"{where} holds half a character (a lone surrogate), which is no Unicode text: mend or remove it.")


def has_half_character(value: Any, text: str) -> bool:
    """Whether the JSON `value` that was read from `text` holds a lone surrogate, which no file and no tokenizer takes.

    >>> has_half_character(["a"], '["a"]')
    False
    """
    try:
        text.encode()
        # an escape is the only other way in; most texts have none
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def is_file(path: str | Path) -> bool:
    """Whether `path` is a file; a name that no file can have (too long, a zero byte) is none.

    >>> is_file("a" * 5000)
    False
    """
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: str | Path) -> bool:
    """Whether `path` is a folder; a name that no folder can have is none.

    >>> is_folder("a" * 5000)
    False
    """
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file; raises `InputError` with the system's own reason where they cannot be read."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{path} cannot be read ({reason}): check the path.") from None


@functools.cache
def _field_types(record_type: type) -> dict[str, Any]:
    return typing.get_type_hints(record_type)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A frozen result: equal by value, stable as text, saved and read as JSON.

    >>> @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    ... class Point(Record):
    ...     x: float
    >>> Point.from_json(Point(x=1.5).to_json())
    Point(x=1.5)
    """

    def __init_subclass__(cls, **options: Any) -> None:
        # @dataclass writes __repr__, __eq__ and __hash__ of its own into every class that does not have them; a record
        # shows itself by its summary, and compares by its content, arrays included
        for name in ("__repr__", "__eq__", "__hash__"):
            setattr(cls, name, getattr(Record, name))

    def to_dict(self) -> dict[str, Any]:
        """This record as plain JSON data, fields in the order of their definition."""
        return {field.name: encode(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The record that `data` describes; an unknown or missing field is an `InputError` that names it."""
        if not isinstance(data, Mapping):
            raise InputError(f"{cls.__name__} was given a {type(data).__name__}; allowed is one JSON object.")
        hints = _field_types(cls)
        known = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(data) - set(known))
        if unknown:
            raise InputError(
                f"{cls.__name__} was given the unknown field {unknown[0]!r}; allowed are "
                f"{', '.join(known)}: remove it, or read the file with the geonb version that wrote it."
            )
        missing = [
            name
            for name, field in known.items()
            if name not in data
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ]
        if missing:
            raise InputError(f"{cls.__name__} needs the field {missing[0]!r}, which is not there: add it.")
        given = {}
        for name, value in data.items():
            try:
                given[name] = decode(value, hints[name])
            except TypeError as error:
                shown = " ".join(repr(value).split())[:40]
                raise InputError(
                    f"{cls.__name__} has {shown} in the field {name!r}; allowed is {error}: is this file of another version?"
                ) from None
        return cls(**given)

    def to_json(self, *, indent: int | None = None) -> str:
        """Strict JSON text of this record."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The record that the JSON `text` describes."""
        data = parse_json(text, f"{cls.__name__} was given text that")
        if not isinstance(data, dict):
            raise InputError(f"{cls.__name__} was given a JSON {type(data).__name__}; allowed is one JSON object.")
        return cls.from_dict(data)

    def save(self, path: str | Path) -> Path:
        """Write this record to `path` atomically and return the path."""
        return atomic_write(path, self.to_json(indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a record that `save` wrote."""
        path = Path(path)
        if not is_file(path):
            raise InputError(f"{path} is not a file: give the path of a saved {cls.__name__}.")
        return cls.from_json(read_bytes(path))

    def summary(self) -> str:
        """One stable line: the class and its short fields."""
        parts = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None or (isinstance(value, str | bool | int | float) and len(str(value)) <= 60):
                parts.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def to_text(self) -> str:
        """What a shell prints."""
        return self.summary()

    def to_html(self) -> str:
        """Self-contained, escaped HTML; by default the text, preformatted."""
        return f'<pre style="line-height:1.35">{html.escape(self.to_text())}</pre>'

    def __repr__(self) -> str:
        return plain(self.summary())

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.to_dict() == self.to_dict()  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __str__(self) -> str:
        return plain(self.to_text(), keep="\n\t")

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """Text, HTML and machine-readable JSON, so that an executed notebook can be read by a program."""
        del include, exclude
        name = type(self).__name__.lower()
        return {
            "text/plain": str(self),
            "text/html": self.to_html(),
            f"application/vnd.geonb.{name}.v1+json": self.to_dict(),
        }


def plain(text: object, *, keep: str = "") -> str:
    """`text` with every control character escaped but those in `keep`: a name from a file cannot steer a terminal.

    >>> plain("a\x1b[2J")
    'a\\x1b[2J'
    """
    return "".join(
        letter if letter.isprintable() or letter in keep else letter.encode("unicode_escape").decode()
        for letter in str(text)
    )


def atomic_write(path: str | Path, content: str | bytes, *, exclusive: bool = False) -> Path:
    """Write `content` to a temporary file beside `path`, flush it to disk and rename: a reader sees all of it or none.

    With `exclusive` raises `FileExistsError` where `path` is there already, also when two processes write at once.
    """
    path = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes files private to the owner; a result is an ordinary file
        Path(temporary).chmod(0o644)
        if exclusive:
            os.link(temporary, path)
            Path(temporary).unlink()
        else:
            Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
