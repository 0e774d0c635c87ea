"""The gradient noise scale and the signal-to-noise ratio of a batch, debiased (MATH.md section 2, row 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class GradientNoise:
    """What the micro-batches of one step say; None where the mean gradient is not resolved from the noise."""

    noise_scale: float | None  # tr Cov(g) / ||E g||^2, in examples
    signal_to_noise: float | None  # ||E g||^2 / tr Cov(g)


def gradient_noise(micro: Sequence[Mapping[str, Tensor]], examples_per_micro: float) -> GradientNoise:
    """Debiased noise scale from the gradients of equal micro-batches of one step.

    With N micro-batches of b examples: tr Cov = b sum ||g_i - gbar||^2 / (N - 1), ||E g||^2 = ||gbar||^2 - tr Cov/(N b)
    (McCandlish et al. 2018, appendix A, with the bias of the second term removed). Unresolved where that is <= 0.
    """
    count = len(micro)
    if count < 2:
        return GradientNoise(None, None)
    spread, mean_square = 0.0, 0.0
    for name in micro[0]:
        stack = torch.stack([gradients[name].double().flatten() for gradients in micro])
        mean = stack.mean(0)
        spread += float((stack - mean).square().sum()) / (count - 1)
        mean_square += float(mean.square().sum())
    covariance = spread * examples_per_micro
    signal = mean_square - spread / count
    if covariance <= 0 or signal <= 0:
        return GradientNoise(None, None)
    return GradientNoise(noise_scale=covariance / signal, signal_to_noise=signal / covariance)
