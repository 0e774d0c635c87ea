"""The quantities that a map of the matrices can show, and how each is coloured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from geonb.geometry.spectrum import Spectrum


@dataclass(frozen=True, slots=True)
class Scalar:
    """One quantity of a spectrum: its key, what a reader sees, and whether it is a share between 0 and 1."""

    key: str
    label: str
    of: Callable[[Spectrum], float]
    share: bool = False


def _share(name: str) -> Callable[[Spectrum], float]:
    return lambda spectrum: getattr(spectrum, name) / spectrum.full_rank if spectrum.full_rank else math.nan


def _plain(name: str) -> Callable[[Spectrum], float]:
    return lambda spectrum: float(getattr(spectrum, name))


SCALARS: dict[str, Scalar] = {
    scalar.key: scalar
    for scalar in (
        Scalar("tail_share", "tail_dims / q, the share of directions left free", _share("tail_dims"), True),
        Scalar("tail_dims", "tail_dims, directions left free", _plain("tail_dims")),
        Scalar("sigma_k", "σₖ, the strict budget", _plain("sigma_k")),
        Scalar("sigma_max", "σ_max, the open budget", _plain("sigma_max")),
        Scalar("decay_ratio", "decay ratio σ₁ / σₖ", _plain("decay_ratio")),
        Scalar("effective_rank", "effective rank", _plain("effective_rank")),
        Scalar("effective_share", "effective rank / q", _share("effective_rank"), True),
        Scalar("structural_rank", "k, the structural rank", _plain("structural_rank")),
        Scalar("gap_boundary", "gap at the boundary, σₖ − σₖ₊₁", _plain("gap_boundary")),
        Scalar("gap_inside", "gap inside, σₖ₋₁ − σₖ", _plain("gap_inside")),
        Scalar("noise_share", "share of singular values above the noise edge", _share("noise_rank"), True),
        Scalar("knee_rank", "knee rank", _plain("knee_rank")),
        Scalar("stable_rank", "stable rank", _plain("stable_rank")),
        Scalar("participation_ratio", "participation ratio", _plain("participation_ratio")),
        Scalar("precision_rank", "precision rank", _plain("precision_rank")),
    )
}


@dataclass(frozen=True, slots=True)
class Domain:
    """From a value to a share of the colour scale; logarithmic where the values span more than a factor of 30."""

    low: float
    high: float
    log: bool

    def at(self, value: float) -> float:
        """0..1, or nan for what has no value."""
        if not math.isfinite(value) or (self.log and value <= 0):
            return math.nan
        low, high, x = (math.log(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return (x - low) / (high - low) if high > low else 0.5


def domain(scalar: Scalar, values: Sequence[float]) -> Domain:
    """The colour scale of `values`."""
    known = np.asarray([value for value in values if math.isfinite(value)])
    if scalar.share or not len(known):
        return Domain(0.0, 1.0, False)
    low, high = float(known.min()), float(known.max())
    positive = known[known > 0]
    if len(positive) and low >= 0 and high > 30 * float(positive.min()):
        return Domain(float(positive.min()), high, True)
    return Domain(low, high, False)
