"""Where larger batches stop paying: the improvement of one step against the batch size, beside the gradient noise scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from geonb.errors import InputError
from geonb.plan.noise import NoiseScale, noise_scale
from geonb.train.objective import evaluate, forward_losses, to_tensors


@dataclass(frozen=True, slots=True)
class BatchPoint:
    """One point of a run: the noise scale, the best improvement by batch size, and what is fitted to it."""

    scale: NoiseScale
    improvements: dict[int, float]  # nats, at the best common length of the step
    critical: float  # B_c of D / (1 + B_c / B)
    most: float  # D, nats
    flipped: float  # slope along gradients of random signs over the slope along true ones


def example_gradients(model: Any, parameters: Sequence[Any], examples: Sequence[Any], rows: Sequence[int], pad: int):
    """The gradient of each row by itself, (rows, numbers) in float32; their mean is that of the batch's mean over tokens."""
    device = next(model.parameters()).device
    tokens = float(np.mean([sum(examples[row].loss_mask) for row in rows]))
    found = []
    for row in rows:
        loss = forward_losses(model, to_tensors(examples, [row], pad, device)).nll.sum() / tokens
        parts = torch.autograd.grad(loss, list(parameters))
        found.append(torch.cat([part.flatten() for part in parts]).cpu().numpy())
    return np.stack(found)


def scale_of(gradients: np.ndarray) -> NoiseScale:
    """The debiased noise scale of (examples, numbers) gradients."""
    exact = gradients.astype(np.float64)
    total = exact.sum(0)
    return noise_scale((exact**2).sum(1), exact @ total, float(total @ total))


def plain_ratio(gradients: np.ndarray) -> float:
    """tr Cov(g) / ||mean g||^2 as it is documented, without the bias removed.

    >>> plain_ratio(np.array([[1.0, 0], [0, 1], [1, 1], [2, 0]]))
    0.8
    """
    exact = gradients.astype(np.float64)
    mean = exact.mean(0)
    return float(((exact - mean) ** 2).sum() / (len(exact) - 1) / (mean @ mean))


def fit(improvements: Mapping[int, float]) -> tuple[float, float]:
    """(B_c, D) of the least squares of log improvement against log D - log(1 + B_c / B).

    Raises `InputError` for fewer than three sizes and an improvement that is not positive.
    """
    if len(improvements) < 3 or min(improvements.values()) <= 0:
        raise InputError(f"the improvements {dict(improvements)} were given; allowed are at least three, all above 0.")
    sizes, logs = np.array(list(improvements), dtype=float), np.log(list(improvements.values()))
    grid = np.geomspace(1e-2, 1e4, 6001)
    residual = logs + np.log1p(grid[:, None] / sizes)
    best = int(residual.var(1).argmin())
    return float(grid[best]), float(np.exp(residual[best].mean()))


def measure_point(
    attached: Any,
    inputs: Any,
    *,
    pad: int,
    sizes: Sequence[int],
    draws: int,
    pool: int,
    held: int,
    seed: int,
) -> BatchPoint:
    """Measure one point with `pool` training examples for the gradients and `held` held-out ones for the loss.

    A direction is the mean gradient of a batch drawn with replacement, the same draws for every length of the step. The
    improvement of a batch size is the mean fall of the held-out loss at the best common length, found by doubling and
    halving and refined by the parabola through three lengths. The parameters are the same bytes afterwards.
    """
    model, parameters = attached.model, list(attached.trained)
    device = next(model.parameters()).device
    rng = np.random.default_rng([seed, 8])
    gradients = example_gradients(model, parameters, inputs.training, range(pool), pad)
    held_out = inputs.evaluation[:held]
    losses = forward_losses(model, to_tensors(held_out, range(held), pad, device))
    parts = torch.autograd.grad(losses.nll.sum() / losses.count.sum(), parameters)
    target = torch.cat([part.flatten() for part in parts]).cpu().numpy()
    before = [parameter.detach().clone() for parameter in parameters]

    def loss(direction: np.ndarray | None, length: float = 0.0) -> float:
        start = 0
        with torch.no_grad():
            for parameter, kept in zip(parameters, before, strict=True):
                parameter.copy_(kept)
                if direction is not None:
                    part = torch.from_numpy(direction[start : start + kept.numel()]).to(kept).view_as(kept)
                    parameter.sub_(part, alpha=length)
                    start += kept.numel()
        return evaluate(model, held_out, pad=pad, device=device, batch_size=held).loss

    base, mean = loss(None), gradients.mean(0)
    length = _peak(lambda length: base - loss(mean, length), 1.0)[0]
    improvements = {}
    for size in sorted(sizes, reverse=True):
        drawn = [gradients[rng.integers(pool, size=size)].mean(0) for _ in range(draws)]
        # the best length of a smaller batch is shorter: the search begins where that of the larger one ended
        length, improvements[size] = _peak(
            lambda length, drawn=drawn: base - float(np.mean([loss(direction, length) for direction in drawn])), length
        )
    loss(None)
    signs = rng.choice([-1.0, 1.0], size=(200, pool))
    flipped = float(np.abs(signs @ (gradients @ target) / pool).mean() / abs(float(target @ mean)))
    improvements = dict(sorted(improvements.items()))
    usable = min(improvements.values()) > 0
    critical, most = fit(improvements) if usable else (math.nan, math.nan)
    return BatchPoint(
        scale=scale_of(gradients), improvements=improvements, critical=critical, most=most, flipped=flipped
    )


def _peak(fall: Callable[[float], float], start: float) -> tuple[float, float]:
    """(length, fall) at the highest of `fall` over start 2^j, j whole, refined by a parabola in log(length)."""
    known = {0: fall(start), -1: fall(start / 2)}
    while True:
        best = max(known, key=known.__getitem__)
        beside = [place for place in (best - 1, best + 1) if place not in known]
        if not beside or not -20 < best < 20:
            break
        known[beside[0]] = fall(start * 2.0 ** beside[0])
    low, middle, high = (known.get(best + shift, known[best]) for shift in (-1, 0, 1))
    bend = low - 2 * middle + high
    shift = 0.5 * (low - high) / bend if bend < 0 else 0.0
    return start * 2.0 ** (best + shift), middle - 0.25 * (low - high) * shift
