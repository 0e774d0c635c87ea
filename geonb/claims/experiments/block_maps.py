"""The linear maps inside a model's blocks: read as (out, in), changed for a while, trained on a few batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geonb.data.batches import batch_at
from geonb.data.collate import pad_token
from geonb.data.dataset import tokenise
from geonb.data.example import Example
from geonb.data.records import read_records
from geonb.errors import InputError
from geonb.models.matrix_ref import MatrixRef
from geonb.models.runtime import TorchRuntime
from geonb.train.objective import evaluate, forward_losses, to_tensors


@dataclass(frozen=True, slots=True)
class BlockMap:
    """One linear map of a loaded model, and its reference in the checkpoint."""

    ref: MatrixRef
    parameter: nn.Parameter

    @property
    def weight(self) -> Tensor:
        """The weight as a view of shape (out, in), whatever the module stores."""
        held = self.parameter.detach()
        return held.mT if self.ref.transposed else held

    def oriented(self, change: Tensor) -> Tensor:
        """A change of shape (out, in) in the orientation of the parameter."""
        change = change.to(device=self.parameter.device, dtype=self.parameter.dtype)
        return change.mT if self.ref.transposed else change


def block_maps(runtime: TorchRuntime) -> dict[str, BlockMap]:
    """Every plain linear map inside the blocks by its module's path; experts of a 3-D tensor are left out.

    Raises `InputError` where there is none.

    >>> block_maps(runtime)["model.layers.0.self_attn.q_proj"].weight.shape    # doctest: +SKIP
    torch.Size([256, 256])
    """
    modules = dict(runtime.model.named_modules())
    found = {}
    for ref in runtime.checkpoint.refs:
        parameter = getattr(modules.get(ref.module), "weight", None)
        if ref.targetable and ref.expert is None and isinstance(parameter, nn.Parameter):
            stored = tuple(parameter.mT.shape) if ref.transposed else tuple(parameter.shape)
            if stored == ref.shape:
                found[ref.module] = BlockMap(ref, parameter)
    if not found:
        raise InputError(
            f"{runtime.checkpoint.source} has no plain linear map inside its blocks; needed is a dense model."
        )
    return found


@contextmanager
def changed(maps: Mapping[str, BlockMap], changes: Mapping[str, Tensor]) -> Iterator[None]:
    """Add each change, (out, in), to its map; afterwards every weight is what it was, to the bit."""
    kept = {name: maps[name].parameter.detach().clone() for name in changes}
    try:
        with torch.no_grad():
            for name, change in changes.items():
                maps[name].parameter.add_(maps[name].oriented(change))
        yield
    finally:
        with torch.no_grad():
            for name, before in kept.items():
                maps[name].parameter.copy_(before)


def shipped_examples(
    runtime: TorchRuntime, name: str, *, evaluation: bool = False, limit: int | None = None, tokens: int | None = None
) -> list[Example]:
    """The first `limit` examples of a shipped data set ("kjv", "chat", "retention"), cut to `tokens`."""
    from geonb.assets import dataset_path

    records = read_records(dataset_path(name, evaluation=evaluation))[:limit]
    data = tokenise(records, runtime.tokenizer, context_length=runtime.checkpoint.context_length, max_length=tokens)
    return data.examples


def text_windows(runtime: TorchRuntime, name: str, tokens: int, *, evaluation: bool = False) -> np.ndarray:
    """A shipped text data set as rows of `tokens` token ids each, (n, tokens), one row a text that is long enough."""
    rows = [
        example.input_ids[:tokens]
        for example in shipped_examples(runtime, name, evaluation=evaluation)
        if len(example.input_ids) >= tokens
    ]
    if not rows:
        raise InputError(f"no text of {name!r} has {tokens} tokens: ask for fewer.")
    return np.array(rows, dtype=np.int64)


def train_leaves(
    runtime: TorchRuntime,
    leaves: Sequence[nn.Parameter],
    examples: Sequence[Example],
    *,
    steps: int,
    rate: float,
    batch: int = 8,
    seed: int = 0,
    after: Callable[[int], None] | None = None,
) -> list[float]:
    """AdamW (no weight decay, constant rate) on `leaves`; the loss of every step, nats a counted token.

    `after(step)` is called behind each step. The leaves need gradients only while this runs.
    """
    model, pad = runtime.model, pad_token(runtime.tokenizer)
    optimiser = torch.optim.AdamW(list(leaves), lr=rate, weight_decay=0.0)
    losses = []
    for leaf in leaves:
        leaf.requires_grad_(True)
    try:
        for step in range(steps):
            rows = batch_at(step, n_train=len(examples), batch_size=batch, seed=seed)
            found = forward_losses(model, to_tensors(examples, rows.tolist(), pad, runtime.device))
            loss = found.nll.sum() / found.count.sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
            if after is not None:
                after(step)
    finally:
        for leaf in leaves:
            leaf.requires_grad_(False)
            leaf.grad = None
    return losses


def loss_of(runtime: TorchRuntime, examples: Sequence[Example]) -> float:
    """The mean loss of `examples`, nats a counted token."""
    return losses_of(runtime, examples).loss


def losses_of(runtime: TorchRuntime, examples: Sequence[Example]) -> Any:
    """`evaluate` with the runtime's own padding and device: token-weighted mean and one mean a text."""
    return evaluate(runtime.model, examples, pad=pad_token(runtime.tokenizer), device=runtime.device, batch_size=32)
