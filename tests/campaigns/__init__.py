"""Campaigns: long searches for faults, which the suite runs in a short form.

Here: what a reader of a stranger's bytes promises, and `attempt`, which tells whether one kept it. Anything but a value or
a `GeonbError` is a failure: another exception, no answer in time, memory beyond the file's size, a file opened or written
outside the folder, a connection, or markup and control characters of the file that reach a page or a terminal.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from geonb.errors import GeonbError
from geonb.records import Record

ROOT = Path(__file__).resolve().parents[2]
# what must reach no page and no terminal as it is
MARKUP = '"><x-canary onload=1>'
ESCAPE = "\x1b]0;canary\x07"
MEMORY = 2**30  # bytes that an input of a few kilobytes may cost
_WATCHED = 0x2 | 0x20 | 0x100 | 0x200 | 0x400  # inotify: modified, opened, created, deleted, deleted itself
_WRITES = 0x2 | 0x100 | 0x200 | 0x400


@dataclass(slots=True)
class Place:
    """The folders that the readers read: `inside` is the stranger's, `outside` is nobody's business."""

    inside: Path
    outside: Path
    seeds: dict[str, bytes]
    _kept: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """`make()`, called once for each place."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]


@dataclass(frozen=True, slots=True)
class Reader:
    """One reader: the form of its input, one or more valid inputs, and how it is fed."""

    name: str
    form: str  # "json", "jsonl", "safetensors", "npz", "toml", "words" or "path"
    seed: Callable[[Place], bytes]
    feed: Callable[[Place, bytes], Any]
    may: tuple[type[BaseException], ...] = (GeonbError,)
    leads: bool = False  # whether a path in the file may be opened for reading, by what the documentation says
    examples: int = 12  # of the short form; what loads a model gets fewer


class Hang(BaseException):
    """No answer in time; not an `Exception`, so that no reader takes it for a damaged file."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One way in which a reader broke its promise; `where` is the innermost function of geonb, `line` its line."""

    reader: str
    kind: str  # "exception", "display", "hang", "memory", "outside", "network" or "injection"
    error: str
    where: str
    line: int
    message: str
    content: bytes

    @property
    def mark(self) -> tuple[str, str]:
        """What tells one defect from another: the exception and the function that let it through."""
        return self.error, self.where


class _Factory:
    """What `tests.tiny` asks of pytest's `tmp_path_factory`."""

    def __init__(self, base: Path) -> None:
        self.base = base

    def getbasetemp(self) -> Path:
        return self.base

    def mktemp(self, name: str) -> Path:
        folder = self.base / name
        folder.mkdir(parents=True)
        return folder


def write_files(base: Path, factory: Any = None) -> None:
    """One valid file of every kind below `base`: a model, data, and a trained, verified run with its adapter."""
    from tests.tiny import tiny_model, tiny_run

    factory = factory or _Factory(base / "made")
    inside, outside = base / "inside", base / "outside"
    shutil.copytree(tiny_model(factory), inside / "model")
    shutil.copytree(tiny_run(factory), inside / "run")
    shutil.copytree(inside / "run" / "adapter", inside / "adapter")
    rows = (
        {"text": "one and one make two", "group": "sums"},
        {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "good day"}]},
    )
    (inside / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copytree(inside / "model", outside / "model")
    shutil.copytree(inside / "adapter", outside / "adapter")


def open_place(base: Path) -> Place:
    """The folders that `write_files` made, with what stands in them."""
    inside = base / "inside"
    files = (path for path in sorted(inside.rglob("*")) if path.is_file())
    return Place(inside, base / "outside", {path.relative_to(inside).as_posix(): path.read_bytes() for path in files})


# -- watching ---------------------------------------------------------------------------------------------------------

_connections: list[str] = []
_armed = False


def _heard(event: str, arguments: tuple) -> None:
    if _armed and event in {"socket.connect", "socket.getaddrinfo"}:
        _connections.append(f"{event} {arguments[-1] if event == 'socket.connect' else arguments[0]}")
        raise OSError("the campaign lets nothing out")


@contextmanager
def _watch(folder: Path) -> Iterator[list[tuple[int, str]]]:
    """The kernel's own list of what is opened or changed below `folder`, by whatever library."""
    events: list[tuple[int, str]] = []
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init1"):
        yield events
        return
    handle = libc.inotify_init1(os.O_NONBLOCK)
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        libc.inotify_add_watch(handle, os.fsencode(path), _WATCHED)
    try:
        yield events
        data = b""
        try:
            while block := os.read(handle, 65536):
                data += block
        except BlockingIOError:
            pass
        while data:
            _, mask, _, length = struct.unpack_from("iIII", data)
            events.append((mask, data[16 : 16 + length].rstrip(b"\0").decode("utf-8", "replace")))
            data = data[16 + length :]
    finally:
        os.close(handle)


@contextmanager
def _limits(seconds: float, memory: int) -> Iterator[None]:
    def ring(number, frame):
        raise Hang

    global _armed
    before = resource.getrlimit(resource.RLIMIT_AS)
    status = Path("/proc/self/statm")
    if status.exists():
        used = int(status.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, before[1]))
    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    _connections.clear()
    _armed = True
    try:
        yield
    finally:
        _armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        resource.setrlimit(resource.RLIMIT_AS, before)


sys.addaudithook(_heard)


def _no_download(hub_id: str) -> Any:
    """Stands in for the hub: whoever asked for it was led there by a file."""
    _connections.append(f"the hub was asked for {hub_id}")
    raise GeonbError("the campaign lets nothing out")


@contextmanager
def _no_hub() -> Iterator[None]:
    from geonb.models import checkpoint

    before, checkpoint._fetch = checkpoint._fetch, _no_download
    try:
        yield
    finally:
        checkpoint._fetch = before


