"""W14: weights rounded to nearest, a low-rank correction of what that loses, and what each costs in bytes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from geonb.errors import InputError


def rounded(weight: Tensor, bits: int, groups: int = 1) -> Tensor:
    """Q(W): symmetric round to nearest with one 16-bit scale for each of `groups` equal parts of a row, float64.

    scale = max |w| / (2^(bits-1) - 1); the last part of a row may be shorter. Raises `InputError` for fewer than 2 bits.
    """
    if bits < 2 or not 1 <= groups <= weight.shape[1]:
        raise InputError(
            f"{bits} bits and {groups} groups were given; allowed are 2 bits and more, 1 to {weight.shape[1]} groups."
        )
    size = math.ceil(weight.shape[1] / groups)
    top = 2 ** (bits - 1) - 1
    pieces = []
    for part in weight.double().split(size, dim=1):
        scale = (part.abs().amax(1, keepdim=True) / top).half().double()
        pieces.append(torch.where(scale > 0, (part / scale).round().clamp(-top - 1, top) * scale, 0.0))
    return torch.cat(pieces, dim=1)


def correction(residue: Tensor, rank: int, *, half: bool = False) -> Tensor:
    """The best approximation of rank `rank` of W - Q(W); with `half` its two factors are rounded to 16 bits."""
    left, values, right = torch.linalg.svd(residue.double(), full_matrices=False)
    first = left[:, :rank] * values[:rank].sqrt()
    second = values[:rank, None].sqrt() * right[:rank]
    if half:
        first, second = first.half().double(), second.half().double()
    return first @ second


def random_correction(residue: Tensor, rank: int, draws: torch.Generator) -> Tensor:
    """A Gaussian product of rank `rank` with the Frobenius norm of the best correction."""
    out_features, in_features = residue.shape
    noise = torch.randn(out_features, rank, generator=draws, dtype=torch.float64)
    noise = noise @ torch.randn(rank, in_features, generator=draws, dtype=torch.float64)
    return noise * (correction(residue, rank).norm() / noise.norm()).to(noise.device)


def bytes_of(shape: tuple[int, int], bits: int, *, groups: int = 1, rank: int = 0) -> int:
    """Bytes of the codes, of 16-bit scales, and of a 16-bit correction of rank `rank`."""
    out_features, in_features = shape
    size = math.ceil(in_features / groups)
    codes = math.ceil(out_features * in_features * bits / 8)
    return codes + 2 * out_features * math.ceil(in_features / size) + 2 * rank * (out_features + in_features)


def equal_groups(shape: tuple[int, int], bits: int, rank: int) -> int:
    """The most groups a row whose scales take no more bytes than the correction of rank `rank` with one scale a row.

    >>> equal_groups((256, 256), 4, 8)
    16
    """
    budget = bytes_of(shape, bits, rank=rank)
    fitting = [groups for groups in range(1, shape[1] + 1) if bytes_of(shape, bits, groups=groups) <= budget]
    # several counts of groups give one size of group: the smallest of them says how many there are
    most = fitting[-1]
    return math.ceil(shape[1] / math.ceil(shape[1] / most))
