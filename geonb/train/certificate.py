"""The stopping certificate: five conditions, each met, not met or unmeasured (MATH.md section 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from geonb.data.example import Example
from geonb.train.events import Condition
from geonb.train.objective import chunks, forward_losses, to_tensors

# the gradients are taken this far along the direction: long enough for differences of float32 gradients to be exact to
# about 1e-3, short enough to stay in the quadratic neighbourhood
_PROBE = 1e-2


@dataclass(frozen=True, slots=True)
class DirectionalTerms:
    """Along direction d, for the whole set and each group: a = -<g, d> (nats) and b = d^T H d (nats)."""

    slope: float
    curvature: float
    group_slope: dict[str, float]
    group_curvature: dict[str, float]


def directional_terms(
    model: nn.Module,
    leaves: Mapping[str, nn.Parameter],
    direct: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
    examples: Sequence[Example],
    groups: Mapping[str, Sequence[int]],
    *,
    pad: int,
    device: torch.device,
    batch_size: int = 16,
) -> DirectionalTerms:
    """Slope and curvature of the validation loss along d = `direct(full-batch gradient)`, by a Hessian-vector product.

    b = <d, g(x + h d) - g(x - h d)> / (2h), a = -<d, g(x + h d) + g(x - h d)> / 2, group by group: central differences,
    three gradient passes in all. The direction is the best one for these very examples, so the bound errs towards
    going on. The leaves are the same bytes afterwards.
    """
    rows = [row for members in groups.values() for row in members]
    direction = direct(_gradients(model, leaves, examples, rows, pad, device, batch_size)[0])
    start = {name: leaf.detach().clone() for name, leaf in leaves.items()}
    slopes: dict[int, dict[str, float]] = {}
    tokens: dict[str, int] = {}
    try:
        for sign in (1, -1):
            with torch.no_grad():
                for name, leaf in leaves.items():
                    leaf.copy_(start[name] + sign * _PROBE * direction[name])
            slopes[sign] = {}
            for group, members in groups.items():
                found, tokens[group] = _gradients(model, leaves, examples, members, pad, device, batch_size)
                slopes[sign][group] = sum(float((found[name] * direction[name]).sum()) for name in leaves)
    finally:
        with torch.no_grad():
            for name, leaf in leaves.items():
                leaf.copy_(start[name])
    group_slope = {group: -(slopes[1][group] + slopes[-1][group]) / 2 for group in groups}
    group_curvature = {group: (slopes[1][group] - slopes[-1][group]) / (2 * _PROBE) for group in groups}
    weights = np.array([tokens[group] for group in groups], dtype=float)
    weights /= weights.sum()
    return DirectionalTerms(
        slope=float(weights @ np.array(list(group_slope.values()))),
        curvature=float(weights @ np.array(list(group_curvature.values()))),
        group_slope=group_slope,
        group_curvature=group_curvature,
    )


def _gradients(
    model: nn.Module,
    leaves: Mapping[str, nn.Parameter],
    examples: Sequence[Example],
    rows: Sequence[int],
    pad: int,
    device: torch.device,
    batch_size: int,
) -> tuple[dict[str, Tensor], int]:
    """The gradient of the mean loss over the counted tokens of `rows`, and how many there are."""
    total = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    count = 0
    for batch_rows in chunks(list(rows), batch_size):
        losses = forward_losses(model, to_tensors(examples, batch_rows, pad, device))
        parts = torch.autograd.grad(losses.nll.sum(), list(leaves.values()), allow_unused=True)
        for name, part in zip(leaves, parts, strict=True):
            if part is not None:
                total[name] += part
        count += int(losses.count.sum())
    return {name: gradient / max(count, 1) for name, gradient in total.items()}, count


def improvement_bound(slope: float, curvature: float, *, within_ball: bool = True) -> float:
    """Largest decrease of the quadratic model a s - b s^2 / 2 over the feasible steps.

    Where the direction leads to a point of the ball, 0 <= s <= 1 and the bound is a^2 / (2b) or, where the curvature is
    too small for that, a - b/2. Without a ball it is the documented a^2 / (2b), infinite for b <= 0.

    >>> improvement_bound(1.0, 4.0), improvement_bound(-1.0, 4.0), improvement_bound(1.0, 0.0)
    (0.125, 0.0, 1.0)
    """
    if slope <= 0 and curvature >= 0:
        return 0.0
    if not within_ball:
        return slope * slope / (2 * curvature) if curvature > 0 else float("inf")
    if curvature > 0 and slope < curvature:
        return slope * slope / (2 * curvature)
    return max(0.0, slope - curvature / 2)


def stationarity(gaps: Sequence[float]) -> Condition:
    """Whether the duality gap no longer falls: the means of two adjacent windows, one-sided at two standard errors.

    A window holds an eighth of the history, at least 8 steps: fewer cannot tell a trend from the noise of batches.
    """
    window = max(8, len(gaps) // 8)
    if len(gaps) < 2 * window:
        return Condition(
            name="stationarity",
            status="unmeasured",
            value=None,
            threshold=None,
            because=f"needs two windows of {window} steps, {len(gaps)} were made",
        )
    earlier, recent = np.array(gaps[-2 * window : -window]), np.array(gaps[-window:])
    error = float(np.sqrt(earlier.var(ddof=1) / window + recent.var(ddof=1) / window))
    fall = float(earlier.mean() - recent.mean())
    return Condition(
        name="stationarity",
        status="met" if fall <= 2 * error else "not met",
        value=fall,
        threshold=2 * error,
        because=f"fall of the mean gap between two windows of {window} steps, against two standard errors",
    )


def improvement(
    terms: DirectionalTerms | None,
    half_width: float | None,
    *,
    within_ball: bool = True,
    why: str = "no evaluation set that resolves a difference",
) -> tuple[Condition, Condition]:
    """Conditions 2 and 3: what a quadratic model still promises, over all and for the worst group, is below the noise.

    `why` says what an unmeasured condition lacks.
    """
    names = ("improvement bound", "worst group")
    if terms is None or half_width is None or half_width <= 0:
        both = [Condition(name=name, status="unmeasured", value=None, threshold=None, because=why) for name in names]
        return both[0], both[1]
    whole = improvement_bound(terms.slope, terms.curvature, within_ball=within_ball)
    worst_group, worst = max(
        (
            (group, improvement_bound(slope, terms.group_curvature[group], within_ball=within_ball))
            for group, slope in terms.group_slope.items()
        ),
        key=lambda pair: pair[1],
    )
    because = "what the best direction still promises by the quadratic model, against what the evaluation resolves"
    return (
        Condition(
            name=names[0],
            status="met" if whole < half_width else "not met",
            value=whole,
            threshold=half_width,
            because=because,
        ),
        Condition(
            name=names[1],
            status="met" if worst < half_width else "not met",
            value=worst,
            threshold=half_width,
            because=f"the same for the worst of {len(terms.group_slope)} groups ({worst_group})",
        ),
    )


def no_drift(now: Mapping[str, float] | None, baseline: Mapping[str, tuple[float, float]] | None) -> Condition:
    """Condition 4: entropy and repetition on the probes lie inside the intervals of the model before training."""
    if not now or not baseline:
        return Condition(
            name="no drift", status="unmeasured", value=None, threshold=None, because="no probes were measured"
        )
    outside = [name for name, value in now.items() if not baseline[name][0] <= value <= baseline[name][1]]
    shown = ", ".join(
        f"{name} {value:.3f} in [{baseline[name][0]:.3f}, {baseline[name][1]:.3f}]" for name, value in now.items()
    )
    return Condition(
        name="no drift",
        status="not met" if outside else "met",
        value=float(len(outside)),
        threshold=0.0,
        because=f"measures outside the interval of the model before training ({shown})",
    )


def task_improved(delta: float | None, interval: tuple[float, float] | None) -> Condition:
    """Condition 5: the paired change of the validation loss since step 0 lies wholly below zero."""
    if delta is None or interval is None:
        return Condition(
            name="task improved",
            status="unmeasured",
            value=None,
            threshold=None,
            because="no evaluation before training",
        )
    return Condition(
        name="task improved",
        status="met" if interval[1] < 0 else "not met",
        value=interval[1],
        threshold=0.0,
        because=f"upper end of the paired interval of the change {delta:+.4f} nats",
    )
