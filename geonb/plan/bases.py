"""The rows A of an adapter, from a matrix and the name of its basis: one rule for calibration and training."""

from __future__ import annotations

import hashlib

import numpy as np

from geonb.errors import InputError
from geonb.plan.target import TargetPlan


def matrix_seed(seed: int, name: str) -> int:
    """A seed of its own for each matrix: the first 8 bytes of sha256("<seed>:<name>"), big-endian."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big")


def input_basis(target: TargetPlan, weight: np.ndarray, seed: int) -> np.ndarray:
    """A, (rank, in), float64 with orthonormal rows, for every basis that a weight of shape (out, in) alone decides."""
    from geonb.geometry.bases import full_basis, random_basis, tail_basis, top_basis

    own = matrix_seed(seed, target.name)
    match target.basis:
        case "tail":
            return tail_basis(weight, target.rank, seed=own)
        case "top":
            return top_basis(weight, target.rank)
        case "full":
            return full_basis(weight.shape[1])
        case "random":
            return random_basis(weight.shape[1], target.rank, seed=own)
    raise InputError(
        f"the plan names the basis {target.basis!r}, which a weight alone does not decide; allowed here are tail, top, "
        "full and random: measure a gradient basis with `gradient_bases`."
    )
