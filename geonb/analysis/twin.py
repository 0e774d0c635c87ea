"""The random twin: the same architecture with the weights that its own initialiser draws, the null of every trained model."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from typing import Any

from geonb.analysis.opened import open_model
from geonb.errors import InputError


def random_twin(model: Any, seed: int = 0, *, device: str = "auto") -> Any:
    """A model of `model`'s config with the weights of its own initialiser, drawn with `seed`; equal seeds, equal weights.

    Takes what `collect` takes and gives a `TorchRuntime` (with the same tokenizer) for a source, `Checkpoint` or
    `TorchRuntime`, and a plain model for a plain model. torch's global generator is left as it was. The drawn weights
    have the dtype and device of the original. Raises `InputError` for a model without a transformers config.

    >>> random_twin("embedded", 1).checkpoint.source  # doctest: +SKIP
    'embedded'
    """
    import torch
    from transformers import AutoModelForCausalLM

    from geonb.models.checkpoint import Checkpoint
    from geonb.models.runtime import TorchRuntime

    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"the seed {seed!r} was given; allowed are whole numbers from 0 on.")
    if not isinstance(model, TorchRuntime | torch.nn.Module):
        source = model if isinstance(model, Checkpoint) else Checkpoint.open(model)
        model = TorchRuntime.load(source, device=device)
    opened = open_model(model)
    original = opened.model
    config = getattr(original, "config", None)
    if not hasattr(config, "model_type"):
        raise InputError(f"{type(original).__name__} has no transformers config: give a transformers model.")
    first = next(original.parameters())
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.manual_seed(seed)
        drawn: Any = AutoModelForCausalLM.from_config(copy.deepcopy(config), trust_remote_code=False)
    drawn = drawn.to(device=first.device, dtype=first.dtype).eval().requires_grad_(False)
    return dataclasses.replace(model, model=drawn) if isinstance(model, TorchRuntime) else drawn
