"""What each phase asks of the coordinates, beside the likelihood of the text.

All three speak of the kernel k of phases, over all layers together, because only phases act; each is bounded, and a collapsed
predictor (one theta for everything) is no minimiser of any.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

TEMPERATURE = 0.2
BLEND, TEMPORAL, CONTRAST = 0.1, 0.05, 0.1
SPREAD = 0.5  # gamma: the least standard deviation of a coordinate over a batch
# the force of the floor on theta (n texts, d coordinates) has norm FLOOR / sqrt(n d) at most: at 4 that is 1.5 times what the
# blend's was measured to be for `tiny`, and twice for preset B; a square at 0.1 had a hundredth of the blend's, and was overrun
FLOOR = 4.0


def kernel_matrix(phases: Tensor) -> Tensor:
    """k of all pairs: phases (texts, layers x pairs) -> (texts, texts)."""
    cosine, sine = phases.cos(), phases.sin()
    return (cosine @ cosine.T + sine @ sine.T) / phases.shape[1]


def contrast(phases: Tensor, labels: Tensor, partners: Tensor | None = None) -> Tensor:
    """InfoNCE on k (van den Oord et al. 2018): -mean over i, p of log exp(k_ip/tau) / sum over j != i of exp(k_ij/tau).

    p are the other texts of i's label. A minimal pair's partner has another label, and so stands among the negatives. A text
    without a positive is left out; with none at all the loss is 0.
    """
    count = len(labels)
    scores = kernel_matrix(phases) / TEMPERATURE
    itself = torch.eye(count, dtype=torch.bool)
    logs = functional.log_softmax(scores.masked_fill(itself, float("-inf")), dim=1)
    positive = (labels[:, None] == labels[None]) & ~itself
    if partners is not None:
        rows = torch.arange(count)[partners >= 0]
        assert not bool(positive[rows, partners[partners >= 0]].any()), "a minimal pair has two labels"
    if not bool(positive.any()):
        return phases.sum() * 0
    return -logs[positive].mean()


def blend(phases: Tensor, labels: Tensor) -> Tensor:
    """Of triples (both, first, second): ||phi(ab) - normalise(phi(a) + phi(b))||^2 + k(a, b)^2, mean over triples.

    The second term keeps the parts from being one, which would make the first trivial.
    """
    weights = functional.normalize(torch.cat([phases.cos(), phases.sin()], dim=1), dim=1)
    triples = [torch.nonzero(labels == one).flatten() for one in labels.unique()]
    whole = [one for one in triples if len(one) == 3]
    if not whole:
        return phases.sum() * 0
    both, first, second = torch.stack(whole).T
    mixed = functional.normalize(weights[first] + weights[second], dim=1)
    apart = (weights[first] * weights[second]).sum(dim=1)
    return ((weights[both] - mixed).square().sum(dim=1) + apart.square()).mean()


def temporal(theta: Tensor, labels: Tensor) -> Tensor:
    """mean ||theta_t - stop_gradient(theta_(t-1))||^2 / d over turns that follow one another in one dialogue."""
    same = labels[1:] == labels[:-1]
    steps = (theta[1:] - theta[:-1].detach()).square().mean(dim=1)
    return steps[same].mean() if bool(same.any()) else theta.sum() * 0


def variance_floor(theta: Tensor) -> Tensor:
    """mean_j max(0, gamma - sd_j) over the batch (VICReg, Bardes et al. 2022); 0 once every coordinate varies by gamma.

    Not its square: a square pushes the less the nearer the floor is, so that any steady pull settles below it; the hinge pushes
    with one force up to the floor, and holds it against every weaker pull (an exact penalty).
    """
    spread = (theta.var(dim=0, correction=0) + 1e-8).sqrt()
    return (SPREAD - spread).clamp_min(0).mean()


def phase_loss(phase: str, theta: Tensor, phases: Tensor, labels: Tensor, partners: Tensor) -> dict[str, Tensor]:
    """The weighted terms of `phase`, for theta (texts, coordinates) and phases (texts, layers x pairs)."""
    if phase == "differentiation":
        return {"contrast": CONTRAST * contrast(phases, labels, partners), "floor": FLOOR * variance_floor(theta)}
    if phase == "composition":
        return {"blend": BLEND * blend(phases, labels), "floor": FLOOR * variance_floor(theta)}
    return {
        "temporal": TEMPORAL * temporal(theta, labels),
        "contrast": CONTRAST * contrast(phases, labels),
        "floor": FLOOR * variance_floor(theta),
    }
