"""An adapter as the two files that PEFT loads: adapter_config.json and adapter_model.safetensors.

lora_B = B, lora_A = A, alpha = r, so that the scale is exactly 1; ranks and alphas by matrix stand in rank_pattern and
alpha_pattern under anchored, escaped keys, because PEFT matches keys as the ends of regular expressions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from geonb._version import __version__
from geonb.adapters.serialise import safetensors_bytes
from geonb.errors import InputError
from geonb.records import atomic_write, is_file

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def adapter_config(
    ranks: Mapping[str, int],
    *,
    base: str,
    revision: str | None = None,
    transposed: bool = False,
    parameters: Mapping[str, int] | None = None,
) -> dict[str, object]:
    """The content of adapter_config.json for matrices with the given ranks; the same input gives the same bytes.

    `parameters` are 3-D parameters of experts, all of one rank: PEFT's rank_pattern answers for modules only.
    """
    from peft import LoraConfig, TaskType

    common = max((parameters or ranks).values())
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        base_model_name_or_path=base,
        revision=revision,
        r=common,
        lora_alpha=common,
        lora_dropout=0.0,
        bias="none",
        target_modules=sorted(ranks),
        target_parameters=sorted(parameters) if parameters else None,
        rank_pattern={_anchored(name): rank for name, rank in sorted(ranks.items()) if rank != common},
        alpha_pattern={_anchored(name): rank for name, rank in sorted(ranks.items()) if rank != common},
        fan_in_fan_out=transposed,
        inference_mode=True,
    ).to_dict()
    # sets have no order of their own, and a record must be the same bytes every time
    return {
        key: sorted(value) if isinstance(value, set) else getattr(value, "value", value)
        for key, value in sorted(config.items())
    }


def save_adapter(
    folder: str | Path,
    factors: Mapping[str, tuple[Tensor, Tensor]],
    *,
    base: str,
    transposed: bool = False,
    notes: Mapping[str, str] | None = None,
    parameters: Mapping[str, int] | None = None,
    parameter_tensors: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write `factors` (module path -> (B, A)) as a PEFT adapter into `folder`; both files appear whole or not at all.

    `notes` (provenance: plan digest, data digest, seed) go into the safetensors header, where any reader can see them.
    `parameters` and `parameter_tensors` are the experts' share (`geonb.adapters.experts.save_adapter` makes them).
    """
    if not factors and not parameters:
        raise InputError(
            "an adapter needs at least one matrix; the plan chose none: lower the rank limit or check the model."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = dict(parameter_tensors or {})
    for path, (left, right) in sorted(factors.items()):
        tensors[f"base_model.model.{path}.lora_A.weight"] = right.detach().to("cpu", torch.float32).contiguous().clone()
        tensors[f"base_model.model.{path}.lora_B.weight"] = left.detach().to("cpu", torch.float32).contiguous().clone()
    header = {"format": "pt", "geonb_version": __version__, **(notes or {})}
    config = adapter_config(
        {path: right.shape[0] for path, (_, right) in factors.items()},
        base=base,
        transposed=transposed,
        parameters=parameters,
    )
    atomic_write(folder / WEIGHTS, safetensors_bytes(tensors, header))
    atomic_write(folder / CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")
    return folder


def load_factors(folder: str | Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Read back what `save_adapter` wrote: module path -> (B, A), float32.

    Raises `InputError` where the folder has no readable safetensors adapter, or where a factor is there without the other.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(folder) / WEIGHTS
    if not is_file(path):
        raise InputError(f"{folder} holds no {WEIGHTS}: give the folder of a PEFT adapter.")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file ({error}): copy or save the adapter again."
        ) from None
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for key in sorted(tensors):
        if key.endswith(".lora_A.weight"):
            name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            other = tensors.get(key.removesuffix(".lora_A.weight") + ".lora_B.weight")
            if other is None:
                raise InputError(f"{path} holds lora_A of {name[:200]!r} and no lora_B: save the adapter again.")
            pairs[name] = (other, tensors[key])
    return pairs


def _anchored(name: str) -> str:
    return f"^{re.escape(name)}$"
