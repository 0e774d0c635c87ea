"""What random adapters do in a base's matrices: the yardstick for any dW of their rank, drawn once and kept in a file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geonb.errors import InputError
from geonb.geometry.low_rank import product_norm
from geonb.geometry.singular_values import singular_values
from geonb.models.checkpoint import Checkpoint
from geonb.models.matrix_ref import MatrixRef
from geonb.record_tables import table_html
from geonb.records import Record

Progress = Callable[[int, int, str], None]
# ||dW||_F / ||W||_F at which random adapters are drawn; Weyl utilisation depends on it, the other numbers do not
RELATIVE_CHANGES = (0.001, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0)
# below this share of ||dW||_2 what a direction lets through is the round-off of float32 factors, not the adapter
_SILENT = 1e-5
# the Gram route's small values are good to about 1e-7 sigma_max: enough for a dW that is not much smaller than W
_GRAM_IS_ENOUGH = 1e-3


@dataclass(frozen=True, slots=True)
class Change:
    """How one dW = B A lies in the singular basis of its W = U S V^T; nan where dW reads none of the top directions."""

    amplification_cv: float  # standard deviation over mean of ||dW v_k||, k up to top_k
    amplification_peak: float  # largest over mean
    amplification_argmax: int | None  # 1 = the strongest input direction
    amplification_energy: float  # sum of ||dW v_k||^2 over ||dW||_F^2
    weyl_utilisation: float  # max_i |s_i(W + dW) - s_i(W)| / ||dW||_2, in [0, 1]
    projection_depth: int  # smallest k with sum_{i <= k} ||u_i^T dW||^2 >= ||dW||_F^2 / 2
    energies: np.ndarray  # ||u_i^T dW||^2 / ||dW||_F^2 for the min(out, in) left singular vectors


class BaseMatrix:
    """One base matrix with its singular value decomposition, made once for the adapter and every random one.

    `weight`: (out, in), finite and not zero; raises `InputError` where it is neither.
    """

    def __init__(self, weight: Any, *, name: str = "the matrix") -> None:
        self.weight = np.asarray(weight, dtype=np.float64)
        if not np.isfinite(self.weight).all() or not self.weight.any():
            raise InputError(f"{name} is zero or holds NaN or infinity, so it has no singular basis: check the base.")
        self.left, self.values, self.right = np.linalg.svd(self.weight, full_matrices=False)
        self.frobenius = float(np.linalg.norm(self.weight))

    def change(self, left: np.ndarray, right: np.ndarray, *, top_k: int) -> Change:
        """Measure dW = `left` `right`, (out, r) and (r, in), not zero; the product is formed only for its Weyl shifts."""
        own, core = left.T @ left, right @ right.T
        total, norm = float((own * core).sum()), product_norm(left, right)
        read = right @ self.right[:top_k].T
        amplification = np.sqrt(np.maximum(((own @ read) * read).sum(0), 0.0))
        mean, largest = float(amplification.mean()), float(amplification.max())
        heard = largest > _SILENT * norm
        written = self.left.T @ left
        energies = ((written @ core) * written).sum(1) / total
        return Change(
            amplification_cv=float(amplification.std()) / mean if heard else math.nan,
            amplification_peak=largest / mean if heard else math.nan,
            amplification_argmax=int(amplification.argmax()) + 1 if heard else None,
            amplification_energy=float((amplification**2).sum()) / total,
            weyl_utilisation=self.weyl_utilisation(left, right, norm),
            projection_depth=self._depth(energies),
            energies=energies,
        )

    def weyl_utilisation(self, left: np.ndarray, right: np.ndarray, norm: float) -> float:
        """max_i |s_i(W + dW) - s_i(W)| / ||dW||_2: at most 1 (Weyl 1912), small where dW acts beside W's structure."""
        changed = self.weight + left @ right
        tier = "float64-gram" if norm >= _GRAM_IS_ENOUGH * self.values[0] else "float64-svd"
        shift = float(np.abs(singular_values(changed, tier=tier) - self.values).max())
        return min(1.0, shift / norm)

    def _depth(self, energies: np.ndarray) -> int:
        reached = np.cumsum(energies)
        if reached[-1] >= 0.5:
            return int(np.searchsorted(reached, 0.5)) + 1
        # the left null space has no order of its own: its out - in directions share what they hold
        rest = len(self.left) - len(energies)
        return len(energies) + math.ceil((0.5 - reached[-1]) / max(1 - reached[-1], 0.5) * rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixBaseline(Record):
    """Mean and standard deviation over random adapters in one matrix; Weyl utilisation at each relative change."""

    name: str
    shape: tuple[int, int]
    amplification_cv: tuple[float, float]
    amplification_peak: tuple[float, float]
    projection_depth: tuple[float, float]
    weyl_utilisation: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline(Record):
    """Random adapters of one rank in every matrix of one model, for `analyze_adapter(baseline=...)`."""

    model: str
    digest: str  # of the checkpoint: a baseline answers for these weights only
    rank: int
    top_k: int
    draws: int
    seed: int
    relative_changes: tuple[float, ...]  # ||dW||_F / ||W||_F
    matrices: tuple[MatrixBaseline, ...]

    def of(self, name: str) -> MatrixBaseline | None:
        """The matrix called `name`, None where the baseline has none."""
        return next((one for one in self.matrices if one.name == name), None)

    def summary(self) -> str:
        return f"Baseline({self.model!r}, rank {self.rank}, {len(self.matrices)} matrices, {self.draws} draws)"

    def _rows(self) -> list[tuple[Any, ...]]:
        return [
            (one.name, one.amplification_cv[0], one.projection_depth[0], *(pair[0] for pair in one.weyl_utilisation))
            for one in self.matrices
        ]

    def _columns(self) -> tuple[str, ...]:
        weyl = (f"Weyl at {change:g}" for change in self.relative_changes)
        return ("matrix", "amplification CV", "depth", *weyl)

    def to_text(self) -> str:
        from geonb.records import plain

        lines = [f"{self.summary()}: means; Weyl utilisation at ||dW||_F / ||W||_F"]
        width = max(len(one.name) for one in self.matrices)
        head, *columns = self._columns()
        lines.append(f"  {head:{width}}  " + "  ".join(columns))
        for name, *numbers in self._rows():
            told = (f"{number:.4g}".rjust(len(column)) for number, column in zip(numbers, columns, strict=True))
            lines.append(f"  {name:{width}}  " + "  ".join(told))
        return "\n".join(plain(line) for line in lines)

    def to_html(self) -> str:
        return table_html(self._columns(), self._rows(), caption=f"{self.summary()}: means over random adapters")


def random_factors(
    shape: tuple[int, int], rank: int, *, frobenius: float, draws: int, seed: int = 0, name: str = ""
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`draws` random adapters of a matrix: B (out, r) and A (r, in) Gaussian, ||BA||_F scaled to `frobenius`.

    Seed and name decide, so that each matrix has draws of its own and the same ones every time.
    """
    generator = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest(), "big"))
    for _ in range(draws):
        left, right = generator.standard_normal((shape[0], rank)), generator.standard_normal((rank, shape[1]))
        size = math.sqrt(float(((left.T @ left) * (right @ right.T)).sum()))
        yield left * (frobenius / size), right


def check_draws(draws: int, top_k: int) -> None:
    """Raise `InputError` for a number of draws or of top directions that measures nothing."""
    if draws < 2:
        raise InputError(f"{draws} draws were asked for; a spread needs two: give --draws 2 or more.")
    if top_k < 2:
        raise InputError(f"top-k {top_k} was given; a variation needs two directions: give --top-k 2 or more.")


def calibrate_baseline(
    model: str | Path | Checkpoint,
    rank: int,
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
    draws: int = 5,
    top_k: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> Baseline:
    """Draw `draws` random adapters of `rank` in every targetable matrix of `model`, measure them, and write `output`.

    One full SVD a matrix and one spectrum of W + dW for each draw and relative change. Experts inside 3-D parameters are
    left out. Raises `InputError` for a rank outside 1 .. the smallest matrix's full rank, and for an output that exists.

    >>> calibrate_baseline("embedded", 8, draws=2).of("model.layers.0.self_attn.q_proj.weight").shape
    (256, 256)
    """
    check_draws(draws, top_k)
    checkpoint = model if isinstance(model, Checkpoint) else Checkpoint.open(model)
    refs = [ref for ref in checkpoint.refs if ref.targetable and ref.expert is None and ref.slice is None]
    if not refs:
        raise InputError(f"{checkpoint.source} has no matrix that an adapter could be drawn for: give another model.")
    smallest = min(refs, key=lambda ref: min(ref.shape))
    if not 1 <= rank <= min(smallest.shape):
        raise InputError(
            f"the rank {rank} was given; allowed are 1 to {min(smallest.shape)}, the full rank of {smallest.name}."
        )
    if output is not None:
        _check_output(Path(output), overwrite)
    matrices = []
    for done, ref in enumerate(refs, 1):
        matrices.append(_calibrated(checkpoint, ref, rank, draws, top_k, seed))
        if progress is not None:
            progress(done, len(refs), ref.name)
    baseline = Baseline(
        model=checkpoint.source,
        digest=checkpoint.digest,
        rank=rank,
        top_k=top_k,
        draws=draws,
        seed=seed,
        relative_changes=RELATIVE_CHANGES,
        matrices=tuple(matrices),
    )
    if output is not None:
        baseline.save(output)
    return baseline


def _check_output(path: Path, overwrite: bool) -> None:
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"the output {path} is a folder or lies in none; allowed is a file in one that is there.")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; allowed is a new file: give another, or --overwrite.")


def _calibrated(checkpoint: Checkpoint, ref: MatrixRef, rank: int, draws: int, top_k: int, seed: int) -> MatrixBaseline:
    base = BaseMatrix(checkpoint.read(ref).double().numpy(), name=f"{ref.name} of {checkpoint.source}")
    drawn, shifts = [], []
    # the lowest relative change serves the three numbers that do not depend on it
    size = RELATIVE_CHANGES[0] * base.frobenius
    for left, right in random_factors(ref.shape, rank, frobenius=size, draws=draws, seed=seed, name=ref.name):
        drawn.append(base.change(left, right, top_k=top_k))
        found = [drawn[-1].weyl_utilisation]
        for change in RELATIVE_CHANGES[1:]:
            scaled = left * (change / RELATIVE_CHANGES[0])
            found.append(base.weyl_utilisation(scaled, right, product_norm(scaled, right)))
        shifts.append(found)
    return MatrixBaseline(
        name=ref.name,
        shape=ref.shape,
        amplification_cv=mean_and_spread([one.amplification_cv for one in drawn]),
        amplification_peak=mean_and_spread([one.amplification_peak for one in drawn]),
        projection_depth=mean_and_spread([float(one.projection_depth) for one in drawn]),
        weyl_utilisation=tuple(mean_and_spread(column) for column in zip(*shifts, strict=True)),
    )


def mean_and_spread(values: Any) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1)."""
    return float(np.mean(values)), float(np.std(values, ddof=1))
