"""The split into training and evaluation when no evaluation file is given (MATH.md section 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geonb.data.example import Example
from geonb.errors import InputError

LEAST = 32  # below this a bootstrap over examples says little
MOST_SHARE = 0.20
# what a comparison should resolve, in nats per token: a change of 1 % of perplexity (convention)
MINIMUM_EFFECT = 0.01
# spread of the paired per-example loss difference against the base model, in nats: 0.557 after 150 steps on the
# embedded King James data
_PAIRED_SPREAD = 0.55
# what an evaluation may cost: this many forward passes are about a quarter of the training between two evaluations
AFFORDABLE = 256


@dataclass(frozen=True, slots=True)
class Split:
    """Row numbers of the two parts, how they came about, and what the evaluation can resolve."""

    train: tuple[int, ...]
    eval: tuple[int, ...]
    method: str
    resolves: float  # expected half-width (95 %) of a paired loss difference, nats per token
    because: str


def split(examples: Sequence[Example], *, seed: int, eval_examples: Sequence[Example] | None = None) -> Split:
    """Choose the evaluation examples by a seeded order of their content digests; equal contents stay on one side.

    At least 32 and at most 20 % of the examples; between these, as many as bring the expected half-width of a paired
    loss difference to 0.01 nats, and no more than 256, which is what an evaluation may cost. Raises `InputError` with
    fewer than 160 examples, where 32 would exceed 20 %.
    """
    total = len(examples)
    if eval_examples is not None:
        if len(eval_examples) < 2:
            raise InputError(
                f"the evaluation file has {len(eval_examples)} examples; it needs at least two: give more."
            )
        return Split(
            train=tuple(range(total)),
            eval=(),
            method="given evaluation file",
            resolves=resolution(len(eval_examples)),
            because=f"{len(eval_examples)} given examples resolve a paired difference to about "
            f"{resolution(len(eval_examples)):.3f} nats",
        )
    most = math.floor(MOST_SHARE * total)
    if most < LEAST:
        raise InputError(
            f"{total} examples were given; a split needs at least {math.ceil(LEAST / MOST_SHARE)} ({LEAST} to evaluate on, "
            "at most a fifth of the data): give more, or a file to evaluate on with --eval-data."
        )
    wanted = math.ceil((1.96 * _PAIRED_SPREAD / MINIMUM_EFFECT) ** 2)
    count = max(LEAST, min(most, wanted, AFFORDABLE))
    contents = sorted({example.digest for example in examples})
    order = np.random.default_rng(seed).permutation(len(contents))
    held: set[str] = set()
    sizes: dict[str, int] = {}
    for example in examples:
        sizes[example.digest] = sizes.get(example.digest, 0) + 1
    taken = 0
    for position in order:
        if taken >= count:
            break
        digest = contents[int(position)]
        if taken + sizes[digest] <= most:
            held.add(digest)
            taken += sizes[digest]
    evaluation = tuple(row for row, example in enumerate(examples) if example.digest in held)
    training = tuple(row for row, example in enumerate(examples) if example.digest not in held)
    if not evaluation or not training:
        raise InputError("the examples are too much alike to be split: give a file to evaluate on with --eval-data.")
    half = resolution(len(evaluation))
    reasons = {most: "the whole allowance of 20 %", AFFORDABLE: "what an evaluation may cost"}
    reason = reasons.get(count, f"enough for an effect of {MINIMUM_EFFECT} nats")
    return Split(
        train=training,
        eval=evaluation,
        method="by content digest, seeded",
        resolves=half,
        because=f"{len(evaluation)} of {total} examples ({reason}); a paired difference is resolved to about {half:.3f} nats",
    )


def resolution(n: int) -> float:
    """Expected 95 % half-width, in nats, of the mean paired loss difference over `n` examples."""
    return 1.96 * _PAIRED_SPREAD / math.sqrt(max(1, n))
