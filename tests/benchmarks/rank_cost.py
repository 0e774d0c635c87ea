"""What a rank costs on a wide matrix: a training step of one square map, geonb's beside PEFT + AdamW; run on demand.

    python tests/benchmarks/rank_cost.py [--widths 512,1024,2048] [--tokens 2048] [--repeats 5] [--out FILE]

For each width n and rank r (8, 32, 128, n/4, 5n/8: about what `tail_dims` gives) prints the median milliseconds of forward,
backward and update of both at the same rank, in turns, of the frozen map alone, and of geonb's polar factor in it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from geonb.adapters.bounded import BoundedAdapter
from geonb.adapters.factors import OneSidedFactors
from geonb.train.controllers.base import TrainedMatrix
from geonb.train.controllers.frank_wolfe import FrankWolfe
from geonb.train.controllers.polar import polar_factor


class _OneMap(nn.Module):
    """A model of a single linear map, which PEFT can adapt."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, width, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.map(hidden)


def ours(width: int, rank: int) -> tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[], None]]:
    """Forward and update of a bounded adapter on one map."""
    base = _OneMap(width).requires_grad_(False).map
    factors = OneSidedFactors(torch.linalg.qr(torch.randn(width, rank)).Q.mT, width, budget=3.0)
    adapter = BoundedAdapter(base, factors)
    matrix = TrainedMatrix(name="map", factors=factors, budget=3.0, sigma_k=1.0, sigma_max=2.0)
    controller = FrankWolfe((matrix,), horizon=200)

    def update() -> None:
        controller.step(1.0, 0)
        factors.B.grad = None

    return adapter, update


def theirs(width: int, rank: int) -> tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[], None]]:
    """Forward and update of PEFT's LoRA with torch's AdamW on one map."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(_OneMap(width), LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["map"]))  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW([leaf for leaf in model.parameters() if leaf.requires_grad], lr=1e-3)

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return model, update


def frozen(width: int) -> tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[], None]]:
    """The map alone, with the gradient of its input."""
    return _OneMap(width).requires_grad_(False), lambda: None


def measure(width: int, rank: int, tokens: int, repeats: int) -> dict:
    """Median milliseconds of a step of each, in turns."""
    arms = {"frozen": frozen(width), "geonb": ours(width, rank), "peft_adamw": theirs(width, rank)}
    hidden, into = torch.randn(tokens, width, requires_grad=True), torch.randn(tokens, width)
    times: dict[str, list[float]] = {name: [] for name in (*arms, "polar")}
    moment, rooms = torch.randn(width, rank), {}
    for turn in range(repeats + 1):
        for name, (forward, update) in arms.items():
            begun = time.perf_counter()
            forward(hidden).backward(into)
            update()
            times[name].append(time.perf_counter() - begun)
            hidden.grad = None
        begun = time.perf_counter()
        polar_factor(moment, rooms)
        times["polar"].append(time.perf_counter() - begun)
        if turn == 0:  # the first pass allocates
            times = {name: [] for name in times}
    found = {name: round(1000 * statistics.median(values), 2) for name, values in times.items()}
    ratios = [a / b for a, b in zip(times["geonb"], times["peft_adamw"], strict=True)]
    return {"width": width, "rank": rank, "tokens": tokens, **found, "ratio": round(statistics.median(ratios), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", default="512,1024,2048")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    torch.manual_seed(0)
    for width in map(int, options.widths.split(",")):
        for rank in sorted({8, 32, 128, width // 4, 5 * width // 8}):
            line = json.dumps(measure(width, rank, options.tokens, options.repeats))
            print(line, flush=True)
            if options.out is not None:
                with options.out.open("a") as stream:
                    stream.write(line + "\n")


if __name__ == "__main__":
    main()
