"""Hooks that read gradients of dW, and the size of every block's contribution, from a frozen model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

# a residual gain is a median over examples: eight short ones settle its first digits (convention)
_GAIN_EXAMPLES, _GAIN_TOKENS = 8, 256


class Observer:
    """While open, collects dL/dB = (dL/dy)^T (x A^T), (out, r), of every named module, and sigma_max of blocks.

    `projections` maps a module's path to A, (r, in), or to None for the whole gradient of dW, (out, in). The model's
    weights stay frozen; what flows is the gradient of the activations, which starts at the embedding's output.
    """

    def __init__(self, model: nn.Module, projections: Mapping[str, Tensor | None], blocks: Iterable[str]) -> None:
        self.model = model
        self.projections = projections
        self.blocks = tuple(blocks)
        self.gradients: dict[str, Tensor] = {}
        self._gains: dict[str, list[float]] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        modules = dict(self.model.named_modules())
        model: Any = self.model
        embedding = model.get_input_embeddings()
        self._handles.append(embedding.register_forward_hook(lambda module, args, out: out.requires_grad_(True)))
        for path, projection in self.projections.items():
            self._handles.append(modules[path].register_forward_hook(self._reader(path, projection)))
        for path in self.blocks:
            hook = self._gain_reader(path)
            self._handles.append(modules[path].register_forward_hook(hook, with_kwargs=True))
        return self

    def __exit__(self, *details: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _reader(self, path: str, projection: Tensor | None):
        def forward(module: nn.Module, args: tuple, output: Tensor) -> None:
            hidden = args[0].detach().flatten(0, -2).float()
            read = hidden if projection is None else hidden @ projection.mT

            def backward(gradient: Tensor) -> None:
                found = gradient.detach().flatten(0, -2).float().mT @ read
                # a module that is called twice contributes twice
                self.gradients[path] = self.gradients[path] + found if path in self.gradients else found

            if output.requires_grad:
                output.register_hook(backward)

        return forward

    def _gain_reader(self, path: str):
        def forward(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            found = self._gains.setdefault(path, [])
            if len(found) >= _GAIN_EXAMPLES:
                return
            before = args[0] if args else kwargs.get("hidden_states")
            after = output[0] if isinstance(output, tuple) else output
            if before is None or before.shape != after.shape:
                return
            before = before.detach().flatten(0, -2)[:_GAIN_TOKENS].float()
            change = after.detach().flatten(0, -2)[:_GAIN_TOKENS].float() - before
            below = _largest(change)
            if below > 0:
                found.append(_largest(before) / below)

        return forward

    def residual_gains(self) -> dict[str, float]:
        """sigma_max(x) / sigma_max(f(x)) of every block, the median over the examples that were read."""
        return {path: float(np.median(values)) for path, values in self._gains.items() if values}


def _largest(matrix: Tensor) -> float:
    """sigma_max of (tokens, hidden) from the Gram matrix of its smaller side in float64."""
    exact = matrix.cpu().double()
    gram = exact @ exact.mT if exact.shape[0] <= exact.shape[1] else exact.mT @ exact
    return float(torch.linalg.eigvalsh(gram)[-1].clamp_min(0).sqrt())


def example_passes(
    runtime: Any, observer: Observer, examples: Sequence[Any], rows: Sequence[int], tokens: float
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """One forward and backward pass for each row; yields its position and the gradients by module path.

    The loss is the sum over the example's counted tokens over `tokens`, the mean count: the mean of these gradients is
    then the gradient of a batch's mean loss over tokens.
    """
    for index, row in enumerate(rows):
        example = examples[row]
        ids = torch.tensor([example.input_ids], dtype=torch.long, device=runtime.device)
        counted = torch.tensor(example.loss_mask, dtype=torch.bool, device=runtime.device)[1:]
        observer.gradients.clear()
        with torch.enable_grad():
            logits = runtime.model(input_ids=ids, use_cache=False).logits[0, :-1]
            loss = functional.cross_entropy(logits[counted].float(), ids[0, 1:][counted], reduction="sum") / tokens
            if loss.requires_grad:
                loss.backward()
        yield index, dict(observer.gradients)
    observer.gradients.clear()


def block_paths(targets: Iterable[Any]) -> tuple[str, ...]:
    """The paths of the blocks that hold the targets: each module's path up to and with its layer number.

    >>> from types import SimpleNamespace as Target
    >>> block_paths([Target(module="model.layers.3.self_attn.q_proj", layer=3)])
    ('model.layers.3',)
    """
    found: dict[str, None] = {}
    for target in targets:
        parts = target.module.split(".")
        if target.layer is not None and str(target.layer) in parts:
            found[".".join(parts[: parts.index(str(target.layer)) + 1])] = None
    return tuple(found)
