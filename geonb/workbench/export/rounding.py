"""From float64 to a stored dtype in one rounding: torch goes through float32, which rounds twice."""

from __future__ import annotations

from typing import Any


def round_once(values: Any, dtype: Any) -> Any:
    """`values` (float64 tensor) in `dtype`, each rounded once to the nearest, ties to even.

    The step through float32 rounds to odd instead of to nearest (Boldo & Melquiond 2008): an inexact value gets the
    neighbour whose last bit is 1, so that it can never look like a tie to the second, narrower rounding.

    >>> import torch
    >>> round_once(torch.tensor([1 + 2**-8 + 2**-30], dtype=torch.float64), torch.bfloat16).item()
    1.0078125
    """
    import torch

    if dtype in (torch.float64, torch.float32):
        return values.to(dtype)
    near = values.to(torch.float32)
    missed = (near.double() != values) & near.isfinite() & (near.view(torch.int32) & 1 == 0)
    towards = torch.where(values > near.double(), torch.inf, -torch.inf).to(torch.float32)
    return torch.where(missed, torch.nextafter(near, towards), near).to(dtype)
