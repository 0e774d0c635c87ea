"""A training pass that computes the logits of counted tokens alone, beside one that computes all of them; on demand.

    python -m tests.benchmarks.counted_logits [--repeats 9] [--out FILE]

Real batches of 16: `chat` counts answers only, `kjv` every token. Each on the embedded model (2,048 words) and on one with
its blocks and a random head of 32,768 words. Both ways are timed in turn in one process, and what is printed are medians:
seconds of a forward and backward pass with a LoRA of the tail's rank on every map, of one evaluation with its entropies, and MiB
by which resident memory rises at the peak of the training pass.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

import geonb.assets
from geonb.data.batches import batch_at
from geonb.data.collate import pad_token
from geonb.models.runtime import TorchRuntime
from geonb.plan import build_plan
from geonb.plan.inputs import load_inputs
from geonb.train.objective import Losses, forward_losses, to_tensors
from tests.benchmarks.controllers import peft_adamw, with_batch
from tests.benchmarks.memory import MIB, resident, settle

SETS = {name: str(Path(geonb.assets.__file__).parent / "data" / f"{name}.jsonl") for name in ("chat", "kjv")}


def all_logits(model: Any, batch: dict[str, torch.Tensor], *, with_entropy: bool = False) -> Losses:
    """The same losses from the logits of every token of the batch."""
    output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
    logits, labels = output.logits[:, :-1].float(), batch["labels"][:, 1:]
    counted = labels != -100
    nll = functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none")
    entropy = torch.zeros_like(nll)
    if with_entropy:
        logarithm = functional.log_softmax(logits, dim=-1)
        entropy = -(logarithm.exp() * logarithm).sum(-1) * counted
    return Losses(nll=nll.sum(1), entropy=entropy.sum(1), count=counted.sum(1))


def with_words(model: Any, words: int) -> Any:
    """`model` with a random head of so many words, which its own tokens are the first of."""
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(model.config.hidden_size, words, bias=False)
    head.weight.data = 0.05 * torch.randn(head.weight.shape, generator=generator)
    model.set_output_embeddings(head.requires_grad_(False))
    return model


def seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def measure(data: str, words: int, repeats: int) -> dict[str, Any]:
    """Medians of both ways on `data` with a vocabulary of `words`."""
    plan = with_batch(build_plan("embedded", SETS[data], max_steps=200, calibrate=False, device="cpu"), 16)
    inputs = load_inputs(plan)
    model = TorchRuntime.load(inputs.checkpoint, device="cpu").model
    wrapped, _ = peft_adamw(plan, model if words == 2048 else with_words(model, words))
    pad = pad_token(inputs.checkpoint.load_tokenizer())
    rows = [int(row) for row in batch_at(0, n_train=len(inputs.training), batch_size=16, seed=0)]
    batch = to_tensors(inputs.training, rows, pad, torch.device("cpu"))
    ways = {"counted": forward_losses, "all": all_logits}

    def train(losses: Callable[..., Losses]) -> None:
        losses(wrapped, batch).nll.sum().backward()

    @torch.no_grad()
    def look(losses: Callable[..., Losses]) -> None:
        losses(wrapped, batch, with_entropy=True)

    found: dict[str, dict[str, list[float]]] = {way: {"train": [], "evaluate": [], "mib": []} for way in ways}
    for _ in range(repeats + 1):
        for way, losses in ways.items():
            found[way]["train"].append(seconds(lambda losses=losses: train(losses)))
            found[way]["evaluate"].append(seconds(lambda losses=losses: look(losses)))
            before = settle()
            train(losses)
            found[way]["mib"].append((resident("VmHWM") - before) / MIB)
    # the first of each warms up
    told = {f"{way}_{key}": round(statistics.median(v[1:]), 4) for way, by in found.items() for key, v in by.items()}
    share = float((batch["labels"][:, 1:] != -100).float().mean())
    return {"data": data, "words": words, "counted_share": round(share, 3), **told}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    for data in SETS:
        for words in (2048, 32768):
            line = json.dumps(measure(data, words, chosen.repeats))
            print(line, flush=True)
            if chosen.out:
                with chosen.out.open("a") as file:
                    file.write(line + "\n")


if __name__ == "__main__":
    main()
