"""The statistics that decide: bootstrap intervals, McNemar, Clopper-Pearson, Wilson, Welford, windowed stability."""

from __future__ import annotations

import math

import numpy as np

from geonb.errors import InputError

_RESAMPLES = 2000


def bootstrap_interval(
    values, *, rng: np.random.Generator, confidence: float = 0.95, resamples: int = _RESAMPLES
) -> tuple[float, float]:
    """Percentile interval of the mean by resampling `values`: (n,), n >= 2 (Efron & Tibshirani 1993, section 13.3)."""
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) < 2:
        raise InputError(f"a bootstrap was given {sample.size} values; it needs at least two: give more examples.")
    means = np.empty(resamples)
    # in blocks: 2000 x 100,000 indices would be 1.6 GB at once
    block = max(1, 4_000_000 // len(sample))
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        means[start : start + count] = sample[rng.integers(0, len(sample), (count, len(sample)))].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def paired_bootstrap(
    first, second, *, rng: np.random.Generator, confidence: float = 0.95, resamples: int = _RESAMPLES
) -> tuple[float, float]:
    """Interval of mean(first - second), resampling pairs, so that what both share cancels."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise InputError(f"a paired bootstrap was given {a.size} and {b.size} values; it needs pairs: give equal sets.")
    return bootstrap_interval(a - b, rng=rng, confidence=confidence, resamples=resamples)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value of McNemar's test from the two discordant counts; 1 when there are none.

    >>> mcnemar(0, 6)
    0.03125
    """
    total = only_first + only_second
    if total == 0:
        return 1.0
    few = min(only_first, only_second)
    tail = sum(math.comb(total, count) for count in range(few + 1)) / 2**total
    return min(1.0, 2 * tail)


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of a proportion (Clopper & Pearson 1934)."""
    from scipy.stats import beta

    if not 0 <= successes <= n or n < 1:
        raise InputError(f"{successes} successes of {n} is not a proportion; allowed are 0..n with n at least 1.")
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(beta.ppf(1 - tail, successes + 1, n - successes))
    return low, high


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927)."""
    from scipy.stats import norm

    if not 0 <= successes <= n or n < 1:
        raise InputError(f"{successes} successes of {n} is not a proportion; allowed are 0..n with n at least 1.")
    z = float(norm.ppf(1 - (1 - confidence) / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # at 0 and n the ends are exactly 0 and 1; rounding must not push them inside
    return (0.0 if successes == 0 else max(0.0, centre - half), 1.0 if successes == n else min(1.0, centre + half))


class Welford:
    """Mean and variance of a stream in one pass (Welford 1962).

    >>> stream = Welford()
    >>> for value in (1.0, 2.0, 4.0): stream.add(value)
    >>> round(stream.mean, 4), round(stream.variance, 4)
    (2.3333, 2.3333)
    """

    def __init__(self) -> None:
        self.n = 0
        self.mean = 0.0
        self._squares = 0.0

    def add(self, value: float) -> None:
        """Take one more value in."""
        self.n += 1
        change = value - self.mean
        self.mean += change / self.n
        self._squares += change * (value - self.mean)

    @property
    def variance(self) -> float:
        """Sample variance (n - 1); nan below two values."""
        return self._squares / (self.n - 1) if self.n > 1 else math.nan


def windowed_stability(history, window: int) -> str:
    """Compare the means of the last two windows: "stable", "rising", "falling" or "unmeasured".

    A difference counts beyond two standard errors from the sample variances (n - 1) of both windows.
    """
    values = np.asarray(history, dtype=np.float64)
    if window < 2 or len(values) < 2 * window:
        return "unmeasured"
    earlier, recent = values[-2 * window : -window], values[-window:]
    change = float(recent.mean() - earlier.mean())
    error = math.sqrt((earlier.var(ddof=1) + recent.var(ddof=1)) / window)
    if abs(change) <= 2 * error:
        return "stable"
    return "rising" if change > 0 else "falling"
