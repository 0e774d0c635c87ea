"""All singular values of a matrix, fast and certified: small-side Gram, values-only eigensolver, tiers with a bound.

reference: the Gram matrix of the smaller side in float64 costs m n^2 flops instead of an SVD's 4 m n^2 - 4/3 n^3, and
|lambda_i - s_i^2| <= c u s_1^2 by Weyl. bfloat16 weights have exact float32 products (16 significant bits), so their
Gram may be accumulated in float32 over chunks of 2048 and summed in float64. What the bound cannot certify is
computed again one tier up.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from geonb.errors import InputError
from geonb.geometry.spectrum import EPS, Spectrum

TIERS = ("bf16-gram", "float64-gram", "float64-svd")
_CHUNK = 2048
# budgeted constants of the eigenvalue bound c u s_1^2 (worst seen: 1.2 for float32 chunks, 4 for float64)
_C_FAST, _U_FAST = 64.0, 2.0**-24
_C_GRAM, _U_GRAM = 64.0, 2.0**-53
# below this share of sigma_max the float32-chunk Gram no longer gives 1 % (spectra: fall-back rule 2)
_FAST_FLOOR = 5e-3
# below this share the float64 Gram no longer gives six digits of sigma_k (fall-back rule 3)
_GRAM_FLOOR = 1e-6


def singular_values(weight: Any, *, backend: str | None = None, tier: str = "auto") -> np.ndarray:
    """All min(out, in) singular values of `weight`, float64, descending.

    >>> singular_values(np.diag([3.0, 1.0, 2.0])).tolist()
    [3.0, 2.0, 1.0]
    """
    return spectrum(weight, backend=backend, tier=tier).values


def spectrum(weight: Any, *, backend: str | None = None, tier: str = "auto", name: str = "the matrix") -> Spectrum:
    """The certified `Spectrum` of `weight`, an (out, in) array of NumPy, PyTorch, JAX or MLX.

    `tier`: "auto" starts at the cheapest tier that suits the dtype and escalates until k is certified and sigma_k is
    good to six digits; or one of "bf16-gram", "float64-gram", "float64-svd" to force one. `backend` computes with
    another library than the array's own. Raises `InputError` for a matrix that is not 2-D, empty, or not finite.
    """
    from geonb.backends import get_backend

    engine = get_backend(backend if backend is not None else weight)
    matrix = engine.asarray(weight)
    shape = tuple(int(size) for size in matrix.shape)
    if len(shape) != 2 or 0 in shape:
        raise InputError(f"{name} has the shape {shape}; a spectrum needs two dimensions that are not empty.")
    largest = engine.largest_magnitude(matrix)
    if not math.isfinite(largest):
        raise InputError(
            f"{name} holds NaN or infinite values; a spectrum needs finite weights: check how it was saved."
        )
    if tier not in ("auto", *TIERS):
        raise InputError(f"the tier {tier!r} is not known; allowed are auto, {', '.join(TIERS)}.")
    dtype = engine.dtype_name(matrix)
    if largest == 0.0:
        return Spectrum(values=np.zeros(min(shape)), shape=shape, backend=engine.name, dtype=dtype)
    if tier != "auto":
        return _solve(engine, matrix, shape, largest, dtype, tier)
    start = 0 if dtype == "bfloat16" and engine.has_fast_bfloat16() else 1
    for choice in TIERS[start:]:
        found = _solve(engine, matrix, shape, largest, dtype, choice)
        if _is_enough(found):
            break
    return found


def _is_enough(found: Spectrum) -> bool:
    """Whether this tier's bound certifies k and sigma_k (the fall-back rules of the spectra sheet)."""
    if found.tier == "float64-svd":
        return True
    share = found.sigma_k / found.sigma_max
    if found.tier == "bf16-gram":
        return found.k_certified and share >= _FAST_FLOOR
    # an effective rank within the float64 bound of an integer stays ambiguous in any arithmetic: accept it uncertified
    return share >= _GRAM_FLOOR


def _solve(engine, matrix, shape, largest: float, dtype: str, tier: str) -> Spectrum:
    # a power of two, so that scaling is exact; products of entries near 1 neither over- nor underflow
    exponent = -math.frexp(largest)[1]
    if tier == "float64-svd":
        values, bound = engine.svdvals(matrix, exponent), 0.0
    else:
        gram = engine.gram(matrix, exponent, fast=tier == "bf16-gram", chunk=_CHUNK)
        eigenvalues = engine.eigvalsh(gram)
        values = np.sqrt(np.maximum(eigenvalues[::-1], 0.0))
        constant = _C_FAST * _U_FAST if tier == "bf16-gram" else _C_GRAM * _U_GRAM
        bound = max(constant * float(values[0]) ** 2, float(max(0.0, -eigenvalues[0])))
    values = np.ldexp(np.asarray(values, dtype=np.float64), -exponent)
    return Spectrum(
        values=values,
        shape=shape,
        tier=tier,
        error_bound=bound * 4.0 ** float(-exponent),
        backend=engine.name,
        dtype=dtype,
    )


def full_precision(weight: Any, *, name: str = "the matrix") -> Spectrum:
    """The spectrum whose small end may be shown too: precision ranks and null spaces need the float64 tier."""
    found = spectrum(weight, tier="float64-gram", name=name)
    smallest = max(found.shape) * EPS * found.sigma_max
    return found if smallest**2 > found.error_bound else spectrum(weight, tier="float64-svd", name=name)
