"""The loss: next-token cross-entropy on the counted tokens, and what else one forward pass can say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from geonb.data.collate import collate
from geonb.data.example import Example
from geonb.train.counted_logits import counted_logits


@dataclass(frozen=True, slots=True)
class Losses:
    """Per-example sums over counted tokens: negative log-likelihood (nats), entropy (nats) and the count."""

    nll: Tensor
    entropy: Tensor
    count: Tensor


def to_tensors(
    examples: Sequence[Example], indices: Sequence[int], pad: int, device: torch.device
) -> dict[str, Tensor]:
    """One padded batch on `device`."""
    batch = collate(examples, indices, pad)
    return {name: torch.as_tensor(array, dtype=torch.long, device=device) for name, array in batch.items()}


def forward_losses(model: nn.Module, batch: dict[str, Tensor], *, with_entropy: bool = False) -> Losses:
    """Cross-entropy of each example's counted tokens in float32.

    `batch`: input_ids, attention_mask and labels, each (examples, tokens); a label of -100 is not counted. Labels stand
    beside the token they name; the shift by one happens here.
    """
    found = counted_logits(model, batch)
    nll = functional.cross_entropy(found.logits, found.labels, reduction="none")
    entropy = torch.zeros_like(nll)
    if with_entropy:
        logarithm = functional.log_softmax(found.logits, dim=-1)
        entropy = -(logarithm.exp() * logarithm).sum(-1)
    nll, entropy = found.on_grid(nll), found.on_grid(entropy)
    return Losses(nll=nll.sum(1), entropy=entropy.sum(1), count=found.counted.sum(1))


def chunks(indices: Sequence[int] | np.ndarray, size: int) -> Iterator[list[int]]:
    """`indices` in order, `size` at a time."""
    for start in range(0, len(indices), size):
        yield [int(index) for index in indices[start : start + size]]


def by_length(examples: Sequence[Example], indices: Sequence[int] | np.ndarray, size: int) -> Iterator[list[int]]:
    """`indices`, `size` at a time, those of like length together: a batch is padded to its longest.

    >>> long, short = (Example(tuple(range(n)), (False,) * n, "", "", None, ()) for n in (9, 2))
    >>> list(by_length([long, short, long, short], range(4), 2))
    [[1, 3], [0, 2]]
    """
    return chunks(sorted(map(int, indices), key=lambda index: len(examples[index].input_ids)), size)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Losses of a whole set: token-weighted mean, and one mean per example for paired statistics."""

    loss: float
    entropy: float
    per_example: np.ndarray  # (examples,), nats per counted token
    n_tokens: int


@torch.no_grad()
def evaluate(
    model: nn.Module, examples: Sequence[Example], *, pad: int, device: torch.device, batch_size: int = 16
) -> Evaluation:
    """Mean loss and next-token entropy of `model` on `examples` (nats per counted token), deterministic."""
    totals, entropies = np.zeros(len(examples)), np.zeros(len(examples))
    counts = np.zeros(len(examples), dtype=np.int64)
    for rows in by_length(examples, np.arange(len(examples)), batch_size):
        losses = forward_losses(model, to_tensors(examples, rows, pad, device), with_entropy=True)
        totals[rows] = losses.nll.cpu().double().numpy()
        entropies[rows] = losses.entropy.cpu().double().numpy()
        counts[rows] = losses.count.cpu().numpy()
    n_tokens = int(counts.sum())
    return Evaluation(
        loss=float(totals.sum() / n_tokens),
        entropy=float(entropies.sum() / n_tokens),
        per_example=totals / np.maximum(counts, 1),
        n_tokens=n_tokens,
    )
