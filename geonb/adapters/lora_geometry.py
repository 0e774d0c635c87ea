"""Where an adapter's change lies in its base's singular basis, each number beside that of a random adapter.

With W = U S V^T and dW = s B A: does dW amplify the directions that W hears best, write where W writes, move its
singular values? A random dW of the same rank and size in the same matrix is what every answer is held against.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geonb.adapters import foreign
from geonb.adapters.audit import random_norms
from geonb.adapters.baseline import (
    Baseline,
    BaseMatrix,
    MatrixBaseline,
    Progress,
    check_draws,
    mean_and_spread,
    random_factors,
)
from geonb.adapters.foreign import Finding
from geonb.errors import InputError
from geonb.geometry.low_rank import product_singular_values
from geonb.geometry.spectrum import Spectrum
from geonb.models.checkpoint import Checkpoint
from geonb.models.matrix_ref import MatrixRef
from geonb.record_tables import table_html
from geonb.records import Record

# what is held against a random adapter: field -> heading
COMPARED = {
    "weyl_utilisation": "Weyl",
    "amplification_cv": "ampl. CV",
    "amplification_peak": "ampl. peak",
    "amplification_energy": "ampl. energy",
    "projection_depth": "depth",
    "subspace_overlap": "overlap",
    "stable_rank": "stable rank",
}
PLAIN = (
    "layer",
    "name",
    "role",
    "rank",
    "norm",
    "frobenius",
    "relative_change",
    "amplification_argmax",
    "subspace_rank",
)
_TEXT_COLUMNS = ("name", "rank", "norm", "relative_change", *COMPARED)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgainstRandom(Record):
    """A number of dW, and what random adapters of equal rank and ||dW||_F give in the same matrix."""

    value: float
    null: float  # mean over the draws, or the exact expectation
    null_interval: tuple[float, float] | None  # mean -+ 2 standard deviations; None where the expectation is exact

    @property
    def ratio(self) -> float:
        """value / null."""
        return self.value / self.null if self.null else math.nan

    def summary(self) -> str:
        return f"{_number(self.value)} ({_number(self.null)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixChange(Record):
    """One matrix's dW = s B A in the singular basis of its W; nan where dW hears none of the top directions."""

    name: str  # of the base's matrix
    role: str
    layer: int | None
    shape: tuple[int, int]  # (out, in)
    rank: int
    scale: float  # s
    singular_values: tuple[float, ...]  # of dW, descending, by QR of B and A^T
    norm: float  # ||dW||_2
    frobenius: float
    relative_change: float  # ||dW||_F / ||W||_F
    top_k: int
    amplification_argmax: int | None  # which of the top input directions dW amplifies most, 1 = W's strongest
    subspace_rank: int  # r of the overlap
    weyl_utilisation: AgainstRandom  # max_i |s_i(W + dW) - s_i(W)| / ||dW||_2
    amplification_cv: AgainstRandom  # of ||dW v_k||, k <= top_k: standard deviation over mean
    amplification_peak: AgainstRandom  # largest over mean
    amplification_energy: AgainstRandom  # sum over k <= top_k of ||dW v_k||^2 over ||dW||_F^2; null top_k / in
    projection_depth: AgainstRandom  # smallest k with sum_{i <= k} ||u_i^T dW||^2 >= ||dW||_F^2 / 2
    subspace_overlap: AgainstRandom  # ||U_r^T dW||_F / ||dW||_F; null sqrt(r / out)
    stable_rank: AgainstRandom  # ||dW||_F^2 / ||dW||_2^2
    null_source: str  # "drawn" or "baseline"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterGeometry(Record):
    """Every matrix of an adapter in its base's singular basis; numbers, no verdict."""

    folder: str
    base: str
    sort_by: str
    draws: int
    seed: int
    rows: tuple[MatrixChange, ...]
    findings: tuple[Finding, ...]

    def sorted(self, column: str) -> AdapterGeometry:
        """The same by falling `column` (layer, name and role: rising); nan and None stand last."""
        check_column(column)

        rising = column in {"layer", "name", "role"}

        def key(row: MatrixChange) -> tuple[bool, Any]:
            found = getattr(row, column)
            found = found.value if isinstance(found, AgainstRandom) else found
            if found is None or (isinstance(found, float) and math.isnan(found)):
                return True, 0
            return False, found if rising else -found

        fields = {name: getattr(self, name) for name in ("folder", "base", "draws", "seed", "findings")}
        return AdapterGeometry(**fields, sort_by=column, rows=tuple(sorted(self.rows, key=key)))

    def summary(self) -> str:
        return f"AdapterGeometry({self.folder!r}, {len(self.rows)} matrices; {self._medians()})"

    def _medians(self) -> str:
        told = []
        for name, heading in COMPARED.items():
            ratios = [getattr(row, name).ratio for row in self.rows]
            ratios = [ratio for ratio in ratios if math.isfinite(ratio)]
            if ratios:
                told.append(f"{heading} {statistics.median(ratios):.3g}")
        return "median over random: " + (", ".join(told) or "nothing to compare")

    def _cells(self) -> list[list[str]]:
        return [[_cell(getattr(row, name)) for name in _TEXT_COLUMNS] for row in self.rows]

    def to_text(self) -> str:
        from geonb.records import plain

        columns = [COMPARED.get(name, name).replace("_", " ") for name in _TEXT_COLUMNS]
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        lines = [
            f"{self.folder} on {self.base}, by {self.sort_by}; in brackets a random adapter of equal rank and size"
        ]
        for name, *numbers in [columns, *cells]:
            told = (number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True))
            lines.append("  ".join(["", name.ljust(widths[0]), *told]))
        lines += [f"  {one.kind}: {one.subject}: {one.because}" for one in self.findings]
        return "\n".join(plain(line) for line in [*lines, self._medians()])

    def to_html(self) -> str:
        columns = [COMPARED.get(name, name).replace("_", " ") for name in _TEXT_COLUMNS]
        caption = f"{self.folder} on {self.base}; in brackets a random adapter of equal rank and size"
        table = table_html(columns, self._cells(), caption=caption)
        found = [(one.kind, one.subject, one.because) for one in self.findings]
        return table + (table_html(("finding", "about", "because"), found) if found else "")


