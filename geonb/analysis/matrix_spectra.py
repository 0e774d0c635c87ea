"""The scalars of one matrix, each beside those of Gaussian matrices of its shape and Frobenius norm."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from geonb.analysis.measured import Measured, assemble, check_draws, finite_matrix
from geonb.errors import InputError
from geonb.geometry.marchenko_pastur import gaussian_singular_values, marchenko_pastur_distance
from geonb.geometry.singular_values import full_precision
from geonb.geometry.spectrum import SCALARS, Spectrum
from geonb.models.matrix_ref import MatrixRef

_EXTRA = {
    "frobenius": "||W||_F = (sum s^2)^1/2",
    "gap_first": "s_1 / s_2; nan where s_2 = 0",
    "edge_ratio": "s_1 / (v (sqrt m + sqrt n)), v^2 = ||W||_F^2 / (m n): 1 for large pure noise",
    "energy_above_edge": "share of sum s^2 in the s_i beyond 1.01 of the noise edge of the bulk's median",
    "mp_distance": "Kolmogorov distance of s^2 to the Marchenko-Pastur law of variance ||W||_F^2 / (m n)",
}
_OPERATORS = {
    "sigma_max": "s_1",
    "effective_rank": "exp(-sum p ln p), p = s^2 / sum s^2",
    "effective_rank_amplitude": "exp(-sum p ln p), p = s / sum s (Roy & Vetterli 2007)",
    "structural_rank": "k = clamp(floor(effective rank), 1, q - 1)",
    "sigma_k": "s_k",
    "full_rank": "q = min(m, n)",
    "tail_dims": "q - k",
    "gap_inside": "s_(k-1) - s_k",
    "gap_boundary": "s_k - s_(k+1)",
    "decay_ratio": "s_1 / s_k",
    "knee_rank": "argmax s_i / s_(i+1) above round-off",
    "stable_rank": "||W||_F^2 / s_1^2",
    "participation_ratio": "(sum s^2)^2 / sum s^4",
    "precision_rank": "#{s_i > max(m, n) 2^-23 s_1}",
    "noise_edge": "v (sqrt m + sqrt n), v from the median of s^2 and the Marchenko-Pastur median",
    "noise_rank": "#{s_i > 1.01 noise edge}",
    **_EXTRA,
}
_WEIGHTS = ("sigma_max", "sigma_k", "gap_inside", "gap_boundary", "noise_edge", "frobenius")
_DIMENSIONS = (
    "effective_rank", "effective_rank_amplitude", "structural_rank", "full_rank", "tail_dims", "knee_rank", "stable_rank",
    "participation_ratio", "precision_rank", "noise_rank",
)  # fmt: skip
_UNITS = {**dict.fromkeys(_WEIGHTS, "weight units"), **dict.fromkeys(_DIMENSIONS, "dimensions")}


def spectra(W: Any, *, checkpoint: Any = None, draws: int = 20, seed: int = 0) -> Measured:
    """Every scalar of MATH.md section 1 for one matrix W: (out, in), beside Gaussian twins of its shape and ||W||_F.

    `W` is an array, a torch tensor, a `MatrixGeometry`, or a `MatrixRef` or a matrix's name with its `checkpoint` (a
    `Checkpoint`, folder, hub id or "embedded"). A scalar of a given matrix is exact: `interval` is the bound of its own
    round-off where that is known (s_1, effective rank), else None, and n = 1. The null's draws are exact samples of the
    Gaussian's singular values (bidiagonal model), so that twins of a 4096 x 4096 matrix take a second each. Raises
    `InputError` for what is no finite matrix, for a zero one, and for a reference without its checkpoint.

    >>> found = spectra(np.random.default_rng(0).standard_normal((60, 40)))
    >>> low, high = found.null_interval("stable_rank")
    >>> bool(low < found["stable_rank"].value < high)
    True
    """
    check_draws(draws, 2)
    spectrum, subject = _spectrum(W, checkpoint)
    if spectrum.is_zero:
        raise InputError(f"{subject} is zero, so it has no scale and no twin: give a matrix that holds something.")
    figures = {name: (value, _round_off(spectrum, name)) for name, value in _scalars(spectrum).items()}
    rng = np.random.default_rng(seed)
    frobenius = float(np.linalg.norm(spectrum.values))
    nulls: dict[str, list[float]] = {name: [] for name in figures}
    for _ in range(draws):
        values = gaussian_singular_values(spectrum.shape, rng)
        twin = Spectrum.of(values * (frobenius / np.linalg.norm(values)), shape=spectrum.shape)
        for name, value in _scalars(twin).items():
            nulls[name].append(value)
    said = f"{spectrum.tier} singular values; null: mean of {draws} Gaussian matrices of equal shape and ||W||_F, seed {seed}"
    measured, kept = assemble(figures, nulls, n=1, units=_UNITS, operators=_OPERATORS, said=said)
    return Measured(subject=subject, measured=measured, nulls=kept)


def _spectrum(given: Any, checkpoint: Any) -> tuple[Spectrum, str]:
    from geonb.models.checkpoint import Checkpoint
    from geonb.models.geometry import MatrixGeometry, matrix_geometry

    if isinstance(given, MatrixGeometry):
        return given.spectrum, given.ref.name
    if isinstance(given, Spectrum):
        return given, f"a matrix of {given.shape[0]} x {given.shape[1]}"
    if isinstance(given, MatrixRef | str):
        if checkpoint is None:
            raise InputError(
                "a matrix was given by its name without its checkpoint: give checkpoint=, a folder or `embedded`."
            )
        opened = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint.open(checkpoint)
        ref = given if isinstance(given, MatrixRef) else opened.ref(given)
        return matrix_geometry(opened, ref).spectrum, ref.name
    matrix = finite_matrix(given, name="W")
    return full_precision(matrix, name="W"), f"a matrix of {matrix.shape[0]} x {matrix.shape[1]}"


def _scalars(spectrum: Spectrum) -> dict[str, float]:
    found = {name: float(getattr(spectrum, name)) for name in SCALARS if name != "k_certified"}
    values, (rows, columns) = spectrum.values, spectrum.shape
    frobenius = float(np.linalg.norm(values))
    edge = frobenius / math.sqrt(rows * columns) * (math.sqrt(rows) + math.sqrt(columns))
    found["frobenius"] = frobenius
    found["gap_first"] = float(values[0] / values[1]) if len(values) > 1 and values[1] > 0 else math.nan
    found["edge_ratio"] = float(values[0]) / edge
    found["energy_above_edge"] = float(spectrum.energy[: spectrum.noise_rank].sum())
    found["mp_distance"] = marchenko_pastur_distance(values, spectrum.shape)
    return found


def _round_off(spectrum: Spectrum, name: str) -> tuple[float, float] | None:
    if name == "effective_rank":
        return (
            spectrum.effective_rank - spectrum.effective_rank_error,
            spectrum.effective_rank + spectrum.effective_rank_error,
        )
    if name == "sigma_max":
        square = spectrum.sigma_max**2
        return math.sqrt(max(0.0, square - spectrum.error_bound)), math.sqrt(square + spectrum.error_bound)
    return None
