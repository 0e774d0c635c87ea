"""Fine-tuning under one, two or three penalties, and the test for a trend over ordered levels."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geonb.adapters.bounded import BoundedAdapter, disabled
from geonb.claims.experiments.short_training import Workshop
from geonb.data.example import Example
from geonb.errors import InputError
from geonb.train.controllers.base import TrainedMatrix
from geonb.train.controllers.registry import make_controller
from geonb.train.objective import to_tensors

PENALTIES = ("weight change", "orthonormal rows", "base text")


def weight_change(matrices: Sequence[TrainedMatrix]) -> Tensor:
    """sum ||B A||_F^2 over the matrices, by the r x r Gram matrices."""
    pairs = (matrix.factors() for matrix in matrices)
    return torch.stack([((left.mT @ left) * (right @ right.mT)).sum() for left, right in pairs]).sum()


def orthonormal_rows(matrices: Sequence[TrainedMatrix]) -> Tensor:
    """sum ||A A' / c - I||_F^2 over the matrices, c the mean squared length of A's rows."""
    found = []
    for matrix in matrices:
        gram = (right := matrix.factors()[1]) @ right.mT
        found.append((gram / gram.diagonal().mean() - torch.eye(len(gram))).square().sum())
    return torch.stack(found).sum()


def base_divergence(workshop: Workshop, examples: Sequence[Example], rows: Sequence[int]) -> Tensor:
    """Mean KL(base model || adapted model) of the next token on the rows of base text, nats a token."""
    batch = to_tensors(examples, rows, workshop.pad, workshop.runtime.device)
    del batch["labels"]
    adapters = {name: one for name, one in workshop.model.named_modules() if isinstance(one, BoundedAdapter)}
    with torch.no_grad(), disabled(adapters):
        base = workshop.model(**batch, use_cache=False).logits.float().log_softmax(-1)
    adapted = workshop.model(**batch, use_cache=False).logits.float().log_softmax(-1)
    divergence = (base.exp() * (base - adapted)).sum(-1)
    return (divergence * batch["attention_mask"]).sum() / batch["attention_mask"].sum()


@dataclass(frozen=True, slots=True)
class Penalised:
    """One run: the losses that it ends with, and the value of each penalty there (in the order of `PENALTIES`)."""

    validation: float
    training: float  # mean over the last quarter of the batches
    base_text: float
    values: tuple[float, ...]


def penalised_run(
    workshop: Workshop,
    examples: Sequence[Example],
    evaluation: Sequence[Example],
    *,
    count: int,
    weight: float,
    units: Sequence[float],
    steps: int,
    batch: int,
    seed: int,
    rate: float = 1e-2,
    held_out: int = 48,
) -> Penalised:
    """AdamW on LoRA factors with the first `count` penalties, each divided by its unit and times `weight`.

    The base text that the divergence is taken on and the one that is measured are different records. Raises `InputError`
    for a count that is not 0 to 3, and for a unit that is not above 0.
    """
    if not 0 <= count <= len(PENALTIES) or len(units) != len(PENALTIES) or min(units) <= 0:
        raise InputError(
            f"{count} penalties with the units {list(units)} were given; allowed are 0 to 3, units above 0."
        )
    half = len(workshop.retention) // 2
    shown = [_cut(one) for one in workshop.retention[:half]]
    with workshop.adapted("adamw", seed=seed) as matrices:
        made = make_controller("adamw", matrices, horizon=steps, rate=rate)
        turn = itertools.count()

        def parts(several: bool) -> list[Callable[[], Tensor]]:
            rows = [next(turn) % half] if not several else list(range(min(4, half)))
            return [
                lambda: weight_change(matrices),
                lambda: orthonormal_rows(matrices),
                lambda: base_divergence(workshop, shown, rows),
            ]

        def penalty() -> Tensor:
            chosen = zip(parts(False)[:count], units, strict=False)
            return weight * torch.stack([part() / unit for part, unit in chosen]).sum()

        losses = workshop.learn(
            examples, matrices, made.step, steps=steps, batch=batch, seed=seed, penalty=penalty if count else None
        )
        with torch.no_grad():
            values = tuple(float(part()) for part in parts(True))
        return Penalised(
            validation=workshop.loss(evaluation, held_out),
            training=float(np.mean(losses[-max(1, steps // 4) :])),
            base_text=workshop.loss(workshop.retention[half:], 12),
            values=values,
        )


def _cut(example: Example, length: int = 48) -> Example:
    return dataclasses.replace(
        example,
        input_ids=example.input_ids[:length],
        loss_mask=example.loss_mask[:length],
        prompt_ids=example.prompt_ids[:8],
    )


def page_trend(table: Sequence[Sequence[float]], *, resamples: int = 20000, seed: int = 0) -> tuple[float, float]:
    """Page's L for increasing levels, and its one-sided p by permutation of the levels within each row.

    `table` is (rows, levels): one row a seed. L = sum over levels j = 1.. of j times the sum of the ranks in column j.

    >>> page_trend([[1, 2, 3], [1, 2, 3], [1, 2, 3]])[0]
    42.0
    """
    from scipy.stats import rankdata

    values = np.asarray(table, dtype=float)
    if values.ndim != 2 or values.shape[1] < 3 or values.shape[0] < 2 or not np.isfinite(values).all():
        raise InputError(
            f"a trend was asked of a table {values.shape}; allowed are finite figures, 2 rows, 3 levels or more."
        )
    ranks = np.apply_along_axis(rankdata, 1, values)
    weights = np.arange(1, values.shape[1] + 1)
    rng = np.random.default_rng(seed)
    observed = float((ranks @ weights).sum())
    null = np.zeros(resamples)
    for row in ranks:
        null += rng.permuted(np.tile(row, (resamples, 1)), axis=1) @ weights
    return observed, float((1 + (null >= observed - 1e-9).sum()) / (1 + resamples))
