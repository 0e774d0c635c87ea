"""The spectrum of one matrix and every scalar that follows from it alone (MATH.md section 1)."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from geonb.errors import InputError
from geonb.records import Record

EPS = 2.0**-23  # float32's spacing at 1: the floor for every derived quantity, whatever the compute dtype
# (1, 1, 1, 0, 0) has effective rank 2.9999999999999996 in float64 and 3.0 in float32; the guard makes both 3
_FLOOR_GUARD = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum(Record):
    """Singular values of an (out, in) matrix, descending, float64, with the bound they were certified under.

    `error_bound` bounds |lambda_i - s_i^2| for the eigenvalues of the Gram matrix (absolute; Weyl), so that every
    derived number can say how sure it is. Not targetable and mostly undefined (`nan`) for a zero matrix.

    >>> Spectrum.of([5.0, 3.0, 1.0], shape=(3, 3)).structural_rank
    1
    """

    values: np.ndarray
    shape: tuple[int, int]
    tier: str = "exact"  # "bf16-gram", "float64-gram", "float64-svd" or "exact"
    error_bound: float = 0.0
    backend: str = "numpy"
    dtype: str = "float64"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The spectrum that `data` describes; what no matrix can have (a negative size, values that rise) is an `InputError`."""
        found = super(Spectrum, cls).from_dict(data)
        if min(found.shape) < 0:
            raise InputError(
                f"Spectrum has the shape {found.shape}; allowed are sizes of 0 and more: compute it again."
            )
        numbers = np.append(found.values, 0.0)
        if not (np.isfinite(numbers).all() and (np.diff(numbers) <= 0).all() and 0 <= found.error_bound < math.inf):
            raise InputError(
                "Spectrum has singular values that are no finite descending numbers from 0 on, or such an error bound: "
                "compute it again."
            )
        return found

    @classmethod
    def of(cls, values, *, shape: tuple[int, int] | None = None) -> Spectrum:
        """A spectrum from known singular values, in any order."""
        ordered = np.sort(np.asarray(values, dtype=np.float64))[::-1].copy()
        return cls(values=ordered, shape=shape or (len(ordered), len(ordered)))

    @property
    def full_rank(self) -> int:
        """q = min(out, in)."""
        return min(self.shape)

    @property
    def is_zero(self) -> bool:
        """Whether every entry is zero: then no scale exists and the matrix is not targetable."""
        return self.sigma_max == 0.0

    @property
    def sigma_max(self) -> float:
        """s_1, the spectral norm."""
        return float(self.values[0]) if len(self.values) else 0.0

    @property
    def energy(self) -> np.ndarray:
        """p_i = s_i^2 / sum s_j^2, scaled first so that tiny or huge weights neither under- nor overflow."""
        if self.is_zero:
            return np.zeros_like(self.values)
        squares = (self.values / self.sigma_max) ** 2
        return squares / squares.sum()

    @property
    def effective_rank(self) -> float:
        """exp(-sum p_i ln p_i) on energies, in [1, q]; 0 for a zero matrix."""
        return _exponential_entropy(self.energy)

    @property
    def effective_rank_amplitude(self) -> float:
        """The same on amplitudes s_i / sum s_j, as Roy & Vetterli 2007 define it."""
        if self.is_zero:
            return 0.0
        return _exponential_entropy(self.values / self.values.sum())

    @property
    def structural_rank(self) -> int:
        """k = clamp(floor(effective_rank + 1e-9), 1, q - 1); 1 if q = 1; 0 for a zero matrix."""
        if self.is_zero:
            return 0
        return self._clamped(self.effective_rank)

    def _clamped(self, effective: float) -> int:
        # an error bound beyond every number leaves the rank open, and no floor
        inside = min(max(effective, 0.0), float(self.full_rank))
        return max(1, min(math.floor(inside + _FLOOR_GUARD), self.full_rank - 1))

    @property
    def effective_rank_error(self) -> float:
        """First-order bound on the error of `effective_rank`: erank c u lambda_max / S sum |ln p_i + H|."""
        if self.is_zero or self.error_bound == 0:
            return 0.0
        total = float((self.values**2).sum())
        p = self.energy
        entropy = math.log(self.effective_rank)
        # where the bound exceeds the eigenvalue itself, x ln x is bounded by its value at the bound
        floor = self.error_bound / total
        slope = np.abs(np.log(np.maximum(p, floor)) + entropy)
        return self.effective_rank * floor * float(slope.sum())

    @property
    def k_certified(self) -> bool:
        """Whether the error bound does not straddle an integer, so that k is the k of the exact matrix."""
        if self.is_zero:
            return True
        error, value = self.effective_rank_error, self.effective_rank
        return self._clamped(value - error) == self._clamped(value + error)

    @property
    def sigma_k(self) -> float:
        """s_k, the singular value at the structural rank; 0 for a zero matrix."""
        return 0.0 if self.is_zero else float(self.values[self.structural_rank - 1])

    @property
    def tail_dims(self) -> int:
        """q - k: the directions that the structure leaves free; 0 for a zero matrix."""
        return 0 if self.is_zero else self.full_rank - self.structural_rank

    @property
    def gap_inside(self) -> float:
        """The documented gap: s_{k-1} - s_k, or s_k if k = 1."""
        k = self.structural_rank
        if k == 0:
            return 0.0
        return self.sigma_k if k == 1 else float(self.values[k - 2] - self.values[k - 1])

    @property
    def gap_boundary(self) -> float:
        """s_k - s_{k+1}: the gap that Weyl's no-crossing condition needs, and the one geonb uses."""
        k = self.structural_rank
        if k == 0:
            return 0.0
        return self.sigma_k - (float(self.values[k]) if k < len(self.values) else 0.0)

    @property
    def decay_ratio(self) -> float:
        """s_1 / s_k, at least 1; nan for a zero matrix."""
        return self.sigma_max / self.sigma_k if self.sigma_k > 0 else math.nan

    @property
    def precision_rank(self) -> int:
        """#{s_i > max(m, n) eps s_1} with float32's eps: a diagnostic of round-off, not of structure."""
        return int((self.values > max(self.shape) * EPS * self.sigma_max).sum()) if not self.is_zero else 0

    @property
    def knee_rank(self) -> int:
        """argmax s_i / s_{i+1} over the s_{i+1} above round-off, 1-based; 1 where nothing is left to compare."""
        kept = self.values[: self.precision_rank]
        return int(np.argmax(kept[:-1] / kept[1:])) + 1 if len(kept) > 1 else min(1, len(kept))

    @property
    def stable_rank(self) -> float:
        """sum s^2 / s_1^2."""
        return float(((self.values / self.sigma_max) ** 2).sum()) if not self.is_zero else 0.0

    @property
    def participation_ratio(self) -> float:
        """(sum s^2)^2 / sum s^4."""
        return float(1.0 / (self.energy**2).sum()) if not self.is_zero else 0.0

    @property
    def noise_edge(self) -> float:
        """sigma (sqrt m + sqrt n), the largest singular value that pure noise of this bulk would show.

        sigma^2 is the median of s^2 / max(m, n) over the true Marchenko-Pastur median at ratio q / max(m, n).
        """
        if self.is_zero:
            return 0.0
        longest = max(self.shape)
        ratio = self.full_rank / longest
        variance = float(np.median(self.values**2)) / longest / marchenko_pastur_median(ratio)
        return math.sqrt(variance) * (math.sqrt(self.shape[0]) + math.sqrt(self.shape[1]))

    @property
    def noise_rank(self) -> int:
        """How many singular values stand above the noise edge (with a 1 % guard for its finite-size fluctuation)."""
        return int((self.values > 1.01 * self.noise_edge).sum()) if not self.is_zero else 0

    def scalars(self) -> dict[str, float | int | bool]:
        """Every scalar above, by its name."""
        return {name: getattr(self, name) for name in SCALARS}

    def summary(self) -> str:
        return (
            f"Spectrum(shape={self.shape}, sigma_max={self.sigma_max:.4g}, k={self.structural_rank}, "
            f"sigma_k={self.sigma_k:.4g}, tail_dims={self.tail_dims}, tier={self.tier!r})"
        )

    def to_text(self) -> str:
        lines = [self.summary()]
        lines += [f"  {name:26} {value:.6g}" for name, value in self.scalars().items()]
        return "\n".join(lines)


