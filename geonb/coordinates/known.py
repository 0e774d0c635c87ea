"""What was computed from tensors, and is computed again only when one of them has changed: each step, never while reading."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class Known:
    """Results by name, each valid for the tensors that it was computed from.

    A tensor is the same while it is the same object at the same version. Tensors made in `torch.inference_mode` count no
    versions: what comes from them is computed each time. A result is an ordinary tensor even where it was first asked for in
    inference mode, so that a later gradient may pass through what it is used with.
    """

    def __init__(self) -> None:
        self._results: dict[str, tuple[tuple, Any]] = {}

    def once(self, name: str, tensors: Iterable[Tensor], compute: Callable[[], Any]) -> Any:
        """`compute()`, without a graph, or what it gave for the same tensors."""
        version = []
        for tensor in tensors:
            if tensor.is_inference():
                with torch.no_grad():
                    return compute()
            version.append((id(tensor), tensor._version))
        kept = self._results.get(name)
        if kept is None or kept[0] != tuple(version):
            with torch.inference_mode(False), torch.no_grad():
                kept = (tuple(version), compute())
            self._results[name] = kept
        return kept[1]

    def clear(self) -> None:
        """Forget everything."""
        self._results.clear()


def without_graph(tensors: Iterable[Tensor]) -> bool:
    """Whether nothing computed from these tensors now would carry a gradient to them."""
    return not torch.is_grad_enabled() or not any(one.requires_grad for one in tensors)
