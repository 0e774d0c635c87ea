"""What an export leaves behind in numbers: how far it is from base + adapter, how large it is, and whether it stands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from geonb.geometry.measurement import Measurement
from geonb.record_tables import table_html
from geonb.records import Record, plain
from geonb.workbench.export.gap import GAP, KL_MAX, KL_MEAN, SAME_TOKEN
from geonb.workbench.export.target import SERVED

PASSED, FAILED, UNAVAILABLE = "passed", "failed", "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Export(Record):
    """One export: what it was made from, what its own loader gave back, and the verdict.

    `gaps` holds five measurements of the stored weights ("logit gap", "logit gap of 90%", "KL mean", "KL max" and "same
    token"; those in `tolerance` are judged), and the same with " as served" in the dtype and by the arithmetic of the
    loader, where that is another.
    """

    target: str
    model: str
    adapter: str
    output: str | None  # None where the export failed and nothing was kept
    verdict: str  # "passed" or "failed"
    because: str
    bits: int | None
    precision: str
    loader: str  # what read the export back, with its version
    gaps: dict[str, Measurement]
    tolerance: dict[str, float]  # by the name of the gap
    probes: str
    bytes: int  # of all files of the export
    base_bytes: int  # of the base's weight files
    files: dict[str, int]
    notes: tuple[str, ...]
    adapter_sha256: str
    base_sha256: str  # over config and weights
    geonb_version: str

    def summary(self) -> str:
        return f"Export({self.target}, {self.verdict}: {self.because})"

    def to_text(self) -> str:
        lines = [f"{self.target}: {self.model} with {self.adapter} -> {self.output or 'nothing was kept'}"]
        lines.append(
            f"  {megabytes(self.bytes)} MB ({megabytes(self.base_bytes)} MB the base), read back by {self.loader}"
        )
        for name, one in self.gaps.items():
            allowed = f", allowed {self.tolerance[name]:.3g}" if name in self.tolerance else ""
            lines.append(f"  {name}: {one.value:.3g} {one.unit}{allowed}; the bare base: {one.null:.3g}")
        lines.append(f"  measured on {self.probes}")
        lines += [f"  note: {note}" for note in self.notes]
        lines.append(f"{self.verdict}: {self.because}")
        return _printable(lines)

    def to_html(self) -> str:
        rows = [
            [name, one.value, self.tolerance.get(name), one.null, one.unit, one.n] for name, one in self.gaps.items()
        ]
        columns = ["gap", "value", "allowed", "bare base", "unit", "n"]
        said = [[self.verdict, self.because], *(["note", note] for note in self.notes), ["probes", self.probes]]
        caption = f"{self.target}: {self.model} with {self.adapter}, {megabytes(self.bytes)} MB"
        return table_html(columns, rows, caption=caption) + table_html(["", ""], said)


@dataclass(frozen=True, slots=True, kw_only=True)
class GapRow(Record):
    """One target of a table: its size and its gaps, or why it cannot be made from this base."""

    target: str
    verdict: str  # "passed", "failed" or "unavailable"
    because: str
    bytes: int | None
    gap: Measurement | None
    kl_mean: Measurement | None
    kl_max: Measurement | None
    same_token: Measurement | None
    kl_served: Measurement | None  # in the loader's own arithmetic, where that is not float32


@dataclass(frozen=True, slots=True, kw_only=True)
class GapTable(Record):
    """What each target costs and keeps: one row a target, all on the same probes."""

    model: str
    adapter: str
    probes: str
    base_bytes: int
    rows: tuple[GapRow, ...]

    def row(self, target: str) -> GapRow:
        """The row of one target."""
        return next(row for row in self.rows if row.target == target)

    def summary(self) -> str:
        passed = sum(row.verdict == PASSED for row in self.rows)
        return f"GapTable({self.model!r}, {passed} of {len(self.rows)} targets passed)"

    def _cells(self) -> list[list]:
        return [
            [row.target, None if row.bytes is None else row.bytes / 1e6]
            + [None if one is None else one.value for one in (row.gap, row.kl_mean, row.kl_max, row.kl_served)]
            + [None if row.same_token is None else row.same_token.value, row.verdict, row.because]
            for row in self.rows
        ]

    def to_text(self) -> str:
        cells = [
            [f"{x:.3g}" if isinstance(x, float) else "-" if x is None else str(x) for x in r] for r in self._cells()
        ]
        # reasons are sentences: they follow the table instead of widening it
        shown = [_COLUMNS[:-1], *(row[:-1] for row in cells)]
        widths = [max(len(row[i]) for row in shown) for i in range(len(shown[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown
        ]
        lines.append(f"measured on {self.probes}; the base has {megabytes(self.base_bytes)} MB")
        return _printable([*lines, *(f"{row.target}: {row.because}" for row in self.rows if row.verdict != PASSED)])

    def to_html(self) -> str:
        return table_html(_COLUMNS, self._cells(), caption=f"{self.model} with {self.adapter}, {self.probes}")


_COLUMNS = ["target", "MB", "logit gap", "KL mean", "KL max", "KL served", "same token", "verdict", "because"]


def row_of(export: Export, target: str) -> GapRow:
    """An export as a row of a table."""
    gaps = export.gaps
    return GapRow(
        target=target,
        verdict=export.verdict,
        because=export.because,
        bytes=export.bytes,
        gap=gaps[GAP],
        kl_mean=gaps[KL_MEAN],
        kl_max=gaps[KL_MAX],
        same_token=gaps[SAME_TOKEN],
        kl_served=gaps.get(f"{KL_MEAN} {SERVED}"),
    )


def unavailable_row(target: str, because: str) -> GapRow:
    """A target that cannot be made from this base."""
    return GapRow(
        target=target,
        verdict=UNAVAILABLE,
        because=because,
        bytes=None,
        gap=None,
        kl_mean=None,
        kl_max=None,
        same_token=None,
        kl_served=None,
    )


def megabytes(count: int) -> str:
    """Bytes as megabytes of 10^6, three digits."""
    return f"{count / 1e6:.3g}" if count < 1e9 else f"{count / 1e6:,.0f}"


def _printable(lines: Iterable[str]) -> str:
    # names come from a stranger's files, and a terminal obeys control characters
    return "\n".join(map(plain, lines))
