"""What a round's samples and evaluations measure: pass@k, accuracies, and who is better than whom."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.geometry.statistics import bootstrap_interval, wilson
from geonb.workbench.star.checking import given_keys, reference_key

_SHUFFLES = 200


def pass_at(k: int, n: int, correct: int) -> float:
    """Probability that at least one of `k` samples is right, from `correct` right ones of `n`, without bias.

    1 - C(n - c, k) / C(n, k), the share of the k-subsets of the n samples that hold a right one (Chen et al. 2021,
    "Evaluating Large Language Models Trained on Code", equation 1). Raises `InputError` unless 1 <= k <= n and
    0 <= correct <= n.

    >>> pass_at(2, 4, 1)
    0.5
    """
    if not 1 <= k <= n or not 0 <= correct <= n:
        raise InputError(
            f"pass@{k} was asked of {correct} right ones of {n} samples; allowed are k from 1 to n and 0 to n right ones."
        )
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def pass_measured(counts: Sequence[int], n: int, k: int, *, seed: int) -> Measurement:
    """Mean pass@k over problems with `counts` right ones of `n` samples each, bootstrap interval over the problems.

    Where every problem has none or only right ones there is nothing to resample, and the interval is Wilson's.
    """
    values = [pass_at(k, n, count) for count in counts]
    interval, how = None, "no interval"
    if set(values) <= {0.0} or set(values) <= {1.0}:
        interval, how = wilson(round(sum(values)), len(values)), "Wilson interval over problems"
    elif len(values) > 1:
        interval = bootstrap_interval(values, rng=np.random.default_rng(seed))
        how = f"bootstrap over problems, seed {seed}"
    return Measurement(
        value=float(np.mean(values)),
        interval=interval,
        n=len(values),
        null=None,
        unit="of the problems",
        operator=f"unbiased pass@{k} from {n} samples a problem, {how}",
    )


def right_by_chance(
    given: Sequence[Sequence[str | None]],
    answers: Sequence[str],
    groups: Sequence[str | None],
    *,
    seed: Sequence[int],
) -> Measurement:
    """How many solutions would be right if the model did not know which problem it answers: the null of `correct`.

    `given` holds each problem's drawn answers. The problems' own answers are shuffled between the problems of a group, so
    that the model's habits stay and only the tie between question and answer is cut. Value and interval are mean and
    middle 95 % of 200 shuffles.
    """
    counts = [Counter(key for one in drawn if one is not None for key in given_keys(one)) for drawn in given]
    # None, an answer that nothing can be, is no key of any count
    keys: list[Any] = [reference_key(answer) for answer in answers]
    members: dict[str | None, list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        members[group].append(place)
    rng = np.random.default_rng(list(seed))
    totals = np.zeros(_SHUFFLES)
    for places in members.values():
        for number in range(_SHUFFLES):
            shuffled = rng.permutation(places)
            totals[number] += sum(
                counts[place][keys[int(other)]] for place, other in zip(places, shuffled, strict=True)
            )
    low, high = np.quantile(totals, [0.025, 0.975])
    return Measurement(
        value=float(totals.mean()),
        interval=(float(low), float(high)),
        n=len(answers),
        null=None,
        unit="solutions right by chance",
        operator=f"answers shuffled between the problems of a group, middle 95 % of {_SHUFFLES} seeded shuffles",
    )


def accuracy_of(right: Sequence[bool]) -> Measurement:
    """Share of problems answered rightly, with its Wilson interval."""
    count = sum(map(bool, right))
    return Measurement(
        value=count / len(right),
        interval=wilson(count, len(right)),
        n=len(right),
        null=None,
        unit="of the problems",
        operator="greedy decoding, final answer checked, Wilson interval 95 %",
    )


def by_group(groups: Sequence[str | None], right: Sequence[bool]) -> dict[str, tuple[int, int]]:
    """Right ones and all of each group, in the order of their names; problems without a group are left out."""
    found: dict[str, tuple[int, int]] = {}
    for group, is_right in zip(groups, right, strict=True):
        if group is not None:
            before = found.get(group, (0, 0))
            found[group] = before[0] + bool(is_right), before[1] + 1
    return dict(sorted(found.items()))


def half_width(n: int) -> float:
    """The widest half-width (95 %) of a share measured on `n` problems: that of one half."""
    low, high = wilson(n // 2, n)
    return (high - low) / 2
