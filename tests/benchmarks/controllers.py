"""The default against AdamW at the same steps, ranks, batches and model; run on demand.

    python tests/benchmarks/controllers.py [--data embedded:kjv] [--steps 200] [--rates 1e-3,3e-3,1e-2] [--out FILE]
    python tests/benchmarks/controllers.py --times [--model llama-1m] [--batch 8] [--repeats 3]

Prints validation and retention loss of every arm, and the median time of a step beside PEFT + torch.optim.AdamW,
measured in turns in one process: forward and backward ("pass") and the optimiser ("step"), wall and processor time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from geonb.models.runtime import TorchRuntime
from geonb.plan import Plan, build_plan
from geonb.train import EvalEvent, Training
from geonb.train.objective import evaluate, forward_losses, to_tensors
from geonb.workbench.benchmark.models import model_source


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


def with_batch(plan: Plan, size: int) -> Plan:
    """`plan` with batches of `size` examples, each in one piece."""
    return dataclasses.replace(plan, batch={**plan.batch, "size": size, "micro": size, "accumulation": 1})


def peft_adamw(plan: Plan, model: Any) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """PEFT's LoRA at the ranks of `plan` on `model`, and torch's AdamW over its factors."""
    from peft import LoraConfig, get_peft_model

    from geonb.adapters.peft_files import adapter_config

    ranks = {target.module: target.rank for target in plan.chosen()}
    known = {field.name for field in dataclasses.fields(LoraConfig)}
    config = {key: value for key, value in adapter_config(ranks, base="x").items() if key in known}
    wrapped = get_peft_model(model, LoraConfig(**{**config, "inference_mode": False}))
    return wrapped, torch.optim.AdamW([p for p in wrapped.parameters() if p.requires_grad], lr=1e-3)


class _Clock:
    """Wall and processor seconds between two readings: neighbours on a shared machine stretch only the first."""

    def __init__(self) -> None:
        self.at = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        before, self.at = self.at, (time.perf_counter(), time.process_time())
        return self.at[0] - before[0], self.at[1] - before[1]


def step_times(plan: Plan, steps: int = 25) -> dict:
    """Median seconds of a step of the default and of PEFT + AdamW on the same batches, in turns."""
    training = Training(plan, device="cpu")
    equipment = training.equipment
    peft_model, optimizer = peft_adamw(plan, TorchRuntime.load(equipment.checkpoint, device="cpu").model)
    parts = ("our_pass", "our_step", "peft_pass", "peft_step")
    taken: dict[str, list[tuple[float, float]]] = {part: [] for part in parts}
    for step in range(steps):
        rows = equipment.batch(step)
        batch = to_tensors(equipment.training, rows, equipment.pad, equipment.device)
        clock = _Clock()
        for leaf in training.leaves.values():
            leaf.grad = None
        losses = forward_losses(equipment.model, batch)
        loss = losses.nll.sum() / losses.count.sum()
        loss.backward()
        taken["our_pass"].append(clock.read())
        equipment.controller.step(float(loss.detach()), step)
        taken["our_step"].append(clock.read())
        optimizer.zero_grad(set_to_none=True)
        losses = forward_losses(peft_model, batch)
        (losses.nll.sum() / losses.count.sum()).backward()
        taken["peft_pass"].append(clock.read())
        optimizer.step()
        taken["peft_step"].append(clock.read())
    found: dict = {}
    for at, kind in enumerate(("wall", "processor")):
        columns = {part: [reading[at] for reading in taken[part][3:]] for part in parts}
        ratios = [(a + b) / (c + d) for a, b, c, d in zip(*columns.values(), strict=True)]
        found[kind] = {f"{part}_ms": round(1e3 * statistics.median(column), 1) for part, column in columns.items()}
        found[kind]["median_paired_ratio"] = round(statistics.median(ratios), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="embedded, or a base model of the zero-knob benchmark")
    parser.add_argument("--data", default="embedded:kjv")
    parser.add_argument("--batch", type=int, default=None, help="examples a batch instead of the derived number")
    parser.add_argument("--repeats", type=int, default=1, help="how often the times are taken")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rates", default="1e-3,3e-3,1e-2")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--uncalibrated", action="store_true", help="the batch of 16 instead of the derived one")
    parser.add_argument("--times", action="store_true", help="only the times of a step")
    options = parser.parse_args()
    plan = build_plan(
        model_source(options.model), options.data, max_steps=options.steps, seed=options.seed, device="cpu",
        calibrate=options.batch is None and not options.uncalibrated,
    )  # fmt: skip
    if options.batch is not None:
        plan = with_batch(plan, options.batch)
    rows = [step_times(plan) for _ in range(options.repeats)]
    if not options.times:
        rows.append(arm(plan, "frank-wolfe", None))
        rows += [arm(plan, "adamw", float(rate)) for rate in options.rates.split(",") if rate]
    facts = {
        "model": options.model,
        "data": options.data,
        "steps": options.steps,
        "batch": plan.batch["size"],
        "seed": plan.seed,
    }
    for row in rows:
        line = json.dumps({**facts, **row})
        print(line, flush=True)
        if options.out is not None:
            with options.out.open("a") as stream:
                stream.write(line + "\n")


if __name__ == "__main__":
    main()
