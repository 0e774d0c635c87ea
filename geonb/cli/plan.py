"""`geonb plan`: every number of a run and the reason for it, before anything is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geonb.cli import options
from geonb.cli.output import answer, prints
from geonb.cli.progress import StageLine

if TYPE_CHECKING:
    import geonb.plan.plan


@prints
def plan(
    model: str = options.MODEL,
    data: str = options.DATA,
    output: str | None = options.OUTPUT,
    eval_data: str | None = options.EVAL_DATA,
    seed: int | None = options.SEED,
    seq_length: int | None = options.SEQ_LENGTH,
    max_steps: int | None = options.MAX_STEPS,
    epochs: int | None = options.EPOCHS,
    controller: str = options.CONTROLLER,
    basis: str = options.BASIS,
    budget: str = options.BUDGET,
    sides: str = options.SIDES,
    memory_budget: str | None = options.MEMORY_BUDGET,
    max_rank: int | None = options.MAX_RANK,
    rank_rule: str = options.RANK_RULE,
    exclude_roles: str | None = options.EXCLUDE_ROLES,
    target_experts: str | None = options.TARGET_EXPERTS,
    entropy_reg: bool = options.ENTROPY_REG,
    topo_monitor: bool = options.TOPO_MONITOR,
    dim_monitor: bool = options.DIM_MONITOR,
    benchmark: str | None = options.BENCHMARK,
    device: str = options.DEVICE,
    json: bool = options.AS_JSON,
) -> geonb.plan.plan.Plan:
    """Derive the whole training plan of MODEL on DATA and say why each number is what it is."""
    from geonb.plan.build import build_plan

    with StageLine(enabled=not json) as progress:
        made = build_plan(
            model,
            data,
            output=output,
            eval_data=eval_data,
            seed=seed,
            seq_length=seq_length,
            max_steps=max_steps,
            epochs=epochs,
            controller=controller,
            basis=basis,
            budget=budget,
            sides=sides,
            memory_budget=memory_budget,
            max_rank=max_rank,
            rank_rule=rank_rule,
            exclude_roles=exclude_roles,
            target_experts=target_experts,
            entropy_reg=entropy_reg,
            topo_monitor=topo_monitor,
            dim_monitor=dim_monitor,
            benchmark=benchmark,
            device=device,
            progress=progress,
        )
    return answer(made, as_json=json)
