"""Which operations come first and which are kept for the base: fixed here once, whatever the seed and the arm."""

from __future__ import annotations

import numpy as np

from geonb.coordinates.continual.operation import Operation
from geonb.coordinates.continual.operations import by_name, operations, sequence

KEPT = 40  # operations for pre-training

# learned by a model of this size: see `within_reach`
_LEARNED = (
    "transcript of the coding strand",
    "complement strand",
    "or",
    "kleene negation",
    "nor",
    "implication",
    "set difference",
    "smallest prime factor",
    "and",
    "two of three",
    "extinction at 280 nanometres",
    "integer square root",
)


def kept_for_base() -> tuple[Operation, ...]:
    """The 40 operations that the base is trained on, domains in proportion: the last of the order of seed 100."""
    return sequence(len(operations()), 100)[-KEPT:]


def within_reach() -> tuple[Operation, ...]:
    """Operations that the small character model can learn, most of them place by place.

    Chosen once by training all base weights (no arm of the comparison but plain fine-tuning) 250 steps on each of the 144 others
    alone, from a base of 2,500 steps, seed 100, which is not reported: held-out exact answers at least 0.15 above the most
    frequent answer, of 40.
    """
    return tuple(map(by_name, _LEARNED))


def task_order(count: int, seed: int) -> tuple[Operation, ...]:
    """`count` operations in a seeded order: those within reach first, then the rest, those kept for the base last of all.

    Up to 144 none of them is one that the base has seen; 184 include them. Raises `InputError` for fewer than 2 or more than 184.
    """
    every = sequence(len(operations()), seed)
    sequence(count, seed)
    first, last = set(_LEARNED), {one.name for one in kept_for_base()}
    reachable = [one for one in every if one.name in first]
    np.random.default_rng((seed, 17)).shuffle(reachable)  # type: ignore[arg-type]
    rest = [one for one in every if one.name not in first | last]
    seen = [one for one in every if one.name in last]
    return (*reachable, *rest, *seen)[:count]
