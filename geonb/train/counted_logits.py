"""Logits of the counted tokens alone: the output head is left out where no token is judged.

Of a chat most tokens are the question's, and of a padded batch some are nobody's. The head of a model with many words is
a large part of its work and its logits the largest tensor of a step: (examples, tokens, words), where (counted, words)
is all that the loss reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class CountedLogits:
    """What a model says of each counted token, in the order of a batch read row by row."""

    logits: Tensor  # (counted, words), float32
    labels: Tensor  # (counted,): the token that is there
    counted: Tensor  # (examples, tokens - 1), bool: where in the batch they stand, shifted as the logits are

    def on_grid(self, values: Tensor) -> Tensor:
        """`values`, one a counted token, at their places in the batch; zero elsewhere. (examples, tokens - 1)"""
        return torch.zeros(self.counted.shape, dtype=values.dtype, device=values.device).masked_scatter(
            self.counted, values
        )


def counted_logits(model: nn.Module, batch: dict[str, Tensor]) -> CountedLogits:
    """The logits before each counted token of `batch`: input_ids, attention_mask and labels, each (examples, tokens).

    A label of -100 is not counted, and none of an example's first token is. Where the model names its output head
    (`get_output_embeddings`), the head is given only the hidden states it is to judge, and everything that the model does
    to its logits afterwards is done to these; of any other model all logits are computed and the counted ones are taken.
    """
    labels = batch["labels"][:, 1:]
    counted = labels != -100
    examples, tokens = batch["input_ids"].shape
    # no token follows the last one
    places = nn.functional.pad(counted, (0, 1)).flatten().nonzero().squeeze(1)
    calls: list[bool] = []

    def choose(module: nn.Module, given: Sequence[Any]) -> tuple[Any, ...] | None:
        calls.append(is_whole := len(given) > 0 and given[0].shape[:-1] == (examples, tokens))
        return (given[0].flatten(0, 1)[places].unsqueeze(0), *given[1:]) if is_whole else None

    head = _head(model)
    hook = None if head is None else head.register_forward_pre_hook(choose)
    try:
        logits = _logits(model, batch)
    finally:
        if hook is not None:
            hook.remove()
    if calls == [True] and logits.shape[:2] == (1, len(places)):
        return CountedLogits(logits[0].float(), labels[counted], counted)
    if any(calls):  # a head that is called in another way
        logits = _logits(model, batch)
    return CountedLogits(logits[:, :-1][counted].float(), labels[counted], counted)


def _head(model: nn.Module) -> nn.Module | None:
    named = getattr(model, "get_output_embeddings", None)
    return None if named is None else named()


def _logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
