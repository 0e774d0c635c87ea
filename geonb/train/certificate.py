"""The stopping certificate: five conditions, each met, not met or unmeasured (MATH.md section 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from geonb.data.example import Example
from geonb.train.events import Condition
from geonb.train.objective import chunks, forward_losses, to_tensors

# the gradients are taken this far along the direction: long enough for differences of float32 gradients to be exact to
# about 1e-3, short enough to stay in the quadratic neighbourhood
_PROBE = 0.1


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
    direction: Mapping[str, Tensor],
    examples: Sequence[Example],
    groups: Mapping[str, Sequence[int]],
    *,
    pad: int,
    device: torch.device,
    batch_size: int = 16,
) -> DirectionalTerms:
    """Slope and curvature of the validation loss along `direction`, by a central-difference Hessian-vector product.

    b = <d, g(x + h d) - g(x - h d)> / (2h), a = -<d, g(x + h d) + g(x - h d)> / 2, group by group; two gradient passes.
    The leaves are the same bytes afterwards, and their `.grad` is None.
    """
    start = {name: leaf.detach().clone() for name, leaf in leaves.items()}
    slopes: dict[int, dict[str, float]] = {}
    tokens: dict[str, int] = {}
    try:
        for sign in (1, -1):
            with torch.no_grad():
                for name, leaf in leaves.items():
                    leaf.copy_(start[name] + sign * _PROBE * direction[name])
            slopes[sign] = {}
            for group, rows in groups.items():
                total, count = 0.0, 0
                for batch_rows in chunks(list(rows), batch_size):
                    losses = forward_losses(model, to_tensors(examples, batch_rows, pad, device))
                    gradients = torch.autograd.grad(losses.nll.sum(), list(leaves.values()), allow_unused=True)
                    for gradient, name in zip(gradients, leaves, strict=True):
                        if gradient is not None:
                            total += float((gradient * direction[name]).sum())
                    count += int(losses.count.sum())
                slopes[sign][group] = total / max(count, 1)
                tokens[group] = count
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


def improvement_bound(slope: float, curvature: float) -> float:
    """Largest decrease of the quadratic model a s - b s^2 / 2 over the feasible steps 0 <= s <= 1.

    d is the change since the last evaluation, so s = 1 is another stretch like the last one; the schedule only
    shortens, so none is longer. Inside the interval it is the documented a^2 / (2b); where the curvature is small or
    negative the bound is a - b/2 instead of infinity.

    >>> improvement_bound(1.0, 4.0), improvement_bound(-1.0, 4.0), improvement_bound(1.0, 0.0)
    (0.125, 0.0, 1.0)
    """
    if slope <= 0 and curvature >= 0:
        return 0.0
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


def improvement(terms: DirectionalTerms | None, half_width: float | None) -> tuple[Condition, Condition]:
    """Conditions 2 and 3: what a quadratic model still promises, over all and for the worst group, is below the noise."""
    names = ("improvement bound", "worst group")
    if terms is None or half_width is None or half_width <= 0:
        why = "no evaluation set that resolves a difference"
        both = [Condition(name=name, status="unmeasured", value=None, threshold=None, because=why) for name in names]
        return both[0], both[1]
    whole = improvement_bound(terms.slope, terms.curvature)
    worst_group, worst = max(
        ((group, improvement_bound(slope, terms.group_curvature[group])) for group, slope in terms.group_slope.items()),
        key=lambda pair: pair[1],
    )
    because = (
        "what another stretch like the last would bring by the quadratic model, against what the evaluation resolves"
    )
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
