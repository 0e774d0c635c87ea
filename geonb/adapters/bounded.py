"""A bounded adapter on one linear map, and the surgery that puts adapters into a model and takes them out again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from geonb.adapters.dense import dense_linear, is_cheaper
from geonb.adapters.factors import Factors
from geonb.errors import InputError


class BoundedAdapter(nn.Module):
    """A linear map with a low-rank change: y = W x + b + B (A x), the change computed in float32.

    Without gradients the order of operations is PEFT's (base first, then the two thin products, then the sum, then the
    cast back), so that a saved adapter gives the same logits to the bit when PEFT loads it in float32. A training pass
    goes through W + BA where the rank makes that cheaper (`geonb.adapters.dense`).
    """

    base: Any  # the wrapped linear module, whatever its class

    def __init__(self, base: nn.Module, factors: Factors) -> None:
        super().__init__()
        self.base = base
        self.factors = factors
        self.enabled = True

    def forward(self, hidden: Tensor, *args, **kwargs) -> Tensor:
        if not self.enabled:
            return self.base(hidden, *args, **kwargs)
        left, right = self.factors()
        if not (args or kwargs) and self._trains_dense(hidden, left, right):
            weight = self.base.weight.mT if _is_transposed(self.base) else self.base.weight
            return dense_linear(hidden, weight, self.base.bias, left, right)
        result = self.base(hidden, *args, **kwargs)
        change = functional.linear(functional.linear(hidden.to(right.dtype), right), left)
        return (result + change).to(result.dtype)

    def _trains_dense(self, hidden: Tensor, left: Tensor, right: Tensor) -> bool:
        """Whether this call is a training pass through a plain float32 map that W + BA makes cheaper."""
        if not (torch.is_grad_enabled() and left.requires_grad) or torch.is_autocast_enabled(hidden.device.type):
            return False
        # a bfloat16 W would round the change away; whoever watches or wraps the base wants it called
        plain = type(self.base) is nn.Linear or _is_transposed(self.base)
        if not plain or self.base._forward_hooks or self.base._forward_pre_hooks:
            return False
        if not hidden.dtype == self.base.weight.dtype == left.dtype == torch.float32:
            return False
        tokens = hidden.numel() // hidden.shape[-1]
        return is_cheaper(tokens, left.shape[0], right.shape[1], left.shape[1])

    def __getattr__(self, name: str):
        # a few architectures ask a projection for its weight or dtype; they mean the base's
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in {"weight", "bias", "in_features", "out_features", "nf", "nx"}:
                return getattr(super().__getattr__("base"), name)
            raise


def inject(model: nn.Module, factors: Mapping[str, Factors]) -> dict[str, BoundedAdapter]:
    """Replace each named linear module by a `BoundedAdapter` around it; nothing else of the model changes.

    `factors` maps a module's path ("model.layers.0.self_attn.q_proj") to its factors. Raises `InputError` when a path
    names no module of the model, before any replacement is made.
    """
    modules = dict(model.named_modules())
    for path in factors:
        if path not in modules:
            raise InputError(
                f"the plan targets {path!r}, which this model does not have: plan again for this checkpoint."
            )
    adapters = {}
    for path, factor in factors.items():
        base = modules[path]
        adapter = BoundedAdapter(base, factor)
        parent, _, leaf = path.rpartition(".")
        setattr(modules[parent], leaf, adapter)
        adapters[path] = adapter
    return adapters


def remove(model: nn.Module, adapters: Mapping[str, BoundedAdapter]) -> None:
    """Put the base modules back where `inject` found them."""
    modules = dict(model.named_modules())
    for path, adapter in adapters.items():
        parent, _, leaf = path.rpartition(".")
        setattr(modules[parent], leaf, adapter.base)


@contextmanager
def disabled(adapters: Mapping[str, Any]) -> Iterator[None]:
    """Run the base model: inside the block every adapter passes its base's output through untouched."""
    before = {path: adapter.enabled for path, adapter in adapters.items()}
    for adapter in adapters.values():
        adapter.enabled = False
    try:
        yield
    finally:
        for path, adapter in adapters.items():
            adapter.enabled = before[path]


@torch.no_grad()
def weight_change(adapter: BoundedAdapter) -> Tensor:
    """dW = B A, (out, in), float64."""
    left, right = adapter.factors()
    return left.double() @ right.double()


@contextmanager
def merged(adapters: Mapping[str, Any]) -> Iterator[None]:
    """Inside the block W + BA stands in the base weights and the adapters are off; the exact bytes of W come back after."""
    saved = {path: adapter.base.weight.detach().clone() for path, adapter in adapters.items()}
    try:
        with torch.no_grad():
            for adapter in adapters.values():
                change = weight_change(adapter)
                weight = adapter.base.weight
                # GPT-2's Conv1D stores its weight as (in, out)
                change = change if change.shape == weight.shape and not _is_transposed(adapter.base) else change.mT
                weight.copy_((weight.double() + change).to(weight.dtype))
        with disabled(adapters):
            yield
    finally:
        with torch.no_grad():
            for path, adapter in adapters.items():
                adapter.base.weight.copy_(saved[path])


def _is_transposed(module: nn.Module) -> bool:
    return type(module).__name__ == "Conv1D"
