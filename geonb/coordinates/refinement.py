"""A coordinate refined on the tokens that were seen: descent on their loss, a step taken only where it helps.

    J(theta) = -(1/(T-1)) sum_t log p(x_(t+1) | x_(<=t); theta) + lambda ||theta - theta_0||^2 / d
    theta <- on_sphere(theta - s g), s = rho ||theta|| / ||g||, halved until J falls, at most `steps` times accepted

The published step of 0.01 times the raw gradient moves theta by about 1e-5 of its norm: nothing. Here the step is a share rho of
||theta||. J never rises, and weights get no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.predictor import on_sphere
from geonb.errors import InputError


@dataclass(slots=True)
class Refined:
    """theta (batch, 1, coordinates), and J before and after every accepted step, the mean over the batch."""

    theta: Tensor
    objective: list[float]

    @property
    def accepted(self) -> int:
        """How many steps were taken."""
        return len(self.objective) - 1


def refine(
    model: CoordinateModel,
    tokens: Tensor,
    *,
    steps: int = 2,
    penalty: float = 0.1,
    share: float = 0.03,
    halvings: int = 6,
) -> Refined:
    """Refine the predicted coordinate of a whole text (batch, tokens >= 2); what it gives is for mode `sequence`.

    Text that was read under another coordinate must be read again: a cache refuses it. Raises `InputError` for a text of one
    token, which has no next one to score, and for figures that are negative.
    """
    if tokens.shape[1] < 2:
        raise InputError("one token was given; a refinement scores the next token of each, so it needs at least two.")
    if steps < 0 or penalty < 0 or share <= 0:
        raise InputError(
            f"steps {steps}, penalty {penalty}, share {share} were given; allowed are none below zero, share above."
        )
    with torch.no_grad():
        start = model.predict(model.embedding(tokens), "sequence")
    theta, history = start, []
    for _ in range(steps):
        with torch.enable_grad():
            moved = theta.detach().requires_grad_(True)
            value = _objective(model, tokens, moved, start, penalty)
            (gradient,) = torch.autograd.grad(value.sum(), moved)
        history = history or [float(value.detach().mean())]
        norm = gradient.norm(dim=-1, keepdim=True)
        length = share * theta.norm(dim=-1, keepdim=True) / norm.clamp_min(1e-30)
        best, found = theta, value.detach()
        waiting = norm.flatten() > 0
        for _ in range(halvings):
            if not bool(waiting.any()):
                break
            tried = on_sphere(theta - length * gradient)
            with torch.no_grad():
                reached = _objective(model, tokens, tried, start, penalty)
            better = waiting & (reached < found)
            best = torch.where(better[:, None, None], tried, best)
            found = torch.where(better, reached, found)
            waiting = waiting & ~better
            length = length / 2
        if torch.equal(best, theta):
            break
        theta = best
        history.append(float(found.mean()))
    return Refined(theta=theta.detach(), objective=history or [float("nan")])


def _objective(model: CoordinateModel, tokens: Tensor, theta: Tensor, start: Tensor, penalty: float) -> Tensor:
    logits = model(tokens, theta=theta, mode="sequence").logits[:, :-1]
    losses = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    drift = (theta - start).square().sum(dim=(1, 2)) / theta.shape[-1]
    return losses.reshape(len(tokens), -1).mean(dim=1) + penalty * drift