SCALARS = (
    "sigma_max",
    "effective_rank",
    "effective_rank_amplitude",
    "structural_rank",
    "k_certified",
    "sigma_k",
    "full_rank",
    "tail_dims",
    "gap_inside",
    "gap_boundary",
    "decay_ratio",
    "knee_rank",
    "stable_rank",
    "participation_ratio",
    "precision_rank",
    "noise_edge",
    "noise_rank",
)


def _exponential_entropy(weights: np.ndarray) -> float:
    positive = weights[weights > 0]
    return float(np.exp(-(positive * np.log(positive)).sum())) if len(positive) else 0.0


@functools.lru_cache(maxsize=512)
def marchenko_pastur_median(ratio: float) -> float:
    """Median of the Marchenko-Pastur law with unit variance at aspect ratio q/p in (0, 1], by bisection of its integral.

    >>> round(marchenko_pastur_median(1.0), 3)
    0.653
    """
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
    # x = low + (high - low) sin^2(t) takes the square-root edges out of the integrand (and 1/x at ratio 1)
    angle = np.linspace(0.0, math.pi / 2, 4001)
    points = low + (high - low) * np.sin(angle) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        density = (high - low) ** 2 * 2 * (np.sin(angle) * np.cos(angle)) ** 2 / (2 * math.pi * ratio * points)
    if low == 0.0:
        density[0] = high * 2 / (2 * math.pi * ratio)
    steps = np.diff(angle) * (density[1:] + density[:-1]) / 2
    mass = np.concatenate([[0.0], np.cumsum(steps)])
    return float(np.interp(mass[-1] / 2, mass, points))
