"""What a controller does step by step: which of its bounds binds, and the curvature that an inverse would be a rate of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geonb.claims.experiments.short_training import Workshop, gradient_steps
from geonb.data.example import Example
from geonb.train.controllers.base import StepReport, TrainedMatrix, leaves
from geonb.train.controllers.registry import make_controller

BOUNDS = ("ceiling", "sps", "weyl")


@dataclass(frozen=True, slots=True)
class Trace:
    """One run of a controller: its reports, the losses of its batches and the validation loss that it ends with."""

    reports: tuple[StepReport, ...]
    losses: tuple[float, ...]
    validation: float

    @property
    def shares(self) -> dict[str, float]:
        """Of each bound, the share of all (step, matrix) pairs in which it is the smallest."""
        counts = Counter(name for report in self.reports for name in report.binding())
        total = sum(counts.values())
        return {name: counts[name] / total for name in BOUNDS}

    def medians(self) -> dict[str, list[float]]:
        """Of each bound, its median over the matrices at every step, in the report's unit."""
        series = {"ceiling": "eta_ceiling", "sps": "eta_sps", "weyl": "eta_weyl"}
        return {
            name: [float(np.median(getattr(report, column))) for report in self.reports]
            for name, column in series.items()
        }


def controller_trace(
    workshop: Workshop,
    controller: str,
    domain: str,
    *,
    steps: int,
    batch: int,
    seed: int,
    held_out: int = 64,
    budget: float = 1.0,
    unit: str = "sigma_max",
    **options: Any,
) -> Trace:
    """Train `steps` steps with `controller` and keep every report; `options` are its own, such as `loss_floor`."""
    training, evaluation = workshop.examples(domain, seed)
    reports: list[StepReport] = []
    with workshop.adapted(controller, seed=seed, budget=budget, unit=unit) as matrices:
        made = make_controller(
            controller, matrices, horizon=steps, batches_per_epoch=math.ceil(len(training) / batch), **options
        )
        losses = workshop.learn(
            training,
            matrices,
            lambda loss, step: reports.append(made.step(loss, step)),
            steps=steps,
            batch=batch,
            seed=seed,
        )
        validation = workshop.loss(evaluation, held_out)
    return Trace(tuple(reports), tuple(losses), validation)


def largest_curvature(
    gradient: Callable[[Tensor], Tensor], point: Tensor, *, iterations: int = 12, width: float = 0.05, seed: int = 0
) -> float:
    """The largest eigenvalue of the Hessian at `point`: power iteration in its Krylov form (Lanczos, all kept orthogonal).

    `gradient` maps a flat point to its flat gradient; Hv = (g(x + wv) - g(x - wv)) / 2w with |v| = 1 and w = `width`. The
    Hessian of low-rank factors that start at zero is indefinite, and plain power iteration may find its negative end.

    >>> round(largest_curvature(lambda x: torch.tensor([1.0, -5.0]) * x, torch.zeros(2)), 4)
    1.0
    """
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(point.shape, generator=generator, dtype=point.dtype).double()
    basis, core = [vector / vector.norm()], np.zeros((iterations, iterations))
    for place in range(iterations):
        step = (width * basis[-1]).to(point.dtype)
        product = ((gradient(point + step) - gradient(point - step)) / (2 * width)).double()
        for row, other in enumerate(basis):
            core[row, place] = core[place, row] = float(other @ product)
        for _ in range(2):
            for other in basis:
                product = product - (other @ product) * other
        size = float(product.norm())
        if size < 1e-6 * max(1.0, float(np.abs(core).max())) or place == iterations - 1:
            return float(np.linalg.eigvalsh(core[: place + 1, : place + 1])[-1])
        basis.append(product / size)
    return 0.0


def batch_curvature(
    workshop: Workshop,
    matrices: tuple[TrainedMatrix, ...],
    examples: Sequence[Example],
    rows: Sequence[int],
    *,
    iterations: int = 12,
) -> float:
    """L: the largest curvature of one batch's loss in the trained parameters, where they stand; they are left there."""
    parameters = list(leaves(matrices).values())
    kept = torch.nn.utils.parameters_to_vector(parameters).detach().clone()

    def gradient(point: Tensor) -> Tensor:
        torch.nn.utils.vector_to_parameters(point, parameters)
        found = torch.autograd.grad(workshop.batch_loss(examples, rows), parameters)
        return torch.cat([part.reshape(-1) for part in found])

    try:
        return largest_curvature(gradient, kept, iterations=iterations)
    finally:
        torch.nn.utils.vector_to_parameters(kept, parameters)


@dataclass(frozen=True, slots=True)
class InverseCurvature:
    """Gradient steps at multiples of 1/L: by multiple, the validation loss and the rise of the loss on base text."""

    curvature: float
    losses: dict[float, float]
    rises: dict[float, float]
    untouched: float


def inverse_curvature_rates(
    workshop: Workshop,
    domain: str,
    multiples: Sequence[float],
    *,
    steps: int,
    batch: int,
    seed: int,
    held_out: int = 64,
) -> InverseCurvature:
    """Measure L on the first batch, then train anew at each multiple of 1/L; a run that diverged has an infinite loss."""
    from geonb.data.batches import batch_at

    training, evaluation = workshop.examples(domain, seed)
    untouched, base_text = workshop.loss(evaluation, held_out), workshop.loss(workshop.retention, 32)
    rows = [int(row) for row in batch_at(0, n_train=len(training), batch_size=batch, seed=seed)]
    with workshop.adapted("adamw", seed=seed) as matrices:
        curvature = batch_curvature(workshop, matrices, training, rows)
    losses, rises = {}, {}
    for multiple in multiples:
        with workshop.adapted("adamw", seed=seed) as matrices:
            update = gradient_steps(matrices, multiple / curvature)
            workshop.learn(training, matrices, update, steps=steps, batch=batch, seed=seed)
            loss, rise = workshop.loss(evaluation, held_out), workshop.loss(workshop.retention, 32) - base_text
            losses[multiple] = loss if math.isfinite(loss) else math.inf
            rises[multiple] = rise if math.isfinite(rise) else math.inf
    return InverseCurvature(curvature, losses, rises, untouched)
