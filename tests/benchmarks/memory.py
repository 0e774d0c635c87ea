"""Memory of ten steps of the default, of PEFT + AdamW at the same ranks, and of full fine-tuning with AdamW; on demand.

    python -m tests.benchmarks.memory [--model embedded] [--batch 16] [--steps 10] [--repeats 3] [--out FILE]

Each arm runs in a process of its own, which first loads everything that all arms need: libraries, examples, model. What
is printed, medians over the repeats, is by how much resident memory rose above that at its peak, making the adapter
included: with every large block on pages of its own ("in_use_mib", what was needed at once) and with the allocator as it
comes, which keeps freed blocks in its heap ("resident_mib"); and what the optimiser keeps between steps ("state_mib").
Linux with glibc: the kernel's high-water mark of resident memory is set back before the first reading.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geonb.plan import Plan, build_plan
from geonb.train.objective import forward_losses, to_tensors
from geonb.workbench.benchmark.models import model_source
from tests.benchmarks.controllers import peft_adamw, with_batch

ARMS = ("frank-wolfe", "peft-adamw", "full-adamw")
MIB = 2**20


def resident(field: str) -> int:
    """VmRSS or VmHWM (its high-water mark) of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def settle() -> int:
    """Give freed blocks back, set the high-water mark to what is resident, and return that."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def with_frank_wolfe(plan: Plan, runtime: Any) -> tuple[Any, Callable, Callable]:
    """The plan's adapters put into the loaded model: the model, the step, and the tensors kept between steps."""
    from geonb.adapters.bounded import inject
    from geonb.models.checkpoint import Checkpoint
    from geonb.plan.bases import input_basis
    from geonb.train.controllers.base import TrainedMatrix
    from geonb.train.controllers.registry import make_controller, make_factors

    checkpoint = Checkpoint.open(plan.model["source"])
    refs = {ref.name: ref for ref in checkpoint.refs}
    factors, matrices = {}, []
    for target in plan.chosen():
        basis = input_basis(target, checkpoint.read(refs[target.name]).double().numpy(), plan.seed)
        factors[target.module] = made = make_factors(
            "frank-wolfe", basis=torch.tensor(basis, dtype=torch.float32), in_features=target.shape[1],
            out_features=target.shape[0], rank=target.rank, budget=target.budget,
        )  # fmt: skip
        matrices.append(
            TrainedMatrix(
                name=target.name, factors=made, budget=target.budget,
                sigma_k=target.sigma_k, sigma_max=target.sigma_max, gap_boundary=target.gap_boundary,
            )
        )  # fmt: skip
    inject(runtime.model, factors)
    controller: Any = make_controller(
        "frank-wolfe", tuple(matrices), horizon=int(plan.horizon["steps"]), batches_per_epoch=1
    )
    return runtime.model, controller.step, lambda: list(controller.state().values())


def with_adamw(model: Any, optimizer: torch.optim.Optimizer) -> tuple[Any, Callable, Callable]:
    def kept() -> list[torch.Tensor]:
        return [value for entry in optimizer.state.values() for value in entry.values() if torch.is_tensor(value)]

    return model, lambda loss, step: optimizer.step(), kept


def measure(arm: str, plan: Plan, steps: int) -> dict[str, float]:
    """One arm in this process."""
    import peft  # noqa: F401  (every arm pays for the same libraries before the first reading)

    from geonb.data.batches import batch_at
    from geonb.data.collate import pad_token
    from geonb.models.runtime import TorchRuntime
    from geonb.plan.inputs import load_inputs

    inputs = load_inputs(plan)
    runtime = TorchRuntime.load(inputs.checkpoint, device="cpu")
    pad = pad_token(runtime.tokenizer)
    # both libraries of linear algebra take buffers at their first use, which belong to no arm
    large = torch.ones(1024, 1024)
    torch.linalg.eigh(large @ large)
    np.linalg.svd(large.numpy() @ large.numpy())
    del large
    loaded = settle()
    if arm == "frank-wolfe":
        model, move, kept = with_frank_wolfe(plan, runtime)
    elif arm == "peft-adamw":
        model, move, kept = with_adamw(*peft_adamw(plan, runtime.model))
    else:
        model = runtime.model.requires_grad_(True)
        model, move, kept = with_adamw(model, torch.optim.AdamW(model.parameters(), lr=1e-3))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for step in range(steps):
        rows = batch_at(step, n_train=len(inputs.training), batch_size=int(plan.batch["size"]), seed=plan.seed)
        batch = to_tensors(inputs.training, [int(row) for row in rows], pad, runtime.device)
        for parameter in trained:
            parameter.grad = None
        losses = forward_losses(model, batch)
        loss = losses.nll.sum() / losses.count.sum()
        loss.backward()
        move(float(loss.detach()), step)
    return {
        "rise_mib": (resident("VmHWM") - loaded) / MIB,
        "state_mib": sum(tensor.numel() * tensor.element_size() for tensor in kept()) / MIB,
        "trained_mib": sum(parameter.numel() * parameter.element_size() for parameter in trained) / MIB,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="embedded, or a base model of the zero-knob benchmark")
    parser.add_argument("--data", default="embedded:kjv")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--arm", choices=ARMS, default=None, help="this one alone, in this process, with --plan")
    parser.add_argument("--plan", type=Path, default=None)
    options = parser.parse_args()
    if options.arm is not None:
        print(json.dumps(measure(options.arm, Plan.from_json(options.plan.read_text()), options.steps)))
        return
    plan = build_plan(model_source(options.model), options.data, max_steps=200, calibrate=False, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        path.write_text(with_batch(plan, options.batch).to_json())
        again = [sys.executable, "-m", "tests.benchmarks.memory", "--plan", str(path), "--steps", str(options.steps)]
        rows: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
        for _ in range(options.repeats):
            for arm in ARMS:
                found = _in_process([*again, "--arm", arm])
                in_use = _in_process([*again, "--arm", arm], MALLOC_MMAP_THRESHOLD_="65536")["rise_mib"]
                rows[arm].append({"in_use_mib": in_use, "resident_mib": found.pop("rise_mib"), **found})
    for arm, found in rows.items():
        medians = {name: round(statistics.median(row[name] for row in found), 1) for name in found[0]}
        line = json.dumps(
            {"model": options.model, "batch": options.batch, "steps": options.steps, "arm": arm, **medians}
        )
        print(line, flush=True)
        if options.out is not None:
            with options.out.open("a") as stream:
                stream.write(line + "\n")


def _in_process(command: list[str], **environment: str) -> dict[str, float]:
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