def check_column(column: str) -> None:
    """Raise `InputError` for a name that is no column."""
    if column not in (*PLAIN, *COMPARED):
        raise InputError(f"{column!r} is no column to sort by; allowed are {', '.join((*PLAIN, *COMPARED))}.")


def analyze_adapter(
    folder: str | Path,
    base: str | Path | Checkpoint | None = None,
    *,
    top_k: int = 64,
    subspace_rank: int | None = None,
    baseline: str | Path | Baseline | None = None,
    draws: int = 3,
    seed: int = 0,
    sort_by: str = "layer",
    progress: Progress | None = None,
) -> AdapterGeometry:
    """Measure every dW of a PEFT LoRA adapter in the singular basis of its base matrix, beside random adapters.

    `base` None takes the config's own base where that is a folder here or "embedded". `subspace_rank` None is each
    matrix's structural rank k. With `baseline` (a file of `calibrate_baseline`) matrices of its rank take their null from
    it instead of `draws` new draws; Weyl utilisation is interpolated over ||dW||_F / ||W||_F, both in logarithms. Raises
    `InputError` without a base, for a baseline of other weights or top_k, and where no matrix can be measured.

    >>> analyze_adapter("my-adapter", "embedded").sorted("weyl_utilisation").rows[0].name  # doctest: +SKIP
    'model.layers.2.mlp.down_proj.weight'
    """
    check_draws(draws, top_k)
    check_column(sort_by)
    if subspace_rank is not None and subspace_rank < 1:
        raise InputError(f"the subspace rank {subspace_rank} was given; allowed are 1 and more.")
    folder = Path(folder)
    config, found = foreign.read_config(folder), foreign.Found()
    pairs, _ = foreign.read_pairs(folder, config, found)
    checkpoint, unopened = foreign.open_base(base, config)
    if checkpoint is None:
        raise InputError(f"{unopened}; this analysis needs the base's weights: give --base.")
    known = None if baseline is None else _baseline(baseline, checkpoint, top_k)
    matched = _matched(checkpoint, pairs, found)
    if not matched:
        reasons = "; ".join(f"{subjects[0]}: {because}" for (_, because), subjects in found.items())
        raise InputError(f"{folder} changes no matrix of {checkpoint.source} that can be measured ({reasons}).")
    nulls = {path: _null_of(known, ref, len(pairs[path][1])) for path, ref in matched.items()}
    if known is not None and not any(nulls.values()):
        ranks = sorted({len(pairs[path][1]) for path in matched})
        raise InputError(
            f"the baseline is of rank {known.rank} and this adapter's matrices are of {ranks}: calibrate one of such a "
            "rank, or leave --baseline out."
        )
    rows = []
    for done, (path, ref) in enumerate(matched.items(), 1):
        row = _row(checkpoint, ref, pairs[path], top_k, subspace_rank, draws, seed, nulls[path], known)
        if known is not None and row.null_source == "drawn":
            because = "the baseline has no random adapter of this rank and size here: drawn anew"
            foreign.add_finding(found, "note", because, path)
        if row.amplification_argmax is None:
            because = f"dW hears none of W's top {row.top_k} input directions, so its amplification has no variation"
            foreign.add_finding(found, "note", because, path)
        rows.append(row)
        if progress is not None:
            progress(done, len(matched), path)
    findings = tuple(foreign.made_finding(kind, because, subjects) for (kind, because), subjects in found.items())
    unsorted = AdapterGeometry(
        folder=str(folder),
        base=checkpoint.source,
        sort_by="layer",
        draws=draws,
        seed=seed,
        rows=tuple(rows),
        findings=findings,
    )
    return unsorted.sorted(sort_by)


