"""How much of a step at one coordinate is felt at another: the law dW(theta) = k(theta, theta') dW(theta'), and where it ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from geonb.coordinates.modulated_linear import ModulatedLinear, SharedFactors
from geonb.coordinates.phases import kernel, weights_of
from geonb.errors import InputError

ARMS = ("cores", "adamw", "sides", "base")
# the law is exact for a step of any size, and a large one is far from rounding; AdamW steps by signs
_RATES = {"cores": 0.1, "adamw": 1e-3, "sides": 0.1, "base": 0.1}


@dataclass(frozen=True, slots=True)
class Step:
    """One step at theta', looked at from theta."""

    k: float
    felt: float  # <dW(theta), dW(theta')> / ||dW(theta')||^2: k, where the law holds
    off_law: float  # ||dW(theta) - k dW(theta')|| / ||dW(theta')||
    off_formula: float  # ||dW(theta) + eta m k P G Q|| / ||eta m P G Q||, of plain steps on the cores alone; else nan


def one_step(arm: str, *, inputs: int, outputs: int, pairs: int, rank: int, seed: int, mixed_k: bool = False) -> Step:
    """A gradient step on a random target at one random coordinate, in double precision.

    `arm` names what moves: "cores" by plain gradient descent, as the law needs, "adamw" the cores by AdamW, "sides" U and V
    as well, "base" W as well. P = U U^T and Q = V V^T are the projections on the shared factors, G the gradient of W_eff.
    With `mixed_k` k is that of two other coordinates. Raises `InputError` for an unknown arm.
    """
    if arm not in ARMS:
        raise InputError(f"the arm {arm!r} was given; allowed are {', '.join(ARMS)}.")
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    linear = ModulatedLinear(
        nn.Linear(inputs, outputs, bias=False), 2 * pairs, rank, budget=1e6, generator=generator
    ).double()
    factors = linear.factors
    assert isinstance(factors, SharedFactors)
    phases = 2 * draw(4, pairs)
    with torch.no_grad():
        linear.base.weight.copy_(draw(outputs, inputs) / inputs**0.5)
        factors.cores.copy_(draw(2 * pairs, rank, rank) / rank)
    there, here = weights_of(phases[0]), weights_of(phases[1])
    x, y = draw(64, inputs), draw(64, outputs)

    def effective(weights: Tensor) -> Tensor:
        return linear.base.weight + linear.dense_change(weights)

    moved = [factors.cores]
    moved += [factors.left, factors.right] if arm == "sides" else [linear.base.weight] if arm == "base" else []
    at_work = effective(there)
    loss = ((x @ at_work.T - y) ** 2).mean()
    gradient = torch.autograd.grad(loss, at_work, retain_graph=True)[0]
    before = [effective(one).detach().clone() for one in (there, here)]
    loss.backward()
    kind = torch.optim.AdamW if arm == "adamw" else torch.optim.SGD
    kind(moved, lr=_RATES[arm]).step()
    with torch.no_grad():
        own, other = (effective(one) - was for one, was in zip((there, here), before, strict=True))
        k = float(kernel(phases[2], phases[3]) if mixed_k else kernel(phases[0], phases[1]))
        left, right = factors.left @ factors.left.T, factors.right @ factors.right.T
        stated = -_RATES[arm] * pairs * left @ gradient @ right
        off_formula = float((other - k * stated).norm() / stated.norm()) if arm == "cores" else float("nan")
    return Step(
        k=k,
        felt=float((own * other).sum() / own.square().sum()),
        off_law=float((other - k * own).norm() / own.norm()),
        off_formula=off_formula,
    )


def random_kernels(count: int, *, pairs: int, coordinates: int, scale: float, seed: int) -> np.ndarray:
    """k of every two of `count` random theta of norm sqrt(coordinates), under directions N(0, scale^2 / coordinates)."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(pairs, coordinates)) * scale / coordinates**0.5
    theta = rng.normal(size=(count, coordinates))
    theta *= coordinates**0.5 / np.linalg.norm(theta, axis=1, keepdims=True)
    return _pairs(torch.from_numpy(theta @ directions.T)).numpy()


def best_arranged(count: int, *, pairs: int, seed: int, steps: int = 400) -> float:
    """The largest |k| that is left after arranging `count` phases by gradient descent, from a random start.

    It lowers a soft maximum of k^2 that hardens on the way; what it finds is an upper bound of the least possible.
    """
    generator = torch.Generator().manual_seed(seed)
    phases = (2 * torch.pi * torch.rand(count, pairs, generator=generator)).requires_grad_()
    optimiser = torch.optim.Adam([phases], lr=0.05)
    least = float("inf")
    for step in range(steps):
        share = step / max(1, steps - 1)
        for group in optimiser.param_groups:
            group["lr"] = 0.05 * (1 - 0.98 * share)
        squares = _pairs(phases).square()
        least = min(least, float(squares.detach().max()) ** 0.5)
        scale = squares.detach().max().clamp_min(1e-12)
        power = 2 + 30 * share
        soft = (squares / scale).pow(power / 2).mean() if share > 0.3 else squares.mean() / squares.detach().mean()
        optimiser.zero_grad()
        soft.backward()
        optimiser.step()
    return least


def _pairs(phases: Tensor) -> Tensor:
    weights = weights_of(phases)
    k = weights @ weights.T / phases.shape[1]
    upper = torch.triu_indices(len(phases), len(phases), 1)
    return k[upper[0], upper[1]]
