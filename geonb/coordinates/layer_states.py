"""How much of its budget each modulated matrix uses, as the layer states that a run's trace and its views know."""

from __future__ import annotations

import torch
from torch import Tensor

from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.modulated_linear import SharedFactors
from geonb.train.events import LayerState


@torch.no_grad()
def layer_states(model: CoordinateModel, theta: Tensor, step_length: float, binding: str) -> tuple[LayerState, ...]:
    """Of every matrix the largest ||dW(theta)||_2 over theta (texts, coordinates), through its r x r cores.

    `budget_used` is ||dW||_2 / (rho ||W||_2), `over_sigma_k` ||dW||_2 / sigma_r(W), r the rank of the change: above 1 the change
    may turn any of the r leading directions of W. Empty for literal factors, which have no small cores, and without a theta.
    """
    if not len(theta):
        return ()
    states = []
    for number, layer in enumerate(model.uses):
        weights = layer.directions(theta)
        for name, linear in layer.changes.items():
            if not isinstance(linear.factors, SharedFactors):
                return ()
            small = linear.factors.small(linear.bounded_core(weights)).double()
            norm, allowed = float(torch.linalg.matrix_norm(small, ord=2).max()), linear.allowed()
            sigma = linear.base_values()[small.shape[-1] - 1]
            states.append(
                LayerState(
                    name=f"{number}.{name}",
                    eta_step=step_length,
                    binding=binding,
                    norm=norm,
                    budget_used=norm / allowed if allowed > 0 else 0.0,
                    over_sigma_k=norm / sigma if sigma > 0 else 0.0,
                )
            )
    return tuple(states)
