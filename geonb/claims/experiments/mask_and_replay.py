"""The answer mask taken off, base text mixed in, and how many greedy answers run into a loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from geonb.claims.experiments.short_training import Workshop
from geonb.data.example import Example
from geonb.errors import InputError
from geonb.train.probes import repetition_rate

# an answer in which more than a third of the 4-grams repeat reads as a loop: the limit of geonb's own gate
LOOP = 1 / 3


def unmasked(examples: Sequence[Example]) -> list[Example]:
    """The same examples with the loss counted on every token but the first, which nothing predicts."""
    return [
        dataclasses.replace(one, loss_mask=(False, *[True] * (len(one.input_ids) - 1)))
        for one in examples
    ]  # fmt: skip


def mixed(task: Sequence[Example], base: Sequence[Example], *, every: int, count: int, seed: int) -> list[Example]:
    """`count` examples of the task, each `every`-th exchanged for one of `base` (0: none), in an order that `seed` draws.

    The task's examples that stay are the same and in the same places for every `every`. Raises `InputError` for an empty side.
    """
    if not task or not base or every < 0 or count < 1:
        raise InputError(
            f"{len(task)} examples of the task and {len(base)} of base text were given, {count} wanted, one in {every} of "
            "them base text; allowed are at least one on each side and whole numbers from 0 on."
        )
    rng = np.random.default_rng([seed, 5])
    chosen = [task[int(row)] for row in rng.permutation(len(task))[:count]]
    order = rng.permutation(len(base))
    if every:
        for place in range(0, len(chosen), every):
            chosen[place] = base[int(order[place // every % len(base)])]
    return chosen


def degenerate_share(workshop: Workshop, examples: Sequence[Example], *, new_tokens: int = 40) -> float:
    """The share of greedy answers to the examples' prompts in which more than a third of the 4-grams repeat."""
    answers = workshop.runtime.generate([one.prompt_ids for one in examples], max_new_tokens=new_tokens)
    end = workshop.runtime.tokenizer.eos_token_id
    return float(np.mean([repetition_rate([token for token in answer if token != end]) > LOOP for answer in answers]))
