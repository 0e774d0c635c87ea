"""From a coordinate to the weights of its cores: phases a = C theta, phi = (cos a, sin a), and the kernel k.

Only C theta modulo 2 pi matters: with C of rank p, a theta has p dimensions that do anything, whatever its length.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from geonb.errors import InputError


class Directions(nn.Module):
    """The m directions c_i of one layer; weights phi(theta) = [cos(C theta), sin(C theta)] of length 2m."""

    def __init__(self, pairs: int, coordinates: int, *, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        entries = torch.randn(pairs, coordinates, generator=generator) * (scale / math.sqrt(coordinates))
        self.directions = nn.Parameter(entries)

    def phases(self, theta: Tensor) -> Tensor:
        """a = C theta: (..., coordinates) -> (..., pairs), in radians, not wrapped."""
        return theta @ self.directions.T

    def forward(self, theta: Tensor) -> Tensor:
        """phi(theta): (..., coordinates) -> (..., 2 pairs)."""
        return weights_of(self.phases(theta))


def weights_of(phases: Tensor) -> Tensor:
    """phi = [cos a, sin a]: (..., m) -> (..., 2m); its norm is sqrt(m) for every a."""
    return torch.cat([phases.cos(), phases.sin()], dim=-1)


def kernel(first: Tensor, second: Tensor) -> Tensor:
    """k = (1/m) sum_i cos(a_i - b_i) of phases (..., m): 1 for equal phases, the mean cosine of their differences.

    It is <phi, phi'>/m, and the share of a step made at one coordinate that is felt at another (see `interference`).

    >>> kernel(torch.zeros(4), torch.zeros(4)).item()
    1.0
    """
    return (first - second).cos().mean(dim=-1)


def orthogonal_phases(pairs: int, count: int) -> np.ndarray:
    """(count, pairs) phases of pairwise kernel exactly 0, at most 2 x pairs of them: a Hadamard matrix's 0 and pi, then + pi/2.

    phi lives in R^2m, so no more than 2m can be orthogonal. Raises `InputError` above that, and where `pairs` is no power
    of two (the Hadamard matrices built here).
    """
    if pairs & (pairs - 1):
        raise InputError(f"{pairs} pairs were given; orthogonal phases are built for a power of two.")
    if not 1 <= count <= 2 * pairs:
        raise InputError(f"{count} orthogonal coordinates were asked for; {pairs} pairs hold at most {2 * pairs}.")
    from scipy.linalg import hadamard

    half = np.pi * (hadamard(pairs) < 0)
    return np.concatenate([half, half + np.pi / 2])[:count]


def theta_for(phases: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """The shortest theta with C theta = a: theta = C^+ a, for C (m, d) of full row rank.

    Raises `InputError` where C has not full row rank: then not every phase can be reached.
    """
    pairs = directions.shape[0]
    rank = int(np.linalg.matrix_rank(directions))
    if rank < pairs:
        raise InputError(f"the directions have rank {rank} of {pairs}; every phase can be reached only with full rank.")
    return phases @ np.linalg.pinv(directions).T


def welch_bound(pairs: int, count: int) -> float:
    """The least largest |k| among `count` coordinates: sqrt((count - 2m) / (2m (count - 1))), 0 up to 2m (Welch 1974).

    >>> round(welch_bound(64, 184), 4)
    0.0489
    """
    size = 2 * pairs
    return math.sqrt((count - size) / (size * (count - 1))) if count > size else 0.0
