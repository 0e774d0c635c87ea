"""What was computed from tensors, and is computed again only when one of them has changed: each step, never while reading."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

_steps = 0


def _stepped(*_: Any) -> None:
    global _steps
    _steps += 1


# fused optimisers write to their parameters without a new version of them
register_optimizer_step_post_hook(_stepped)


class Known:
    """Results by name, each valid for the tensors that it was computed from.

    A tensor is the same while it is the same object at the same version and, where it may be trained, no optimiser of torch has
    made a step since. Tensors made in `torch.inference_mode` count no versions: what comes from them is computed each time. A
    result is an ordinary tensor even where it was first asked for in inference mode, so that a later gradient may pass through
    what it is used with.
    """

    def __init__(self) -> None:
        self._results: dict[str, tuple[list, list[int], Any]] = {}

    def __reduce__(self) -> tuple:
        # a copy's tensors are others
        return Known, ()

    def once(self, name: str, tensors: Iterable[Tensor], compute: Callable[[], Any]) -> Any:
        """`compute()`, without a graph, or what it gave for the same tensors."""
        tensors = list(tensors)
        for tensor in tensors:
            if tensor.is_inference():
                with torch.no_grad():
                    return compute()
        versions = [tensor._version for tensor in tensors]
        if any(tensor.requires_grad for tensor in tensors):
            versions.append(_steps)
        kept = self._results.get(name)
        # by reference: the number of an object that is gone may be another's
        if kept is not None and kept[1] == versions and all(map(_is, kept[0], tensors)):
            return kept[2]
        with torch.inference_mode(False), torch.no_grad():
            found = compute()
        self._results[name] = ([ref(tensor) for tensor in tensors], versions, found)
        return found

    def clear(self) -> None:
        """Forget everything."""
        self._results.clear()


def _is(kept: ref, tensor: Tensor) -> bool:
    return kept() is tensor


def without_graph(tensors: Iterable[Tensor]) -> bool:
    """Whether nothing computed from these tensors now would carry a gradient to them."""
    return not torch.is_grad_enabled() or not any(one.requires_grad for one in tensors)
