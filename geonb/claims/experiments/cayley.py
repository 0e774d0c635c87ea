"""NB-LoRA in its Cayley chart with Adam's moments, or with none."""

from __future__ import annotations

from typing import Any

from geonb.claims.experiments.short_runs import ShortRun, ShortRuns, controller_of
from geonb.errors import InputError
from geonb.plan.plan import Plan
from geonb.workbench.benchmark.arm import Arm


def cayley_run(runs: ShortRuns, seed: int, *, rate: float, moments: bool, rank: str = "8") -> ShortRun:
    """Train Cayley factors of `rank` at `rate`, constant but for a ramp of 5 % and a fall to zero along a cosine.

    With `moments` the step is AdamW's (0.9, 0.999, no decay), without it is plain gradient descent. S is clipped to its
    range after every step, so the budget holds in both. Raises `InputError` for a rate that is not above 0.
    """
    if not rate > 0:
        raise InputError(f"the rate {rate} was given; allowed is any number above 0.")

    def chart(attached: Any, plan: Plan) -> None:
        import torch

        from geonb.claims.experiments.short_runs import Recipe

        del plan
        matrices, shape = controller_of(attached).matrices, Recipe(rate=rate)
        optimizer: Any = (
            torch.optim.AdamW(attached.trained, lr=rate, weight_decay=0.0)
            if moments
            else torch.optim.SGD(attached.trained, lr=rate)
        )

        def step(loss: float, number: int) -> None:
            del loss
            for group in optimizer.param_groups:
                group["lr"] = rate * shape.share(number, runs.steps)
            optimizer.step()
            for matrix in matrices:
                matrix.factors.clip()

        attached.step = step

    return runs.run(Arm(method="mass", rank=rank), seed, prepare=chart)
