"""The default against AdamW at the same steps, ranks, batches and model; run on demand.

    python tests/benchmarks/controllers.py [--data embedded:kjv] [--steps 200] [--rates 1e-3,3e-3,1e-2] [--out FILE]

Prints validation and retention loss of every arm, and the median time of a step beside PEFT + torch.optim.AdamW,
measured in turns in one process.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path

import torch

from geonb.plan import Plan, build_plan
from geonb.train import EvalEvent, Training
from geonb.train.objective import evaluate, forward_losses, to_tensors


def arm(plan: Plan, name: str, rate: float | None) -> dict:
    """Train one arm to its horizon and report its final losses."""
    controller = {**plan.controller, "name": name, **({"rate": rate} if rate is not None else {})}
    training = Training(dataclasses.replace(plan, controller=controller), device="cpu")
    # every arm makes all its steps; only its ends are compared
    training.schedule = _Quiet(training.schedule)
    started = time.perf_counter()
    for event in training.events():
        if isinstance(event, EvalEvent):
            print(f"  {name} {rate or ''} step {event.step}: {event.loss:.4f}", flush=True)
    equipment = training.equipment
    held = evaluate(equipment.model, equipment.evaluation, pad=equipment.pad, device=equipment.device)
    kept = equipment.evaluate_retention()
    ratio = max(m.factors.product_norm() / m.sigma_k for m in equipment.matrices)
    return {
        "arm": name if rate is None else f"{name} {rate:g}",
        "validation": held.loss,
        "retention": kept.loss if kept else None,
        "largest_norm_over_sigma_k": ratio,
        "seconds": time.perf_counter() - started,
    }


class _Quiet:
    """An evaluation plan without evaluations or measurements between the first and the last step."""

    def __init__(self, schedule) -> None:
        self._schedule = schedule

    measure_every = checkpoint_every = 1 << 30

    def is_due(self, step: int) -> bool:
        return False

    def __getattr__(self, name: str):
        return getattr(self._schedule, name)


def step_times(plan: Plan, steps: int = 15) -> dict:
    """Median seconds of a step of the default and of PEFT + AdamW on the same batches, in turns."""
    from peft import LoraConfig, get_peft_model

    from geonb.adapters.peft_files import adapter_config
    from geonb.models.runtime import TorchRuntime

    training = Training(plan, device="cpu")
    equipment = training.equipment
    ranks = {target.module: target.rank for target in plan.chosen()}
    known = {field.name for field in dataclasses.fields(LoraConfig)}
    config = {key: value for key, value in adapter_config(ranks, base="x").items() if key in known}
    peft_model = get_peft_model(
        TorchRuntime.load(equipment.checkpoint, device="cpu").model, LoraConfig(**{**config, "inference_mode": False})
    )
    optimizer = torch.optim.AdamW([p for p in peft_model.parameters() if p.requires_grad], lr=1e-3)
    ours, theirs = [], []
    for step in range(steps):
        rows = equipment.batch(step)
        batch = to_tensors(equipment.training, rows, equipment.pad, equipment.device)
        begun = time.perf_counter()
        for leaf in training.leaves.values():
            leaf.grad = None
        losses = forward_losses(equipment.model, batch)
        loss = losses.nll.sum() / losses.count.sum()
        loss.backward()
        equipment.controller.step(float(loss), step)
        ours.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        losses = forward_losses(peft_model, batch)
        (losses.nll.sum() / losses.count.sum()).backward()
        optimizer.step()
        theirs.append(time.perf_counter() - begun)
    ratios = [a / b for a, b in zip(ours[2:], theirs[2:], strict=True)]
    return {
        "frank_wolfe_seconds": statistics.median(ours[2:]),
        "peft_adamw_seconds": statistics.median(theirs[2:]),
        "median_paired_ratio": statistics.median(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="embedded:kjv")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rates", default="1e-3,3e-3,1e-2")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--uncalibrated", action="store_true", help="the batch of 16 instead of the derived one")
    parser.add_argument("--times", action="store_true", help="only the times of a step")
    options = parser.parse_args()
    plan = build_plan(
        "embedded", options.data, max_steps=options.steps, seed=options.seed, device="cpu",
        calibrate=not options.uncalibrated,
    )  # fmt: skip
    rows = [step_times(plan)]
    if not options.times:
        rows.append(arm(plan, "frank-wolfe", None))
        rows += [arm(plan, "adamw", float(rate)) for rate in options.rates.split(",") if rate]
    facts = {"data": options.data, "steps": options.steps, "batch": plan.batch["size"], "seed": plan.seed}
    for row in rows:
        line = json.dumps({**facts, **row})
        print(line, flush=True)
        if options.out is not None:
            with options.out.open("a") as stream:
                stream.write(line + "\n")


if __name__ == "__main__":
    main()
