"""The trained model as it is shipped: bfloat16 safetensors, and the facts that say how much it learned."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geonb.assets.build.pretrain import new_model
from geonb.assets.build.sources import SOURCES
from geonb.records import atomic_write

_WINDOW = 128


def export(folder: Path, embedded: Path) -> None:
    """Write the weights of the last pretraining checkpoint into `embedded` (config, safetensors, generation config)."""
    saved = torch.load(folder / "pretrain.pt", weights_only=True)
    model: Any = new_model()
    model.load_state_dict(saved["model"])
    model.to(dtype=torch.bfloat16).save_pretrained(embedded)


def held_out_windows(folder: Path, embedded: Path, limit: int = 256) -> list[str]:
    """Up to `limit` windows of held-out pages, about 128 tokens each, spread evenly over the pages."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(embedded)
    windows = []
    for line in (folder / "held_out.jsonl").read_text().splitlines():
        text = json.loads(line)["text"]
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        for start in range(0, len(ids) - _WINDOW, _WINDOW):
            windows.append(tokenizer.decode(ids[start : start + _WINDOW - 8]))
    chosen = np.linspace(0, len(windows) - 1, min(limit, len(windows))).astype(int)
    return [windows[index] for index in chosen]


@torch.no_grad()
def _bits_per_byte(model, tokenizer, texts: list[str]) -> float:
    nats, size = 0.0, 0
    for text in texts:
        ids = torch.tensor([tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
        nats += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        # the first token is given, so its bytes do not count
        size += len(text.encode()) - len(tokenizer.decode(ids[0, :1]).encode())
    return nats / math.log(2) / size


def unigram_bits_per_byte(stream: np.ndarray, tokenizer, texts: list[str]) -> float:
    """What the frequencies of the training tokens alone reach (add-one smoothed)."""
    counts = Counter(stream.tolist())
    total = len(stream) + len(tokenizer)
    nats, size = 0.0, 0
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        nats -= sum(math.log((counts[token] + 1) / total) for token in ids[1:])
        size += len(text.encode()) - len(tokenizer.decode(ids[:1]).encode())
    return nats / math.log(2) / size


def write_facts(folder: Path, embedded: Path) -> dict:
    """Measure bits per byte on the held-out windows beside a unigram model's and a random twin's; write facts.json."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(embedded)
    texts = held_out_windows(folder, embedded)
    model = AutoModelForCausalLM.from_pretrained(embedded, dtype=torch.float32).eval()
    saved = torch.load(folder / "pretrain.pt", weights_only=True)
    facts = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": saved["step"],
        "core_minutes": round(saved["used"] / 60, 1),
        "held_out_windows": len(texts),
        "held_out_bytes": sum(len(text.encode()) for text in texts),
        "bits_per_byte": round(_bits_per_byte(model, tokenizer, texts), 4),
        "bits_per_byte_unigram": round(unigram_bits_per_byte(np.load(folder / "train.npy"), tokenizer, texts), 4),
        "bits_per_byte_random_twin": round(_bits_per_byte(new_model().eval(), tokenizer, texts), 4),
        "training_bytes": (folder / "train.txt").stat().st_size,
        "sources": [
            {"package": source.package, "licence": source.licence, "holder": source.holder} for source in SOURCES
        ],
    }
    atomic_write(embedded / "facts.json", json.dumps(facts, indent=1) + "\n")
    return facts