def _baseline(given: str | Path | Baseline, checkpoint: Checkpoint, top_k: int) -> Baseline:
    try:
        known = given if isinstance(given, Baseline) else Baseline.load(given)
        whole = all(len(one.weyl_utilisation) == len(known.relative_changes) for one in known.matrices)
    except InputError:
        raise
    except (ValueError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise InputError(f"{given} is no baseline: write one with `geonb adapter calibrate-baseline`.")
    if known.digest != checkpoint.digest:
        raise InputError(
            f"the baseline was drawn in {known.model} (digest {known.digest[:12]}), and the base {checkpoint.source} has "
            f"the digest {checkpoint.digest[:12]}: calibrate one for this base."
        )
    if known.top_k != top_k:
        raise InputError(f"the baseline was drawn with top-k {known.top_k}, and {top_k} was asked for: give the same.")
    return known


def _null_of(known: Baseline | None, ref: MatrixRef, rank: int) -> MatrixBaseline | None:
    return known.of(ref.name) if known is not None and known.rank == rank else None


def _matched(checkpoint: Checkpoint, pairs: Any, found: Any) -> dict[str, MatrixRef]:
    """The base matrix of every pair that can be measured; what cannot be becomes a finding."""
    matched = {}
    for path, (left, right, scale) in pairs.items():
        shape = len(left), right.shape[1]
        ref = foreign.matching_ref(checkpoint.refs, path, shape)
        if ref is None or ref.shape != shape:
            foreign.add_finding(found, "problem", f"matches no {shape} matrix of {checkpoint.source}", path)
        elif not (left.isfinite().all() and right.isfinite().all()):
            foreign.add_finding(found, "problem", "dW holds NaN or infinity", path)
        elif not (product_singular_values(*_scaled(left, right, scale)) > 0).any():
            foreign.add_finding(found, "note", "dW = 0: this matrix never moved", path)
        else:
            matched[path] = ref
    return matched


def _scaled(left: Any, right: Any, scale: float) -> tuple[np.ndarray, np.ndarray]:
    return left.double().numpy() * scale, right.double().numpy()


def _row(
    checkpoint: Checkpoint,
    ref: MatrixRef,
    pair: Any,
    top_k: int,
    subspace_rank: int | None,
    draws: int,
    seed: int,
    null: MatrixBaseline | None,
    known: Baseline | None,
) -> MatrixChange:
    base = BaseMatrix(checkpoint.read(ref).double().numpy(), name=f"{ref.name} of {checkpoint.source}")
    left, right = _scaled(*pair)
    values = product_singular_values(left, right)
    frobenius, rank = float(np.linalg.norm(values)), len(right)
    change = base.change(left, right, top_k=top_k)
    relative = frobenius / base.frobenius
    if null is not None and known is not None and relative <= known.relative_changes[-1]:
        nulls, source = _kept(null, known, relative), "baseline"
    else:
        nulls, source = _drawn(base, ref, rank, frobenius, top_k, draws, seed), "drawn"
    norms = random_norms(ref.shape, rank, frobenius=frobenius, seed=seed, name=ref.name)
    nulls["stable_rank"] = mean_and_spread((frobenius / norms) ** 2)
    compared = {
        name: AgainstRandom(value=float(value), null=nulls[name][0], null_interval=_interval(*nulls[name]))
        for name, value in (
            ("weyl_utilisation", change.weyl_utilisation),
            ("amplification_cv", change.amplification_cv),
            ("amplification_peak", change.amplification_peak),
            ("projection_depth", change.projection_depth),
            ("stable_rank", (frobenius / float(values[0])) ** 2),
        )
    }
    top = min(top_k, *ref.shape)
    inside = subspace_rank or Spectrum.of(base.values, shape=ref.shape).structural_rank
    inside = min(inside, *ref.shape)
    overlap = math.sqrt(max(0.0, float(change.energies[:inside].sum())))
    return MatrixChange(
        name=ref.name,
        role=ref.role,
        layer=ref.layer,
        shape=ref.shape,
        rank=rank,
        scale=float(pair[2]),
        singular_values=tuple(float(value) for value in values),
        norm=float(values[0]),
        frobenius=frobenius,
        relative_change=relative,
        top_k=top,
        amplification_argmax=change.amplification_argmax,
        subspace_rank=inside,
        # a Gaussian dW spreads its energy evenly over any fixed directions
        amplification_energy=AgainstRandom(
            value=change.amplification_energy, null=top / ref.shape[1], null_interval=None
        ),
        subspace_overlap=AgainstRandom(value=overlap, null=math.sqrt(inside / ref.shape[0]), null_interval=None),
        null_source=source,
        **compared,
    )


def _drawn(
    base: BaseMatrix, ref: MatrixRef, rank: int, frobenius: float, top_k: int, draws: int, seed: int
) -> dict[str, tuple[float, float]]:
    factors = random_factors(ref.shape, rank, frobenius=frobenius, draws=draws, seed=seed, name=ref.name)
    changes = [base.change(*one, top_k=top_k) for one in factors]
    names = ("weyl_utilisation", "amplification_cv", "amplification_peak", "projection_depth")
    return {name: mean_and_spread([getattr(one, name) for one in changes]) for name in names}


def _kept(null: MatrixBaseline, known: Baseline, relative: float) -> dict[str, tuple[float, float]]:
    # below the smallest change the utilisation is of first order in dW, and so does not depend on its size
    places = np.log(known.relative_changes)
    mean, spread = (
        math.exp(
            np.interp(math.log(relative), places, np.log([max(pair[side], 1e-300) for pair in null.weyl_utilisation]))
        )
        for side in (0, 1)
    )
    names = ("amplification_cv", "amplification_peak", "projection_depth")
    return {"weyl_utilisation": (mean, spread), **{name: getattr(null, name) for name in names}}


def _interval(mean: float, spread: float) -> tuple[float, float]:
    return mean - 2 * spread, mean + 2 * spread


def _cell(value: Any) -> str:
    return repr(value) if isinstance(value, AgainstRandom) else _number(value)


def _number(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
