"""Findings from samples: a figure with its interval and what chance gives, for seeds, correlations and rankings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from geonb.errors import InputError
from geonb.geometry.measurement import Measurement

METHODS = ("pearson", "spearman")


def over_seeds(
    values: Sequence[float], *, unit: str, operator: str, null: float | None = None, confidence: float = 0.95
) -> Measurement:
    """The mean over independent runs with Student's interval: mean +- t(n - 1) sd / sqrt(n).

    One run alone has no interval that ends: it is (-inf, inf). Raises `InputError` for no value or one that is not finite.

    >>> over_seeds([1.0, 2.0, 3.0], unit="nats", operator="loss, three seeds").value
    2.0
    """
    from scipy.stats import t

    sample = _finite(values, "values")
    n = len(sample)
    half = np.inf
    if n > 1:
        half = float(t.ppf((1 + confidence) / 2, n - 1) * sample.std(ddof=1) / np.sqrt(n))
    mean = float(sample.mean())
    return Measurement(
        value=mean, interval=(mean - half, mean + half), n=n, null=null, unit=unit, operator=f"{operator}; Student"
    )


def correlation(
    x: Sequence[float],
    y: Sequence[float],
    *,
    method: str = "pearson",
    groups: Sequence[Any] | None = None,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Measurement:
    """The correlation of `x` and `y`, its interval by bootstrap, and as null the 95 % quantile of |r| over permutations.

    With `groups` whole groups are drawn, because their members are no independent evidence (matrices of one kind), and
    permutations stay within a group. Fewer than eight groups give an interval that is too narrow: the operator names their
    number. `value` is nan where one side does not vary. Raises `InputError` for sides of unequal length, fewer than four
    pairs, values that are not finite, and an unknown method.

    >>> correlation([1, 2, 3, 4, 5], [1, 3, 2, 5, 4], method="spearman").value
    0.8
    """
    if method not in METHODS:
        raise InputError(f"the method {method!r} was given; allowed are {' and '.join(METHODS)}.")
    first, second = _finite(x, "x"), _finite(y, "y")
    if len(first) != len(second) or len(first) < 4:
        raise InputError(
            f"{len(first)} and {len(second)} values were given; allowed are as many on both sides, at least 4."
        )
    if groups is not None and len(groups) != len(first):
        raise InputError(f"{len(groups)} groups were given for {len(first)} pairs; allowed is one a pair.")
    rng = np.random.default_rng(seed)
    labels = (
        np.arange(len(first)) if groups is None else np.unique([str(one) for one in groups], return_inverse=True)[1]
    )
    members = [np.flatnonzero(labels == one) for one in np.unique(labels)]
    drawn = np.empty(resamples)
    for place in range(resamples):
        chosen = np.concatenate([members[one] for one in rng.integers(len(members), size=len(members))])
        drawn[place] = _r(first[chosen], second[chosen], method)
    chance = np.empty(resamples)
    for place in range(resamples):
        order = np.arange(len(first))
        for one in members if groups is not None else [order]:
            order[one] = rng.permutation(one)
        chance[place] = abs(_r(first, second[order], method))
    tail = 50 * (1 - confidence)
    interval = None
    if not np.isnan(drawn).all():
        low, high = np.nanpercentile(drawn, [tail, 100 - tail])
        interval = (float(low), float(high))
    what = "" if groups is None else f", {len(members)} groups"
    return Measurement(
        value=_r(first, second, method),
        interval=interval,
        n=len(first),
        null=float(np.nanpercentile(chance, 100 * confidence)) if not np.isnan(chance).all() else None,
        unit="",
        operator=f"{method}, bootstrap of {resamples}{what}, null: {confidence:.0%} of |r| permuted, seed {seed}",
    )


def auc(
    scores: Sequence[float], labels: Sequence[bool], *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Measurement:
    """The chance that a positive scores above a negative (ties count half), with a bootstrap within each class.

    Null 0.5. Raises `InputError` where a class is empty, lengths differ or a score is not finite.

    >>> auc([1, 2, 3, 4], [False, False, True, True]).value
    1.0
    """
    values, truth = _finite(scores, "scores"), np.asarray(labels, dtype=bool)
    if len(values) != len(truth) or truth.all() or not truth.any():
        given = f"{len(values)} scores and {len(truth)} labels, {int(truth.sum())} of them positive"
        raise InputError(f"{given}, were given; needed are both classes, and a label a score.")
    rng = np.random.default_rng(seed)
    positive, negative = values[truth], values[~truth]
    drawn = [
        _auc(rng.choice(positive, len(positive)), rng.choice(negative, len(negative))) for _ in range(resamples)
    ]  # fmt: skip
    tail = 50 * (1 - confidence)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Measurement(
        value=_auc(positive, negative),
        interval=(float(low), float(high)),
        n=len(values),
        null=0.5,
        unit="",
        operator=f"area under the ROC curve, bootstrap of {resamples} within classes, seed {seed}",
    )


def permutation_p(observed: float, null: Sequence[float]) -> float:
    """(1 + #{null >= observed}) / (1 + n): the one-sided p of a permutation or random-control test, never zero.

    >>> permutation_p(3.0, [1.0, 2.0, 4.0])
    0.5
    """
    values = _finite(null, "null")
    return float((1 + (values >= observed).sum()) / (1 + len(values)))


def _finite(values: Sequence[float], name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64).ravel()
    if not len(array) or not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise InputError(
            f"{name} has {len(array)} values, {bad} of them not finite; allowed are finite numbers, at least one."
        )
    return array


def _r(first: np.ndarray, second: np.ndarray, method: str) -> float:
    if method == "spearman":
        from scipy.stats import rankdata

        first, second = rankdata(first), rankdata(second)
    first, second = first - first.mean(), second - second.mean()
    norms = np.sqrt((first @ first) * (second @ second))
    return float(np.clip(first @ second / norms, -1, 1)) if norms > 0 else float("nan")


def _auc(positive: np.ndarray, negative: np.ndarray) -> float:
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left")
    upto = np.searchsorted(ordered, positive, "right")
    return float((below + upto).sum() / (2 * len(positive) * len(negative)))
