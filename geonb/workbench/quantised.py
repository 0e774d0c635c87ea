"""What quantising a model leaves in numbers: the gap, the size, the seconds, and each matrix's rounding by its geometry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from geonb.geometry.measurement import Measurement
from geonb.record_tables import table_html
from geonb.records import Record, plain
from geonb.workbench.export.record import megabytes

_SHOWN = 5  # worst matrices in the text


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixRounding(Record):
    """One matrix W (out, in) and its rounding E = W_q - W, both in float64.

    `noise_norm` is the null: the spectral norm of independent entries as large as E's, ||E||_F / sqrt(mn) (sqrt m + sqrt n)
    (Bai & Yin 1993). By Weyl every s_i moves by at most ||E||_2, so those not above it may be rounding alone.
    """

    name: str
    role: str
    shape: tuple[int, int]  # (out, in)
    error_norm: float  # ||E||_2
    noise_norm: float  # ||E||_2 if its entries were independent
    relative_error: float  # ||E||_F / ||W||_F
    sigma_max: float
    sigma_k: float  # where W's structure ends and its tail begins
    noise_edge: float  # the largest singular value that noise as large as W's bulk would show
    tail_dims: int  # q - k
    buried: int  # singular values of W that are not above ||E||_2, of q

    @property
    def over_sigma_k(self) -> float:
        """||E||_2 / sigma_k; below 1 the structure stands above the rounding."""
        return self.error_norm / self.sigma_k if self.sigma_k else float("nan")

    @property
    def over_edge(self) -> float:
        """||E||_2 / noise edge; below 1 the rounding hides in the noise that W has already."""
        return self.error_norm / self.noise_edge if self.noise_edge else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantised(Record):
    """A quantised model: what its own loader gave back, how large and how fast it is, and what rounding did to W.

    `gaps` holds five measurements of the stored weights in float32 arithmetic ("logit gap", "logit gap of 90%", "KL mean",
    "KL max", "same token"; those in `tolerance` are judged), and the same with " as served" by the loader's own arithmetic.
    """

    model: str
    output: str | None  # None where the verdict is "failed" and nothing was kept
    form: str  # "torchao" or "gguf"
    bits: int
    verdict: str  # "passed" or "failed"
    because: str
    loader: str  # what read it back, with its version
    gaps: dict[str, Measurement]  # the null: the model in its own dtype, not quantised
    tolerance: dict[str, float]  # by the name of the gap
    probes: str
    bytes: int  # of all files written
    base_bytes: int  # of the model's weight files
    files: dict[str, int]
    seconds_before: Measurement | None  # of one forward; None where the loader does not serve quantised weights
    seconds_after: Measurement | None
    slowdown: Measurement | None  # median of after / before in pairs; above 1 is slower
    matrices: tuple[MatrixRounding, ...]  # empty where it was not asked for
    notes: tuple[str, ...]
    base_sha256: str  # over config and weights
    geonb_version: str

    def worst(self, count: int = _SHOWN) -> tuple[MatrixRounding, ...]:
        """The matrices whose rounding is largest beside sigma_k."""
        return tuple(sorted(self.matrices, key=lambda one: -np.nan_to_num(one.over_sigma_k))[:count])

    def summary(self) -> str:
        return f"Quantised({self.model!r}, {self.form}, {self.bits} bits, {self.verdict}: {self.because})"

    def to_text(self) -> str:
        lines = [
            f"{self.model} in {self.bits} bits ({self.form}) -> {self.output or 'nothing was kept'}",
            f"  {megabytes(self.bytes)} MB ({megabytes(self.base_bytes)} MB the model), read back by {self.loader}",
        ]
        for name, one in self.gaps.items():
            allowed = f", allowed {self.tolerance[name]:.3g}" if name in self.tolerance else ""
            null = "" if one.null is None else f"; not quantised: {one.null:.3g}"
            lines.append(f"  {name}: {one.value:.3g} {one.unit}{allowed}{null}")
        if self.seconds_before and self.seconds_after and self.slowdown:
            lines.append(
                f"  a forward: {self.seconds_before.value:.3g} s before, {self.seconds_after.value:.3g} s after; after / before "
                f"{_spanned(self.slowdown)} ({self.slowdown.n} pairs; {self.slowdown.operator})"
            )
        if self.matrices:
            lines += ["", *(f"  {line}" for line in self._rounding()), ""]
        lines += [f"  measured on {self.probes}", *(f"  note: {note}" for note in self.notes)]
        lines.append(f"{self.verdict}: {self.because}")
        return "\n".join(map(plain, lines))

    def _rounding(self) -> Iterator[str]:
        total = len(self.matrices)
        below_k, below_edge = (sum(one.over_sigma_k < 1 for one in self.matrices),
                               sum(one.over_edge < 1 for one in self.matrices))  # fmt: skip
        yield (
            f"rounding E = W_q - W: ||E||_2 is below sigma_k in {below_k} of {total} matrices, below the noise edge in "
            f"{below_edge}; {sum(one.buried for one in self.matrices):,} of "
            f"{sum(min(one.shape) for one in self.matrices):,} singular values of W are not above it"
        )
        width = max(len(one.name) for one in self.worst())
        yield f"{'worst':{width}}  ||E||_2  of noise's  / sigma_k  / noise edge  buried of q"
        for one in self.worst():
            yield (
                f"{one.name:{width}}  {one.error_norm:7.3g}  {_ratio(one.error_norm, one.noise_norm):>10}  "
                f"{one.over_sigma_k:9.3g}  {one.over_edge:12.3g}  {one.buried} of {min(one.shape)}"
            )

    def to_html(self) -> str:
        gaps = [
            [name, one.value, self.tolerance.get(name), one.null, one.unit, one.n] for name, one in self.gaps.items()
        ]
        times = [
            [name, one.value, None, None, one.unit, one.n]
            for name, one in (("before", self.seconds_before), ("after", self.seconds_after), ("ratio", self.slowdown))
            if one is not None
        ]
        caption = f"{self.model} in {self.bits} bits ({self.form}), {megabytes(self.bytes)} MB"
        shown = table_html(["", "value", "allowed", "not quantised", "unit", "n"], [*gaps, *times], caption=caption)
        if self.matrices:
            rows = [
                [one.name, one.error_norm, one.noise_norm, one.over_sigma_k, one.over_edge, one.buried]
                for one in self.worst(20)
            ]
            columns = ["matrix", "||E||_2", "if noise", "/ sigma_k", "/ noise edge", "buried"]
            shown += table_html(columns, rows, caption="The worst roundings, E = W_q - W")
        said = [[self.verdict, self.because], *(["note", note] for note in self.notes), ["probes", self.probes]]
        return shown + table_html(["", ""], said)


def _ratio(value: float, other: float) -> str:
    return f"{value / other:.3g}" if other else "-"


def _spanned(one: Measurement) -> str:
    low, high = one.interval or (one.value, one.value)
    return f"{one.value:.2f} [{low:.2f}, {high:.2f}]"
