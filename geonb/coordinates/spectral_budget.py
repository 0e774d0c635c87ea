"""Spectral norms of very many small matrices, fast and certified: what keeps every token's change inside its budget.

A singular value decomposition of each 12 x 12 core costs more than the layer that it belongs to. Instead, with G = M^T M and
P = G^p by repeated squaring, ||M||_2 <= ||P||_F^(1 / 2p): matrices that are within their budget by that need no more. Of the
others, with a unit vector v close to the leading eigenvector of P, rho = v^T P v and s = ||P v - rho v||: in the basis of v and
its complement P = [[rho, s^T], [s, H]] with ||H||_2 <= h = sqrt(||P||_F^2 - rho^2 - 2 s^2), so that where rho > h

    rho <= lambda_1(P) <= rho + s^2 / (rho - h),   ||M||_2 = lambda_1(P)^(1 / 2p)

from the Schur complement. The gap is quadratic in s and is divided by 2p: a few products decide the norm to 2e-6. v is the
largest column of P after a Chebyshev polynomial that is small on [0, b], b near lambda_2(P) (Saad 2011, Numerical Methods for
Large Eigenvalue Problems, 4.4): with t = tr P and f = ||P||_F, lambda_1 is at least x = (t + sqrt(2 f^2 - t^2)) / 2, or f^2 / t
where that is not real, and lambda_2 at most min(t - x, sqrt(f^2 - x^2)), which the other eigenvalues have a share in. Matrices
whose two leading singular values nearly agree go on to a higher p, and the last of them to a decomposition.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

TOLERANCE = 2e-6  # relative, of a norm: upwards alone
# inside by more than the rounding of float32: 3.8e-6
MARGIN = 2.0**-18
_JUMPS = (2, 3)  # squarings before a vector is looked for: p = 4, then 32
_SCREENED = (1, 2)  # p after which matrices that are certainly inside are left out
_UPWARDS = 1 + 1e-6  # more than a Frobenius norm of float32 is off by
_DEGREE = 5  # of the polynomial
_SHARE = 0.7  # of the bound of lambda_2 that is lambda_2: 94 % of random 12 x 12 matrices are decided at p = 4 with it, 75 % at 1
_CHUNK = 2560  # matrices at a time, which bounds the memory that is kept: 4.8 MB of 12 x 12
_LANES = 64  # a multiple of every vector's length: elsewhere the last few entries are computed by other instructions


@torch.no_grad()
def scale_within(matrices: Tensor, beta: Tensor | float) -> Tensor:
    """min(1, beta / ||M||_2) of matrices (..., r, r), beta as broadcasts with (...): never too large, at most 6e-6 too small.

    >>> scale_within(torch.diag(torch.tensor([3.0, 1.0])), 6.0)
    tensor(1.)
    """
    flat = matrices.detach().reshape(-1, *matrices.shape[-2:]).float()
    shape = matrices.shape[:-2]
    limits = torch.as_tensor(beta, dtype=torch.float32, device=flat.device).expand(shape).reshape(-1) * (1 - MARGIN)
    # ||M||_2 <= ||M||_F: most tokens need no more
    size = torch.linalg.vector_norm(flat.flatten(1), dim=1)
    suspects = torch.nonzero(size > limits).flatten()
    if len(suspects) == len(flat):
        return (limits / _norms(flat, size, limits)).clamp_max_(1.0).reshape(shape)
    scale = torch.ones_like(limits)
    if len(suspects):
        allowed = limits[suspects]
        scale[suspects] = (allowed / _norms(flat[suspects], size[suspects], allowed)).clamp_max_(1.0)
    return scale.reshape(shape)


@torch.no_grad()
def spectral_norms(matrices: Tensor, enough: Tensor | None = None) -> Tensor:
    """||M||_2 of float32 matrices (count, r, r), from above, to `TOLERANCE`; of one below its `enough` any bound below that."""
    return _norms(matrices, torch.linalg.vector_norm(matrices.flatten(1), dim=1), enough)


def _norms(matrices: Tensor, size: Tensor, enough: Tensor | None) -> Tensor:
    found, some = size.clone(), torch.nonzero(size > 0).flatten()
    if len(some) < len(size):
        found[some] = _norms(matrices[some], size[some], None if enough is None else enough[some])
        return found
    for start in range(0, len(size), _CHUNK):
        part = slice(start, start + _CHUNK)
        found[part] = _chunk(matrices[part], size[part], None if enough is None else enough[part])
    return found


def _chunk(matrices: Tensor, size: Tensor, enough: Tensor | None) -> Tensor:
    """The norms of matrices other than zero, of Frobenius norms `size`; what is said of one depends on no other."""
    found = size.clone()
    left = torch.arange(len(size), device=size.device)  # the places of those that are multiplied
    room = _Room.of(matrices)
    power, spare = (room.take(name, matrices, *matrices.shape) for name in ("power", "spare"))
    torch.bmm(matrices.mT, matrices, out=power).mul_(size.square().reciprocal_()[:, None, None])
    # none is inside: ||M||_2 >= ||M||_F / sqrt(r)
    if enough is not None and not bool((size <= enough * math.sqrt(matrices.shape[-1])).any()):
        enough = None
    inside = torch.zeros_like(size, dtype=torch.bool)
    exponent = 1
    for jump in _JUMPS:
        for _ in range(jump):
            if enough is not None and exponent in _SCREENED:
                bound = _rooted(size * _UPWARDS, _frobenius(power), 2 * exponent)
                found[left] = torch.where(inside, found[left], bound)
                inside |= bound <= enough
                # a copy of the others costs less than their share of the products
                if 8 * int(inside.sum()) > len(inside):
                    rest = torch.nonzero(~inside).flatten()
                    if not len(rest):
                        return found
                    power, spare = _picked(power, rest, spare)
                    left, size, enough, inside = left[rest], size[rest], enough[rest], inside[rest]
            torch.bmm(power, power, out=spare)
            power, spare, exponent = spare, power, 2 * exponent
        frobenius = _frobenius(power)
        top, certified = _leading(power, frobenius, 2 * exponent * TOLERANCE, room)
        if enough is not None:
            bound = _rooted(size * _UPWARDS, frobenius, 2 * exponent)
            found[left], inside = torch.where(inside, found[left], bound), inside | (bound <= enough)
        found[left] = torch.where(inside, found[left], _rooted(size, top, 2 * exponent))
        rest = torch.nonzero(~(certified | inside)).flatten()
        if not len(rest):
            return found
        # at 1, far from the smallest float32 after the next squarings: the trace of P then is at least r^-7
        power, spare = _picked(power, rest, spare)
        power.div_(frobenius[rest][:, None, None])
        size, left, inside = _rooted(size[rest], frobenius[rest], 2 * exponent), left[rest], inside[rest]
        enough = None if enough is None else enough[rest]
    # in float64: where two values nearly agree, the float32 decomposition was seen to be 4e-6 too small
    found[left] = torch.linalg.matrix_norm(matrices[left].double(), ord=2).float()
    return found


def _frobenius(power: Tensor) -> Tensor:
    return torch.linalg.vector_norm(power.flatten(1), dim=1)


def _rooted(size: Tensor, value: Tensor, exponent: int) -> Tensor:
    """size x value^(1 / exponent) for a power of two, by square roots: the same wherever in a tensor it is taken."""
    value = value.double()
    for _ in range(exponent.bit_length() - 1):
        value = value.sqrt_()
    return size * value.float()


def _picked(power: Tensor, places: Tensor, spare: Tensor) -> tuple[Tensor, Tensor]:
    """The matrices at `places`, in the other's memory, and as much memory as they take."""
    return torch.index_select(power, 0, places, out=spare[: len(places)]), power[: len(places)]


