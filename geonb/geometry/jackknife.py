"""Intervals without ties, for statistics that a bootstrap with replacement would bias.

The grouped jackknife is for smooth statistics. For nearest neighbours its standard error is 1.4 to 2 times too large (cubes
and Gaussians, n 60 to 600); leaving out halves gives 0.9 to 1.5 times, with 0.88 to 1 of 95 % intervals covering.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def half_samples(n: int, *, count: int = 40, seed: int = 0) -> list[np.ndarray]:
    """`count` sets of row numbers to leave out, each a random half of 0..n-1; they come as the two halves of one split.

    >>> [len(half) for half in half_samples(10, count=2)]
    [5, 5]
    """
    if n < 4 or count < 2:
        raise InputError(
            f"{count} halves of {n} rows were asked for; allowed are 2 and more halves of 4 and more rows."
        )
    rng = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    while len(found) < count:
        found += [np.sort(part) for part in np.array_split(rng.permutation(n), 2)]
    return found[:count]


def half_sample_interval(value: float, left_out: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float]:
    """`value` -+ t s, s the standard deviation of the values with half of the rows left out (Shao & Wu 1989, d = n / 2).

    The delete-d jackknife's factor (n - d) / d is 1 for halves, and the spread is about the halves' own mean, so that a bias
    with n does not enter; nan where fewer than four values are finite.
    """
    from scipy.stats import t

    values = np.asarray(left_out, dtype=np.float64)
    values = values[np.isfinite(values)]
    if len(values) < 4 or not math.isfinite(value):
        return math.nan, math.nan
    half = float(t.ppf((1 + confidence) / 2, len(values) - 1)) * float(values.std(ddof=1))
    return value - half, value + half
