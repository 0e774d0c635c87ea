"""Examples to one padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from geonb.data.example import Example

IGNORED = -100


def collate(examples: Sequence[Example], indices: Sequence[int], pad_id: int) -> dict[str, np.ndarray]:
    """Right-padded int64 arrays (examples, tokens): input_ids, attention_mask, and labels (-100 where not counted)."""
    rows = [examples[int(index)] for index in indices]
    length = max(len(row.input_ids) for row in rows)
    input_ids = np.full((len(rows), length), pad_id, dtype=np.int64)
    labels = np.full((len(rows), length), IGNORED, dtype=np.int64)
    attention_mask = np.zeros((len(rows), length), dtype=np.int64)
    for position, row in enumerate(rows):
        size = len(row.input_ids)
        input_ids[position, :size] = row.input_ids
        attention_mask[position, :size] = 1
        labels[position, :size] = np.where(row.loss_mask, row.input_ids, IGNORED)
    return {"input_ids": input_ids, "labels": labels, "attention_mask": attention_mask}


def pad_token(tokenizer: Any) -> int:
    """What stands behind the end of a shorter example: the tokenizer's padding, else its end token, else 0."""
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)
