"""The gradient noise scale from per-example gradients, debiased, with a jackknife interval."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, log, sqrt

import numpy as np

_NORMAL_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class NoiseScale:
    """tr Cov(g) / ||E g||^2 in examples; `scale` is None where the debiased ||E g||^2 is not positive.

    `resolved` is True only where the interval of ||E g||^2 lies above zero: otherwise the scale has no upper end.
    """

    scale: float | None
    interval: tuple[float, float] | None
    signal_to_noise: float | None
    signal: float  # ||E g||^2, debiased
    covariance: float  # tr Cov(g)
    resolved: bool
    because: str


def noise_scale(squares: np.ndarray, inners: np.ndarray, total: float) -> NoiseScale:
    """From ||g_i||^2, <g_i, sum g> and ||sum g||^2 of N examples (McCandlish et al. 2018, appendix A, debiased).

        tr Cov(g) = (sum ||g_i||^2 - N ||gbar||^2) / (N - 1);   ||E g||^2 = ||gbar||^2 - tr Cov(g) / N

    The interval is 1.96 jackknife standard errors either way, of log(scale).

    >>> g = np.array([[1.0, 0], [0, 1], [1, 1], [2, 0]])
    >>> found = noise_scale((g**2).sum(1), g @ g.sum(0), float((g.sum(0) ** 2).sum()))
    >>> found.scale, found.resolved
    (1.0, False)
    """
    squares, inners = np.asarray(squares, dtype=np.float64), np.asarray(inners, dtype=np.float64)
    count = len(squares)
    if count < 3 or total <= 0:
        why = f"{count} examples say nothing about noise" if count < 3 else "every gradient was zero"
        return NoiseScale(None, None, None, 0.0, 0.0, False, why)
    covariance, signal = (float(part) for part in _moments(squares.sum(), total, count))
    left_out = _moments(squares.sum() - squares, total - 2 * inners + squares, count - 1)
    error = _jackknife_error(left_out[1])
    low, high = signal - _NORMAL_95 * error, signal + _NORMAL_95 * error
    if signal <= 0:
        why = f"||E g||^2 is not above zero after debiasing (95 % interval {low:.3g} to {high:.3g})"
        interval = (covariance / high, inf) if high > 0 else None
        return NoiseScale(None, interval, None, signal, covariance, False, why)
    scale = covariance / signal
    if low <= 0 or covariance <= 0 or np.any(left_out[1] <= 0) or np.any(left_out[0] <= 0):
        why = f"||E g||^2 cannot be told from zero (95 % interval {low:.3g} to {high:.3g})"
        return NoiseScale(
            scale,
            (max(0.0, covariance / high), inf),
            signal / covariance if covariance > 0 else None,
            signal,
            covariance,
            False,
            why,
        )
    spread = _NORMAL_95 * _jackknife_error(np.log(left_out[0] / left_out[1]))
    interval = (exp(log(scale) - spread), exp(log(scale) + spread))
    why = f"noise scale {scale:.3g} examples (95 % interval {interval[0]:.3g} to {interval[1]:.3g})"
    return NoiseScale(scale, interval, signal / covariance, signal, covariance, True, why)


def _moments(squares, total, count):
    """tr Cov(g) and the debiased ||E g||^2 of `count` examples."""
    mean_square = total / count**2
    covariance = (squares - count * mean_square) / (count - 1)
    return covariance, mean_square - covariance / count


def _jackknife_error(values: np.ndarray) -> float:
    """sqrt((N-1)/N sum (v_i - vbar)^2), the standard error from leave-one-out values."""
    count = len(values)
    return sqrt((count - 1) / count * float(((values - values.mean()) ** 2).sum()))
