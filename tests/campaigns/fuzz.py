"""The campaign of hostile input: every reader of `tests.campaigns.readers` against files that were made to break it.

python -m tests.campaigns.fuzz [--seconds 20] [--engine hypothesis|atheris] [--only NAME] [--report FILE]

Inputs are valid files with a few places changed for the worse, and raw bytes; `atheris` steers the same generators by the
coverage of geonb's own code. Each reader runs in a process of its own. The report is FILE as Markdown and beside it as JSON:
readers, inputs tried, and each failure once, with the smallest input that shows it.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import io
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.campaigns import (
    ESCAPE,
    MARKUP,
    ROOT,
    Failure,
    Found,
    Place,
    Reader,
    attempt,
    heard_back,
    in_child,
    keep,
    markdown,
    open_place,
    smaller,
    told,
    write_files,
)
from tests.campaigns.cases import mended
from tests.campaigns.readers import READERS

# -- hostile input ----------------------------------------------------------------------------------------------------

# what JSON can say and json.dumps cannot: each stands for its text
_SPOKEN = {
    "@nan@": "NaN",
    "@inf@": "-Infinity",
    "@huge@": "9" * 5000,
    "@deep@": "[" * 20_000 + "]" * 20_000,
    "@over@": "1e999",
}
HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 2**31, 2**63, 10**12, 10**30, 0.5, -1e308, "", " ", "x", "1", "nan", "inf", "\0", "\ud800",
    MARKUP, ESCAPE, "../outside/model", "../outside/adapter", "owner/name", "~nobody-here/x", "a" * 5000, "(a+)+$", "(",
    [], {}, [[]], [None], [1, 2], ["x"], {"": None}, {"a": {"b": [1]}}, *_SPOKEN,
)  # fmt: skip
_RAW = (
    b"", b"\0", b"null", b"0", b"[]", b"{}", b'""', b"\xff\xfe", b"\xef\xbb\xbf{}", b"{", b"[" * 100_000, b'{"a":' * 50_000,
    b"9" * 5000, b"NaN", b'{"a": 1, "a": 2}', b'"\\ud800"', b"\x80", b'{"text": "' + b"x" * 300_000, b"\x80\x04\x95",
)  # fmt: skip


def _paths(tree: Any, prefix: tuple = ()) -> list[tuple]:
    """Every place in a JSON document; of a list the first two items, for the others are alike."""
    found = [prefix]
    items = tree.items() if isinstance(tree, dict) else enumerate(tree[:2]) if isinstance(tree, list) else ()
    for key, value in items:
        found += _paths(value, (*prefix, key))
    return found


def _dumped(tree: Any, *, ascii_only: bool = True) -> bytes:
    text = json.dumps(tree, ensure_ascii=ascii_only)
    for name, spoken in _SPOKEN.items():
        text = text.replace(f'"{name}"', spoken)
    return text.encode("utf-8", "surrogatepass")


@st.composite
def _worsened(draw: Any, tree: Any) -> Any:
    """A JSON document with one to three places changed: another value, gone, renamed, wrapped or doubled."""
    tree = json.loads(json.dumps(tree))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(_paths(tree)))
        if not path:
            if draw(st.integers(0, 9)) == 0:
                return copy.deepcopy(draw(st.sampled_from(HOSTILE)))
            continue
        holder = tree
        for key in path[:-1]:
            holder = holder[key]
        change = draw(st.sampled_from(("value", "value", "value", "value", "gone", "name", "wrapped", "added")))
        value = copy.deepcopy(draw(st.sampled_from(HOSTILE)))
        if change == "value":
            holder[path[-1]] = value
        elif change == "wrapped":
            holder[path[-1]] = draw(st.sampled_from(([holder[path[-1]]], {"x": holder[path[-1]]})))
        elif change == "gone":
            del holder[path[-1]]
        elif isinstance(holder, dict):
            name = value if isinstance(value, str) else str(value)
            holder[name] = holder.pop(path[-1]) if change == "name" else value
        else:
            holder.append(value)
    return tree


@st.composite
def _json(draw: Any, seed: bytes) -> bytes:
    way = draw(st.integers(0, 9))
    if way == 0:
        return draw(st.one_of(st.sampled_from(_RAW), st.binary(max_size=40)))
    if way == 1:
        at, length = draw(st.integers(0, len(seed))), draw(st.integers(0, 20))
        return seed[:at] + draw(st.binary(max_size=4)) + seed[at + length :]
    return _dumped(draw(_worsened(json.loads(seed))), ascii_only=draw(st.booleans()))


@st.composite
def _jsonl(draw: Any, seed: bytes) -> bytes:
    lines = seed.splitlines()
    at = draw(st.integers(0, min(len(lines), 8) - 1))
    line = draw(_json(lines[at]))
    end = draw(st.sampled_from((b"\n", b"\n", b"\n", b"\r\n", b"\x85\n", b"")))
    return b"\n".join(lines[:at]) + (b"\n" if at else b"") + line + end + b"\n".join(lines[at + 1 :])


@st.composite
def _safetensors(draw: Any, seed: bytes) -> bytes:
    import torch
    from safetensors.torch import load, save

    length = int.from_bytes(seed[:8], "little")
    header, data = json.loads(seed[8 : 8 + length]), seed[8 + length :]
    way = draw(st.integers(0, 9))
    if way < 3:
        changed = _dumped(draw(_worsened(header)))
        return len(changed).to_bytes(8, "little") + changed + data
    if way == 3:
        claimed = draw(st.sampled_from((0, 1, length - 1, length + 1, 10**8, 10**12, 2**63, 2**64 - 1)))
        return claimed.to_bytes(8, "little") + seed[8:]
    if way == 4:
        return draw(
            st.one_of(st.sampled_from(_RAW), st.just(seed[: draw(st.integers(0, len(seed)))]), st.just(seed + b"x"))
        )
    if way == 5:
        text = draw(st.sampled_from(_RAW))
        return len(text).to_bytes(8, "little") + text + data
    tensors, metadata = load(seed), dict(header.get("__metadata__", {}))
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(tensors)))
        tensor = tensors[name]
        change = draw(st.sampled_from(("shape", "kind", "fill", "name", "gone", "note")))
        if change == "shape":
            shape = draw(st.sampled_from(((), (0,), (0, 4), (4, 0), (1,), (1, 1, 1), (3, 5), (2, 1), (1, 0, 3))))
            tensors[name] = torch.zeros(shape)
        elif change == "kind":
            kinds = ("float16", "bfloat16", "int64", "bool", "uint8", "float8_e4m3fn", "complex64", "float64", "int8")
            tensors[name] = tensor.float().nan_to_num().clamp(-1, 1).to(getattr(torch, draw(st.sampled_from(kinds))))
        elif change == "fill" and tensor.is_floating_point():
            tensors[name] = torch.full_like(
                tensor.float(), draw(st.sampled_from((float("nan"), float("inf"), 3e38, 0.0, 1e-45)))
            )
        elif change == "name":
            names = (MARKUP, ESCAPE, "", "../x", name + ".x", "x." + name, name.replace("0", "9" * 30), "a" * 300, "x")
            tensors[draw(st.sampled_from(names))] = tensors.pop(name)
        elif change == "gone" and len(tensors) > 1:
            del tensors[name]
        elif change == "note":
            keys = [*metadata, "expert_parameters", "state", "digest", "format"]
            metadata[draw(st.sampled_from(keys))] = draw(st.sampled_from(_RAW)).decode("utf-8", "replace")
    return save(tensors, metadata=metadata)


@st.composite
def _npz(draw: Any, seed: bytes) -> bytes:
    import numpy as np

    with np.load(io.BytesIO(seed)) as stored:
        facts = json.loads(str(stored["facts"]))
    way = draw(st.integers(0, 5))
    if way == 0:
        return draw(st.sampled_from(_RAW))
    if way == 1:
        at = draw(st.integers(0, len(seed)))
        return seed[:at] + draw(st.binary(min_size=1, max_size=4)) + seed[at + draw(st.integers(0, 9)) :]
    text = _dumped(draw(_worsened(facts))).decode("utf-8", "replace").replace("\0", "")
    values = draw(
        st.sampled_from(
            (
                [3.0, 2.0, 1.0],
                [],
                [[1.0]],
                5.0,
                ["a"],
                [np.nan, 1.0],
                [1 + 2j],
                [-1.0, -2.0],
                np.array([{}], dtype=object),
            )
        )
    )
    stream = io.BytesIO()
    np.savez(stream, values=np.array(values), facts=np.array(text))
    return stream.getvalue()


_WORTHS = (
    "1", "-1", "1.5", "true", "false", "nan", "inf", '""', '"x"', '"\\u0000"', '"--help"', "[]", '["a", 1]', "{a = 1}",
    "[" * 3000, "9" * 5000, "0x" + "f" * 5000, "1979-05-27T07:32:00Z", "9999-99-99", '"""a\nb"""', "[[1], [2]]", "1e999",
    "'../outside/model'",
)  # fmt: skip
_KEYS = (
    "seed", "basis", "max_steps", "memory_budget", "exclude_roles", "target_experts", "help", "version", '""', '"-"', "json",
    '"a b"', "a.b", "output", "seq_length", "epochs", "device", "sides", "__class__", '"=x"', "m", "install-completion",
)  # fmt: skip


@st.composite
def _toml(draw: Any, seed: bytes) -> bytes:
    way = draw(st.integers(0, 5))
    if way == 0:
        return draw(st.sampled_from(_CELLS))
    pairs = draw(st.lists(st.tuples(st.sampled_from(_KEYS), st.sampled_from(_WORTHS)), min_size=1, max_size=3))
    return "\n".join(f"{key} = {value}" for key, value in pairs).encode()


_CELLS = (
    b"\0", b"=", b"[", b"a", b'{"text": "\xed\xa0\x80"}', b"{", b"{\0", b'x = "\xed\xa0\x80"', b"a = [" * 20_000, b"[a]\n[a]",
    b"a.b = 1\na = 2", b"a = 9999-99-99", b"\xef\xbb\xbfa = 1", b"a." * 20_000 + b"b = 1",
)  # fmt: skip

_TEXTS = (
    "", " ", ".", "..", "/", "\0", "a\0b", "a" * 5000, "a/" * 3000, "\udcff", "~", "~nobody-here", "~nobody-here/x", "-", "--",
    "owner/name/x", "embedded", "embedded:", "embedded:../../x", "embedded:\0", "\n", ESCAPE, MARKUP, "C:\\x", "/proc/self/mem",
    "/dev/null", "/dev/zero", "9" * 5000 + "GB", "9" * 400 + "TB", "1e5GB", "-1", "L0.E" + "9" * 5000, "L0.E1", "q,", ",",
    "²GB", "L².E1",
)  # fmt: skip
_TOKENS = tuple(
    "plan train run status compare adapter audit model info spectra stop --json -m -d -o --base --seed --max-steps "
    "--memory-budget --help --version --resume --overwrite --plan-only --seed=x --epochs --exclude-roles --target-experts "
    "--no-save --device nowhere -- - = --= -mx --watch".split()
)


@st.composite
def _words(draw: Any, seed: bytes) -> bytes:
    # not "embedded": it is there, and a plan of it takes seconds; nothing that serves or waits for input
    texts = [text for text in _TEXTS if not text.startswith(("embedded", "/dev", "owner"))]
    start = draw(
        st.sampled_from((["plan"], ["train", "run"], ["train", "status"], ["adapter", "audit"], ["spectra"], []))
    )
    words = draw(st.lists(st.one_of(st.sampled_from(_TOKENS), st.sampled_from(texts)), max_size=6))
    return "\x1f".join([*start, *words]).encode("utf-8", "surrogateescape")


def hostile(reader: Reader, seed: bytes) -> st.SearchStrategy[bytes]:
    """Inputs for `reader`, made from a valid one."""
    if reader.form == "path":
        return st.sampled_from(_TEXTS).map(lambda text: text.encode("utf-8", "surrogateescape"))
    made = {
        "json": _json, "jsonl": _jsonl, "safetensors": _safetensors, "npz": _npz, "toml": _toml, "words": _words,
    }  # fmt: skip
    return made[reader.form](seed)


# -- the campaign -----------------------------------------------------------------------------------------------------


def explore(reader: Reader, place: Place, *, seconds: float, examples: int = 0, engine: str = "hypothesis") -> Found:
    """Try `reader` for some seconds; with `examples` only with so many inputs, always the same ones."""
    seed, failures, count = reader.seed(place), {}, 1
    first = attempt(reader, place, seed, seconds=60)
    began = time.monotonic()  # imports count for nobody
    assert first is None, f"{reader.name} fails on a valid input: {first}"

    def one(content: bytes) -> None:
        nonlocal count
        if time.monotonic() - began < seconds:
            count += 1
            keep(failures, attempt(reader, place, content))

    quiet = settings(
        max_examples=examples or 200,
        derandomize=bool(examples),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),  # type: ignore[arg-type]
    )
    test = quiet(given(hostile(reader, seed))(one))
    if engine == "atheris":
        fuzz_one = test.hypothesis.fuzz_one_input  # type: ignore[attr-defined]
        return _guided(fuzz_one, lambda: Found(reader.name, count, seconds, list(failures.values())), seconds)
    test()
    while not examples and time.monotonic() - began < seconds:
        test()
    spent = time.monotonic() - began
    if not examples:
        failures = {mark: smaller(reader, place, failure) for mark, failure in failures.items()}
    return Found(reader.name, count, spent, list(failures.values()))


def _guided(one: Callable[[bytes], Any], found: Callable[[], Found], seconds: float) -> Found:
    """Have LibFuzzer call `one`; it ends its process, so the last call hands over what was found."""
    import atheris

    def act(answer: Callable[[bytes], None]) -> None:
        until = time.monotonic() + seconds

        def run(data: bytes) -> None:
            one(data)
            if time.monotonic() > until:
                answer(told(found()))
                os._exit(0)

        # the alarm is the judge's own, and a slow input is a finding and no crash
        atheris.Setup([sys.argv[0], "-max_len=4096", "-len_control=0", "-handle_alrm=0", "-timeout=600"], run)
        atheris.Fuzz()

    return heard_back(in_child(act)[0])


def _alone(reader: Reader, place: Place, seconds: float, engine: str) -> Found:
    """Explore in a process of its own: what a library leaves behind, or a crash, stays with its reader."""

    def broken(error: str, message: str) -> Found:
        return Found(reader.name, 0, 0.0, [Failure(reader.name, "campaign", error, "?", 0, message[:300], b"")])

    def act(answer: Callable[[bytes], None]) -> None:
        try:
            answer(told(explore(reader, place, seconds=seconds, engine=engine)))
        except BaseException as error:
            answer(told(broken(type(error).__name__, str(error))))

    content, code = in_child(act)
    return heard_back(content) if content else broken(f"exit {code}", "the process died with its input")


def _import_all() -> None:
    for name in sorted({reader.name.split(" ")[0] for reader in READERS}):
        parts = name.split(".")
        while parts:
            try:
                importlib.import_module(".".join(["geonb", *parts]))
                break
            except ImportError:
                parts.pop()


def main() -> None:
    """Run the campaign and write its report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each reader")
    parser.add_argument("--engine", choices=("hypothesis", "atheris"), default="hypothesis")
    parser.add_argument("--only", default="", help="readers whose name contains this")
    parser.add_argument("--report", type=Path, default=Path("hostile-input.md"))
    asked = parser.parse_args()
    readers = [reader for reader in READERS if asked.only in reader.name]
    if asked.engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["geonb"]):
            _import_all()
    found: list[Found] = []
    with tempfile.TemporaryDirectory(prefix="geonb-campaign-") as base:
        os.environ["GEONB_CACHE"] = str(Path(base) / "cache")
        os.environ["HF_HUB_OFFLINE"] = "1"
        # training starts threads, and a process with threads is not to be forked
        maker = multiprocessing.get_context("spawn").Process(target=write_files, args=(Path(base),))
        maker.start()
        maker.join()
        place = open_place(Path(base))
        os.chdir(place.inside)
        for reader in readers:
            found.append(_alone(reader, place, asked.seconds, asked.engine))
            last = found[-1]
            print(f"{last.reader}: {last.tried:,} inputs, {len(last.failures)} failures", flush=True)
            for failure in last.failures:
                print(
                    f"    {failure.kind} {failure.error} at {failure.where}:{failure.line}: {failure.message[:120]}",
                    flush=True,
                )
    (report := ROOT / asked.report).write_text(markdown(found, asked.engine) + mended(), encoding="utf-8")
    report.with_suffix(".json").write_text(
        json.dumps([json.loads(told(one)) for one in found], indent=1), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
