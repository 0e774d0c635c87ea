"""Intervals without ties: the grouped jackknife, for statistics that a bootstrap with replacement would bias."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from geonb.errors import InputError


def jackknife_groups(n: int, *, groups: int = 20, seed: int = 0) -> list[np.ndarray]:
    """Row numbers 0..n-1 dealt at random into min(groups, n) parts of nearly equal size.

    >>> sorted(int(row) for part in jackknife_groups(7, groups=3) for row in part)
    [0, 1, 2, 3, 4, 5, 6]
    """
    if n < 2 or groups < 2:
        raise InputError(f"{groups} groups of {n} rows were asked for; allowed are 2 and more of each.")
    return [np.sort(part) for part in np.array_split(np.random.default_rng(seed).permutation(n), min(groups, n))]


def jackknife_interval(value: float, left_out: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float]:
    """`value` -+ t_(g-1) s with s^2 = (g - 1) / g sum (v_j - mean v)^2 over the values v_j with one group left out.

    Busing, Meijer & Van der Leeden 1999 for groups of equal size; nan where a value is missing.
    """
    from scipy.stats import t

    values = np.asarray(left_out, dtype=np.float64)
    if len(values) < 2 or not np.isfinite(values).all() or not math.isfinite(value):
        return math.nan, math.nan
    groups = len(values)
    error = math.sqrt((groups - 1) / groups * float(((values - values.mean()) ** 2).sum()))
    half = float(t.ppf((1 + confidence) / 2, groups - 1)) * error
    return value - half, value + half


def jackknife(
    statistic: Callable[[np.ndarray], float], n: int, *, groups: int = 20, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """`statistic` of all n rows and its interval; it is called with the row numbers that are kept.

    >>> rows = np.arange(100.0)
    >>> value, (low, high) = jackknife(lambda kept: rows[kept].mean(), 100)
    >>> value, bool(low < 49.5 < high)
    (49.5, True)
    """
    everything = np.arange(n)
    parts = jackknife_groups(n, groups=groups, seed=seed)
    value = statistic(everything)
    return value, jackknife_interval(value, [statistic(np.setdiff1d(everything, part)) for part in parts])
