"""geonb's own cache, looked at and cleared; and how fast this machine computes singular values."""

from __future__ import annotations

import re
import stat
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.geometry.singular_values import TIERS, spectrum
from geonb.models.cache import cache_folder
from geonb.record_tables import table_html
from geonb.records import Record

# what geonb writes there; only the first two can be computed again, so only they are cleared
_CELLS = "cells"
_PATTERNS = {
    "spectra": re.compile(r"[0-9a-f]{64}\.npz"),
    "files": re.compile(r"[0-9a-f]{64}"),
    _CELLS: re.compile(r"[0-9a-f]{16}\.jsonl"),
}
_TOLD = {
    "spectra": "singular values by content",
    "files": "file digests",
    _CELLS: "data of notebook cells, which runs refer to: never cleared",
    "names": "names of models (`geonb model list`): never cleared",
    "other": "not geonb's, or not of a known form: never cleared",
}
_NAMES = ("models.json", "models.json.lock")
# what a write that was cut off leaves behind
_PART = re.compile(r"\..*\.part")
# squares and the two long forms of a language model's matrices, small enough for a few seconds in all
SHAPES = ((256, 256), (256, 1024), (512, 1536), (768, 768))
# with seven repeats the span from least to greatest holds the median at 1 - 2 / 2^7 = 98.4 %, whatever the distribution
REPEATS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheKind(Record):
    """The entries of one kind: how many, and how many bytes."""

    kind: str
    entries: int
    bytes: int
    clearable: bool
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStatus(Record):
    """Where the cache lies and what is in it; `cleared` is what a call just removed."""

    folder: str
    is_there: bool
    kinds: tuple[CacheKind, ...]
    cleared: tuple[CacheKind, ...]

    def to_text(self) -> str:
        lines = [f"cache at {self.folder!r}{'' if self.is_there else ' (nothing there yet)'}"]
        lines += [
            f"  {one.kind:8} {one.entries:>8,} entries {_megabytes(one.bytes):>12}  {one.note}" for one in self.kinds
        ]
        lines += [f"cleared {one.entries:,} of {one.kind}, {_megabytes(one.bytes)}" for one in self.cleared]
        return "\n".join(lines)

    def to_html(self) -> str:
        rows = [(one.kind, one.entries, _megabytes(one.bytes), one.note) for one in self.kinds]
        return table_html(("kind", "entries", "size", ""), rows, caption=f"Cache at {self.folder}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TierTime(Record):
    """One tier at one shape: its time, its time over the full decomposition's, and its error relative to sigma_max."""

    shape: tuple[int, int]
    tier: str
    time: Measurement
    ratio: Measurement
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark(Record):
    """The singular-value tiers on this machine."""

    backend: str
    dtype: str
    rows: tuple[TierTime, ...]

    def to_text(self) -> str:
        lines = [
            f"singular values with {self.backend} of {self.dtype} matrices, median and span of "
            f"{self.rows[0].time.n} paired runs",
            "",
            f"  {'shape':>12}  {'tier':13} {'ms':>9} {'least':>9} {'most':>9}  {'of float64-svd':>14}  {'error':>8}",
        ]
        for row in self.rows:
            low, high = row.time.interval or (row.time.value, row.time.value)
            shape = f"{row.shape[0]} x {row.shape[1]}"
            lines.append(
                f"  {shape:>12}  {row.tier:13} {row.time.value:>9.2f} {low:>9.2f} {high:>9.2f}  {row.ratio.value:>14.2f}  "
                f"{row.error:>8.1e}"
            )
        return "\n".join(lines)

    def to_html(self) -> str:
        rows = [
            (f"{one.shape[0]} x {one.shape[1]}", one.tier, repr(one.time), repr(one.ratio), one.error)
            for one in self.rows
        ]
        caption = f"Singular values with {self.backend} of {self.dtype} matrices"
        return table_html(("shape", "tier", "time", "of float64-svd", "error / sigma_max"), rows, caption=caption)


def cache_status(*, clear: bool = False) -> CacheStatus:
    """What geonb's cache holds; with `clear` the entries that can be computed again are deleted first.

    Only files with a name that geonb gives, lying directly in their kind's own folder, are deleted: no link is followed,
    and the list of model names, the data of notebook cells and whatever else lies there stay.
    """
    folder = cache_folder()
    cleared = tuple(_cleared(folder, kind) for kind in ("spectra", "files")) if clear else ()
    return CacheStatus(folder=str(folder), is_there=folder.is_dir(), kinds=_kinds(folder), cleared=cleared)


def _kinds(folder: Path) -> tuple[CacheKind, ...]:
    found = {kind: list(_entries(folder, kind)) for kind in _PATTERNS}
    known = {path for entries in found.values() for path, _ in entries}
    found |= {"names": [], "other": []}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        try:
            facts = path.lstat()
        except FileNotFoundError:  # another process cleared it meanwhile
            continue
        if path not in known and not stat.S_ISDIR(facts.st_mode):
            kind = "names" if path.parent == folder and path.name in _NAMES else "other"
            found[kind].append((path, facts.st_size))
    return tuple(
        CacheKind(
            kind=kind,
            entries=len(entries),
            bytes=sum(size for _, size in entries),
            clearable=kind in ("spectra", "files"),
            note=_TOLD[kind],
        )
        for kind, entries in found.items()
    )


def _entries(folder: Path, kind: str) -> Iterator[tuple[Path, int]]:
    """The regular files of one kind with their sizes; a link, to a folder or to a file, is none."""
    place = folder / kind
    if place.is_symlink() or not place.is_dir():
        return
    for path in sorted(place.iterdir()):
        facts = path.lstat()
        is_known = _PATTERNS[kind].fullmatch(path.name) or _PART.fullmatch(path.name)
        if is_known and stat.S_ISREG(facts.st_mode):
            yield path, facts.st_size


def _cleared(folder: Path, kind: str) -> CacheKind:
    entries = total = 0
    for path, size in _entries(folder, kind):
        path.unlink(missing_ok=True)
        entries, total = entries + 1, total + size
    return CacheKind(kind=kind, entries=entries, bytes=total, clearable=True, note=_TOLD[kind])


def benchmark(
    shapes: Sequence[tuple[int, int]] = SHAPES,
    *,
    backend: str = "torch",
    repeats: int = REPEATS,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Benchmark:
    """Time every tier on random matrices; in each repeat all tiers take the same matrix, in an order that rotates.

    The matrices are bfloat16 with torch, as most checkpoints are, float64 with the others, where the bfloat16 tier has
    nothing to gain and is left out. Reported are the median time, the median of the paired ratios to the full
    decomposition, and the largest error relative to sigma_max. Raises `InputError` for an unknown backend, a shape that
    is not two positive numbers, fewer than three repeats.
    """
    from geonb.backends import get_backend

    if repeats < 3 or any(len(shape) != 2 or min(shape) < 1 for shape in shapes) or not shapes:
        raise InputError(
            f"{repeats} repeats and the shapes {list(shapes)} were given; allowed are at least 3 repeats and shapes of two "
            "positive numbers."
        )
    engine = get_backend(backend)
    tiers = TIERS if engine.name == "torch" else TIERS[1:]
    rng = np.random.default_rng(seed)
    rows: list[TierTime] = []
    dtype = ""
    for shape in shapes:
        if progress is not None:
            progress(f"{shape[0]} x {shape[1]}")
        matrix = engine.asarray(rng.standard_normal(shape))
        if engine.name == "torch":
            matrix = matrix.bfloat16()
        dtype = engine.dtype_name(matrix)
        rows += _timed(shape, matrix, engine.name, tiers, repeats)
    return Benchmark(backend=engine.name, dtype=dtype, rows=tuple(rows))


def _timed(shape: tuple[int, int], matrix: object, backend: str, tiers: Sequence[str], repeats: int) -> list[TierTime]:
    exact = tiers[-1]
    # the first call of each pays for threads, workspaces and compilation
    values = {tier: spectrum(matrix, backend=backend, tier=tier).values for tier in tiers}
    times: dict[str, list[float]] = {tier: [] for tier in tiers}
    for repeat in range(repeats):
        shift = repeat % len(tiers)
        for tier in (*tiers[shift:], *tiers[:shift]):
            start = time.perf_counter()
            spectrum(matrix, backend=backend, tier=tier)
            times[tier].append(1e3 * (time.perf_counter() - start))
    found = []
    for tier in tiers:
        ratios = [one / full for one, full in zip(times[tier], times[exact], strict=True)]
        found.append(
            TierTime(
                shape=(shape[0], shape[1]),
                tier=tier,
                time=_median(times[tier], "ms"),
                ratio=_median(ratios, "of float64-svd"),
                error=float(np.abs(values[tier] - values[exact]).max() / values[exact][0]),
            )
        )
    return found


def _median(values: list[float], unit: str) -> Measurement:
    coverage = 1 - 2 / 2 ** len(values)
    return Measurement(
        value=statistics.median(values),
        interval=(min(values), max(values)),
        n=len(values),
        null=None,
        unit=unit,
        operator=f"median of paired runs; the interval is least to greatest, which holds the median at {coverage:.1%}",
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.2f} MB"