def _leading(power: Tensor, frobenius: Tensor, tolerance: float, room: _Room) -> tuple[Tensor, Tensor]:
    """An upper bound of lambda_1(P), and whether it is within `tolerance` of it, relative.

    Entry by entry, the matrices along the last dimension: a product with a vector of each then takes half the time.
    """
    count, rank, _ = power.shape
    lanes = math.ceil(count / _LANES) * _LANES
    cube, square = room.take("entries", power, rank, rank, lanes), room.take("square", power, lanes)
    before, vector, image = room.take("vectors", power, 3, rank, lanes).unbind(0)
    entries, rows = cube.view(-1, lanes), cube.unbind(0)
    entries[:, :count] = power.flatten(1).T
    torch.mul(frobenius, frobenius, out=square[:count])
    diagonal = entries[:: rank + 1]
    trace = diagonal.sum(dim=0)
    # the largest column has its share of the leading eigenvector, whatever that is
    largest = diagonal.max(dim=0).indices
    torch.gather(cube, 0, largest.expand(1, rank, lanes), out=before.unsqueeze(0))
    real = 2 * square - trace.square()
    least = torch.where(real > 0, (trace + real.clamp_min(0).sqrt_()).div_(2), square / trace)
    edge = torch.minimum(trace - least, (square - least.square()).clamp_min_(0).sqrt_()).mul_(_SHARE)
    # not so small that a polynomial overflows; 1e-30 for lanes without a matrix
    steep = 4 / torch.maximum(edge, trace * 1e-3).clamp_min_(1e-30)
    _times(rows, before, vector).mul_(steep / 2).sub_(before)
    for _ in range(_DEGREE - 1):
        _times(rows, vector, image).mul_(steep).sub_(vector, alpha=2).sub_(before)
        before, vector, image = vector, image, before
    _times(rows, vector, image)
    length = torch.mul(vector, vector, out=before).sum(dim=0)
    rho = torch.mul(vector, image, out=before).sum(dim=0).div_(length)
    residual = image.addcmul_(vector, rho, value=-1).square_().sum(dim=0).div_(length)
    # upwards by the rounding of the difference
    others = (square - rho.square() - 2 * residual).clamp_min_(0).add_(rho.square(), alpha=1e-6)
    gap = rho - others.sqrt_()
    excess = residual / gap.clamp_min(1e-30)
    certified = (gap > 0.05 * rho) & (excess <= tolerance * rho)
    return (rho + excess)[:count], certified[:count]


def _times(rows: Sequence[Tensor], vector: Tensor, out: Tensor) -> Tensor:
    """P v of symmetric P by its rows, each (r, lanes), into `out` (r, lanes)."""
    values = vector.unbind(0)
    torch.mul(rows[0], values[0], out=out)
    for row, value in zip(rows[1:], values[1:], strict=True):
        out.addcmul_(row, value)
    return out


class _Room:
    """Memory that a thread keeps for the products of a chunk: asked for anew it costs as much as they do."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    @staticmethod
    def of(like: Tensor) -> _Room:
        """This thread's on a device."""
        return _threads.__dict__.setdefault(str(like.device), _Room())

    def take(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """A tensor of what was last written there, or of zeros."""
        count = math.prod(shape)
        if name not in self._kept or self._kept[name].numel() < count:
            with torch.inference_mode(False):
                self._kept[name] = torch.zeros(count, device=like.device)
        return self._kept[name][:count].view(shape)


_threads = threading.local()
