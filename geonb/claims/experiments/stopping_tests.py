"""When the documented stopping tests fire: on a run that learns, and on one in which nothing can change any more."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from geonb.claims.experiments.short_runs import ShortRuns
from geonb.derive.context import SQRT_EPS
from geonb.geometry.measurement import Measurement
from geonb.geometry.statistics import wilson


def fires(losses: Sequence[float], threshold: float = SQRT_EPS) -> list[int]:
    """The steps at which the loss differs from the one before by less than `threshold`.

    >>> fires([3.0, 2.0, 2.0001, 1.0])
    [2]
    """
    return [step for step in range(1, len(losses)) if abs(losses[step] - losses[step - 1]) < threshold]


def share(counts: Sequence[tuple[int, int]]) -> Measurement:
    """Fired over tested of several runs together, with Wilson's interval at 95 %."""
    fired, tested = (sum(column) for column in zip(*counts, strict=True))
    return Measurement(
        value=fired / tested,
        interval=wilson(fired, tested),
        n=tested,
        null=None,
        unit="of the steps",
        operator="share of steps, Wilson",
    )


@torch.no_grad()
def frozen_losses(runs: ShortRuns, seed: int, steps: int) -> list[float]:
    """The losses of `steps` training batches of the untouched model: a run that has nothing left to learn."""
    from geonb.data.batches import batch_at
    from geonb.data.collate import pad_token
    from geonb.models.runtime import TorchRuntime
    from geonb.train.objective import forward_losses, to_tensors

    inputs = runs.inputs(seed)
    runtime = TorchRuntime.load(inputs.checkpoint, device="cpu")
    pad, found = pad_token(runtime.tokenizer), []
    for step in range(steps):
        rows = [int(row) for row in batch_at(step, n_train=len(inputs.training), batch_size=runs.batch, seed=seed)]
        losses = forward_losses(runtime.model, to_tensors(inputs.training, rows, pad, runtime.device))
        found.append(float(losses.nll.sum() / losses.count.sum()))
    return found
