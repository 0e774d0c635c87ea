"""Ways from one style to another: along the sphere in theta, or along the shortest arcs of the phases themselves.

The chord (1 - s) a + s b leaves the sphere, and passes through zero between opposite coordinates.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from geonb.errors import InputError


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """The point at `share` of the way from `first` to `second` (..., coordinates) on their sphere; the ends are exact.

    Raises `InputError` for opposite points, between which every way is as short, and for other lengths.
    """
    a, b = first.double(), second.double()
    norm, other = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    if not torch.allclose(norm, other, rtol=1e-4):
        raise InputError("two coordinates of different lengths were given; a way on the sphere needs one length.")
    cosine = ((a * b).sum(dim=-1, keepdim=True) / (norm * other)).clamp(-1, 1)
    angle = cosine.acos()
    if bool((angle > math.pi - 1e-6).any()):
        raise InputError(
            "two opposite coordinates were given; every way between them is as short: give a third between them."
        )
    sine = angle.sin()
    near = sine < 1e-9  # one point: any mean of the two
    safe = torch.where(near, torch.ones_like(sine), sine)
    weights = ((1 - share) * angle).sin() / safe, (share * angle).sin() / safe
    mixed = torch.where(near, a, weights[0] * a + weights[1] * b)
    if share in (0, 1):
        return (first if share == 0 else second).clone()
    return mixed.to(first.dtype)


def phase_path(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Phases at `share` of the way, each along its shorter arc: a + share wrap(b - a), wrap to [-pi, pi)."""
    difference = (second - first + math.pi) % (2 * math.pi) - math.pi
    return first + share * difference
