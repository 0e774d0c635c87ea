"""The plan of a run: the product's own, at the batch and with the matrices that a comparison needs."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from geonb.plan.plan import Plan
from geonb.workbench.benchmark.arm import LORA, Arm


@functools.lru_cache(maxsize=8)
def plan_of(source: str, domain: str, horizon: int, batch: int, seed: int, folder: Path) -> Plan:
    """The product's plan for `horizon` steps on the files of `domain` below `folder`, but for the batch that is given."""
    from geonb.plan import build_plan
    from geonb.workbench.benchmark.domains import domain_files

    training, evaluation = domain_files(domain, seed, folder)
    plan = build_plan(
        source, training, eval_data=evaluation, max_steps=horizon, seed=seed, calibrate=False, device="cpu"
    )
    return dataclasses.replace(plan, batch={**plan.batch, "size": batch, "micro": batch, "accumulation": 1})


def with_zero_matrices(arm: Arm, plan: Plan) -> Plan:
    """`plan` with what geonb leaves out because it is all zero, for an arm that has no use for a spectrum.

    The plan's targets are every arm's, but a rival in its own library adapts a zero matrix like any other.
    """
    if arm.method not in LORA:
        return plan
    zero = [
        t for t in plan.targets if t.sigma_max == 0 and t.layer is not None and t.expert is None and min(t.shape) > 1
    ]
    full = {t.name: dataclasses.replace(t, chosen=True, rank=min(t.shape), basis="tail") for t in zero}
    return dataclasses.replace(plan, targets=tuple(full.get(t.name, t) for t in plan.targets)) if full else plan