def attempt(reader: Reader, place: Place, content: bytes, *, seconds: float = 10.0) -> Failure | None:
    """Feed `content` to `reader` and say what went wrong; None where it kept its promise."""

    def failed(kind: str, error: str, message: str, trace: Any = None) -> Failure:
        frames = [frame for frame in traceback.extract_tb(trace) if frame.filename.startswith(str(ROOT))]
        own = [frame for frame in frames if "/tests/" not in frame.filename]
        where, line = "?", 0
        if own:
            name = Path(own[-1].filename).relative_to(ROOT).as_posix()
            where, line = f"{name}:{own[-1].name}", own[-1].lineno or 0
        return Failure(reader.name, kind, error, where, line, " ".join(message.split())[:300], content)

    found: Failure | None = None
    with _watch(place.outside) as events, _no_hub(), warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        stage = "exception"
        try:
            with _limits(seconds, MEMORY):
                value = reader.feed(place, content)
                stage = "display"
                text, html = shown(value)
            if "<x-canary" in html:
                found = failed("injection", "markup", "markup of the file stands in the page as it is")
            elif any(ord(character) < 32 and character not in "\n\t" for character in text):
                found = failed("injection", "control", "control characters of the file reach the terminal")
        except Hang as error:
            found = failed("hang", "Hang", f"no answer after {seconds:.0f} s", error.__traceback__)
        except MemoryError as error:
            found = failed("memory", "MemoryError", f"more than {MEMORY} bytes for {len(content)}", error.__traceback__)
        except reader.may:
            pass
        except Exception as error:
            found = failed(stage, type(error).__name__, str(error), error.__traceback__)
    if _connections:
        found = failed("network", "network", f"a connection was tried: {_connections[0]}")
    touched = [name for mask, name in events if mask & (_WRITES if reader.leads else _WATCHED)]
    if touched:
        found = failed("outside", "outside", f"outside the folder were opened: {', '.join(sorted(set(touched)))[:200]}")
    return found


def shown(value: Any) -> tuple[str, str]:
    """Everything that a person would see of `value`: its text for a terminal, and its HTML."""
    from geonb.widgets.view import View

    if isinstance(value, Record):
        value.to_json()
        return f"{value.to_text()}\n{value!r}", value.to_html()
    if isinstance(value, View):
        json.dumps(value.state())
        value.data()
        return repr(value), value.static()
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(part, str) for part in value):
        return value
    if isinstance(value, list):
        parts = [shown(item) for item in value]
        return "\n".join(text for text, _ in parts), "\n".join(html for _, html in parts)
    return "", ""


# -- reporting --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Found:
    """What one reader was tried with, and each failure once, by its smallest input."""

    reader: str
    tried: int
    seconds: float
    failures: list[Failure]


def keep(failures: dict[tuple, Failure], failure: Failure | None) -> None:
    """Of failures alike keep the one with the smallest input."""
    if failure is None:
        return
    known = failures.get((failure.kind, *failure.mark))
    if known is None or len(failure.content) < len(known.content):
        failures[(failure.kind, *failure.mark)] = failure


def smaller(reader: Reader, place: Place, failure: Failure, *, seconds: float = 5.0) -> Failure:
    """The failure with pieces of its input cut away for as long as it stays the same one."""
    until, size = time.monotonic() + seconds, len(failure.content) // 2
    while size and time.monotonic() < until:
        at = 0
        while at < len(failure.content) and time.monotonic() < until:
            other = attempt(reader, place, failure.content[:at] + failure.content[at + size :])
            if other is not None and (other.kind, other.mark) == (failure.kind, failure.mark):
                failure = other
            else:
                at += size
        size //= 2
    return failure


def told(found: Found) -> bytes:
    """What was found, as JSON."""
    data = asdict(found)
    for failure in data["failures"]:
        failure["content"] = failure["content"].decode("latin-1")
    return json.dumps(data).encode()


def heard_back(text: bytes) -> Found:
    """What `told` told."""
    data = json.loads(text)
    failures = [Failure(**{**one, "content": one["content"].encode("latin-1")}) for one in data.pop("failures")]
    return Found(**data, failures=failures)


def markdown(found: list[Found], engine: str) -> str:
    """The report for people."""
    lines = [
        "# Hostile input",
        "",
        f"{sum(one.tried for one in found):,} inputs for {len(found)} readers, engine {engine}; "
        f"{len({(f.kind, f.mark) for one in found for f in one.failures})} different failures.",
        "",
        "| reader | inputs | seconds | failures |",
        "|---|---|---|---|",
    ]
    lines += [f"| {one.reader} | {one.tried:,} | {one.seconds:.0f} | {len(one.failures)} |" for one in found]
    for one in found:
        for failure in one.failures:
            shown_input = repr(failure.content[:300]) + (
                f" and {len(failure.content) - 300:,} bytes" * (len(failure.content) > 300)
            )
            lines += [
                "",
                f"## {failure.reader}: {failure.kind}, {failure.error}",
                "",
                f"- at `{failure.where}` line {failure.line}",
                f"- says `{failure.message.replace('`', chr(39))}`",
                f"- smallest input ({len(failure.content):,} bytes): `{shown_input.replace('`', chr(39))}`",
            ]
    return "\n".join(lines) + "\n"


def in_child(act: Callable[[Callable[[bytes], None]], None]) -> tuple[bytes, int]:
    """Run `act` in a forked process that talks to nobody: what it answered, and how it ended."""
    read, write = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(read)
        # libraries in other languages talk to the terminal on their own
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)

        def answer(content: bytes) -> None:
            with os.fdopen(write, "wb") as stream:
                stream.write(content)

        act(answer)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        content = stream.read()
    return content, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
