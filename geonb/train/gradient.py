"""The gradient of one batch, micro-batch by micro-batch; where memory runs out, with smaller ones."""

from __future__ import annotations

import gc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from geonb.errors import GeonbError
from geonb.train.noise import gradient_noise
from geonb.train.objective import chunks, forward_losses, to_tensors

# what the allocators of the CPU and of Metal say in a plain RuntimeError; CUDA has a class of its own
_SAYS_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "failed to allocate")


@dataclass(frozen=True, slots=True)
class BatchGradient:
    """What one pass over a batch leaves: the gradients stand in the leaves."""

    loss: float  # nats per counted token
    tokens: int
    noise: Any  # `geonb.train.noise.NoiseScale`; unresolved where it was not measured
    micro: int  # examples that a forward pass may hold; smaller than asked where memory ran out


def batch_gradient(
    equipment: Any,
    leaves: Mapping[str, torch.nn.Parameter],
    rows: Sequence[int],
    *,
    micro: int,
    measure: bool,
    entropy_penalty: Any = None,
) -> BatchGradient:
    """The mean loss over the batch's counted tokens and its gradient, accumulated over micro-batches of `micro` examples.

    With `measure` the batch is cut into at least four parts, whose spread is the noise scale (MATH.md section 5). Where
    memory runs out the micro-batch is halved and the batch starts anew. Raises `GeonbError` when one example alone does
    not fit.
    """
    while True:
        try:
            return _accumulate(equipment, leaves, rows, micro, measure, entropy_penalty)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:120]
        # outside the except block, so that the failed pass's tensors are no longer held by its traceback
        for leaf in leaves.values():
            leaf.grad = None
        release_memory()
        if micro <= 1:
            raise GeonbError(
                f"one example alone does not fit into memory ({reason}): give a smaller --seq-length or another device."
            )
        micro = min(micro, len(rows)) // 2


def _accumulate(equipment, leaves, rows, micro: int, measure: bool, entropy_penalty) -> BatchGradient:
    part_size = min(micro, len(rows))
    if measure and len(rows) >= 4:
        # four equal parts of the same batch: their spread is the noise scale, their sum the same gradient
        part_size = min(part_size, math.ceil(len(rows) / 4))
    for leaf in leaves.values():
        leaf.grad = None
    parts: list[dict[str, Tensor]] = []
    before: dict[str, Tensor | None] = {}
    total = sum(equipment.counted_tokens(row) for row in rows)
    nll = 0.0
    for part in chunks(rows, part_size):
        losses = forward_losses(
            equipment.model,
            to_tensors(equipment.training, part, equipment.pad, equipment.device),
            with_entropy=entropy_penalty is not None,
        )
        objective = losses.nll.sum() / total
        if entropy_penalty is not None:
            objective = objective + entropy_penalty(losses, total)
        if measure:
            before = {name: (leaf.grad.clone() if leaf.grad is not None else None) for name, leaf in leaves.items()}
        objective.backward()
        if measure and len(part) == part_size:
            parts.append(_difference(leaves, before))
        nll += float(losses.nll.detach().sum())
    return BatchGradient(loss=nll / total, tokens=int(total), noise=gradient_noise(parts, part_size), micro=micro)


def _difference(now: Mapping[str, torch.nn.Parameter], before: dict[str, Tensor | None]) -> dict[str, Tensor]:
    found = {}
    for name, leaf in now.items():
        gradient = leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)
        earlier = before[name]
        found[name] = gradient.clone() if earlier is None else gradient - earlier
    return found


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator gave up: CUDA's own class, or what the CPU's and Metal's say.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."))
    True
    >>> is_out_of_memory(RuntimeError("shapes do not match"))
    False
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in _SAYS_OUT_OF_MEMORY)


def release_memory() -> None:
    """Give back what a failed pass left behind."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
