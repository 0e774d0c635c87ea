"""What a model is worth on a domain: loss in nats and bits, and how many whole answers it gets right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from geonb.data.example import Example
from geonb.train.counted_logits import counted_logits
from geonb.train.objective import by_length, to_tensors


@dataclass(frozen=True, slots=True)
class Score:
    """Losses of a set: nats per counted token, bits per byte of the counted text, and the share of exact answers.

    `exact` is the share of examples in which every counted token is the model's first choice given the ones before it:
    exactly those that greedy decoding would reproduce to the last token.
    """

    loss: float
    bits_per_byte: float
    exact: float


@torch.no_grad()
def score(model: Any, examples: Sequence[Example], *, pad: int, tokenizer: Any, batch_size: int = 32) -> Score:
    """Score `model` on `examples`, in float32 and in a fixed order."""
    device = next(model.parameters()).device
    nats, tokens, right = 0.0, 0, 0
    for rows in by_length(examples, range(len(examples)), batch_size):
        batch = to_tensors(examples, rows, pad, device)
        found = counted_logits(model, batch)
        nats += float(functional.cross_entropy(found.logits, found.labels, reduction="none").double().sum())
        tokens += len(found.labels)
        hits = found.on_grid((found.logits.argmax(-1) == found.labels).long())
        right += int((hits.bool() | ~found.counted).all(1).sum())
    return Score(
        loss=nats / tokens,
        bits_per_byte=nats / math.log(2) / counted_bytes(examples, tokenizer),
        exact=right / len(examples),
    )


def counted_bytes(examples: Sequence[Example], tokenizer: Any) -> int:
    """UTF-8 bytes of the tokens that the loss counts; a special token counts as one byte, so that ends are not free."""
    special = set(tokenizer.all_special_ids)
    total = 0
    for example in examples:
        kept = [token for token, counts in zip(example.input_ids, example.loss_mask, strict=True) if counts]
        plain = [token for token in kept if token not in special]
        total += len(tokenizer.decode(plain).encode("utf-8")) + len(kept) - len(plain)
    return total
