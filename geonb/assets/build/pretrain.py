"""Pretraining of a small model on one core: resumable, logged, and the same to the bit for the same corpus and library."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geonb.assets.build.tokenizer import CONTEXT, VOCABULARY
from geonb.errors import InputError

SEED = 20260721
WINDOW, BATCH = 128, 16
PEAK_RATE, WEIGHT_DECAY = 3e-3, 0.05
STEPS = 5000  # of the embedded model: 40 minutes on one core


def new_model():
    """The architecture: a Llama of 3.28 million parameters with grouped-query attention and tied embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        initializer_range=0.02,
    )
    torch.manual_seed(SEED)
    return LlamaForCausalLM(config)


def token_stream(folder: Path, tokenizer_folder: Path) -> np.ndarray:
    """The training corpus as one array of token ids, cached beside the corpus."""
    cached = folder / "train.npy"
    if cached.is_file():
        return np.load(cached)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    documents = (folder / "train.txt").read_text().split("\n\n")
    pieces = []
    for start in range(0, len(documents), 64):
        for ids in tokenizer(documents[start : start + 64], add_special_tokens=False, verbose=False)["input_ids"]:
            pieces.append(np.array([*ids, tokenizer.eos_token_id], dtype=np.int16))
    stream = np.concatenate(pieces)
    np.save(cached, stream)
    return stream


def pretrain(
    folder: Path,
    tokenizer_folder: Path,
    *,
    steps: int = STEPS,
    make: Callable[[], Any] = new_model,
    name: str = "pretrain",
    log_every: int = 50,
    save_every: float = 120.0,
    progress: Callable[[int, int, float], None] | None = None,
) -> Path:
    """Train what `make` makes for `steps` steps, going on from the checkpoint `name` in `folder` if it is there.

    The rate is warmed up over 100 steps, held, and falls to zero over the last quarter. Batches and rate are functions of
    the step, and one thread adds in one order: an interrupted run ends with the bits of one that was not, and so does a
    run on another day. The checkpoint is written every `save_every` seconds, and carries the process time used so far.
    `progress(step, steps, loss)` is called after every step. Raises `InputError` for a checkpoint of a run of another length.
    """
    stream = token_stream(folder, tokenizer_folder)
    model = make()
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}],
        lr=PEAK_RATE,
        betas=(0.9, 0.95),
    )
    path, first, used = folder / f"{name}.pt", 0, 0.0
    if path.is_file():
        saved = torch.load(path, weights_only=True)
        if saved.get("of") != steps:
            raise InputError(
                f"{path} is of a run of {saved.get('of', 'an unknown number of')} steps, and {steps} were asked for: its rates "
                "were others. Remove it, or give its number."
            )
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first, used = saved["step"], saved["used"]
    begun, last_saved = time.process_time(), time.monotonic()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model.train()
    try:
        for step in range(first, steps):
            rate = rate_at(step, steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            starts = np.random.default_rng((SEED, step)).integers(0, len(stream) - WINDOW - 1, BATCH)
            rows = np.stack([stream[start : start + WINDOW + 1] for start in starts]).astype(np.int64)
            tokens = torch.from_numpy(rows)
            logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            done, elapsed, value = step + 1, used + time.process_time() - begun, loss.item()
            if not math.isfinite(value):
                raise RuntimeError(f"the loss of pretraining step {done} is {value}")
            if progress is not None:
                progress(done, steps, value)
            if done % log_every == 0:
                said = {"step": done, "of": steps, "seconds": round(elapsed, 1), "loss": value, "rate": rate}
                with (folder / f"{name}.jsonl").open("a") as log:
                    log.write(json.dumps(said) + "\n")
            if done == steps or time.monotonic() - last_saved >= save_every:
                _save(path, model, optimizer, step=done, of=steps, used=elapsed)
                last_saved = time.monotonic()
    finally:
        torch.set_num_threads(threads)
    return path


def rate_at(step: int, steps: int) -> float:
    """The learning rate of the step after `step` of `steps`: up over 100, level, and to zero over the last quarter."""
    share = step / steps
    return PEAK_RATE * min(1.0, (step + 1) / 100) * (1.0 if share < 0.75 else (1 - share) / 0.25)


def _save(path: Path, model, optimizer, **progress: float) -> None:
    part = path.with_suffix(".part")
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), **progress}, part)
    part.replace(path)
