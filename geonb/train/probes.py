"""Greedy continuations of fixed prompts: repetition and end-of-text rates, for drift and degeneration checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# 4-grams of tokens: the length from which ordinary text of this vocabulary size hardly repeats itself (convention)
GRAM = 4


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Per prompt: the fraction of repeated 4-grams in the continuation, and whether it ended by itself."""

    repetition: np.ndarray
    ended: np.ndarray


def repetition_rate(tokens: Sequence[int], *, gram: int = GRAM) -> float:
    """1 - unique/total n-grams of a continuation; 0 when it is shorter than one n-gram.

    >>> repetition_rate([1, 2, 3, 4, 5])
    0.0
    >>> repetition_rate([7] * 13)
    0.9
    """
    total = len(tokens) - gram + 1
    if total <= 0:
        return 0.0
    unique = {tuple(tokens[start : start + gram]) for start in range(total)}
    return 1.0 - len(unique) / total


def probe(runtime, prompts: Sequence[Sequence[int]], *, new_tokens: int = 48) -> ProbeResult:
    """Continue every prompt greedily with the model as it stands and measure repetition and endings."""
    end = runtime.tokenizer.eos_token_id
    continuations = runtime.generate([list(prompt) for prompt in prompts], max_new_tokens=new_tokens)
    return ProbeResult(
        repetition=np.array([repetition_rate([token for token in tokens if token != end]) for tokens in continuations]),
        ended=np.array([end in tokens for tokens in continuations]),
    )
