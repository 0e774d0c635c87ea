"""Out of the coordinate model: its base as a Hugging Face Llama, and a fixed coordinate as a PEFT LoRA on it.

For a fixed theta dW(theta) = (U M(theta)) V^T is an ordinary LoRA of rank r with B = U M, A = V^T and scale 1, so everything
that reads adapters reads a style: spectra, audit, merging, PEFT itself.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from geonb.coordinates.configuration import TARGETS
from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.modulated_linear import SharedFactors
from geonb.coordinates.phases import weights_of
from geonb.errors import InputError

_PLACES = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "gate": "mlp.gate_proj"}


def llama_state(model: CoordinateModel) -> dict[str, Tensor]:
    """The base weights under the names of a Llama checkpoint; a block that is used twice stands there twice."""
    state = {"model.embed_tokens.weight": model.embedding.weight, "model.norm.weight": model.norm.weight}
    if model.output is not None:
        state["lm_head.weight"] = model.output.weight
    for number, layer in enumerate(model.uses):
        place, block = f"model.layers.{number}", layer.block
        state[f"{place}.input_layernorm.weight"] = layer.attention_norm.weight
        state[f"{place}.post_attention_layernorm.weight"] = layer.feed_forward_norm.weight
        state[f"{place}.self_attn.o_proj.weight"] = block.o.weight
        state[f"{place}.mlp.up_proj.weight"] = block.up.weight
        state[f"{place}.mlp.down_proj.weight"] = block.down.weight
        for name in TARGETS:
            state[f"{place}.{_PLACES[name]}.weight"] = getattr(block, name).weight
    return {name: one.detach().float().cpu().contiguous().clone() for name, one in state.items()}


def llama_config(model: CoordinateModel) -> dict[str, object]:
    """config.json of the same base."""
    sizes = model.sizes
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": sizes.vocabulary,
        "hidden_size": sizes.width,
        "intermediate_size": sizes.feed_forward,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.key_value_heads,
        "head_dim": sizes.head_width,
        "max_position_embeddings": sizes.context,
        "rms_norm_eps": sizes.norm_epsilon,
        "rope_theta": sizes.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": sizes.rope_base},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": sizes.tied,
        "torch_dtype": "float32",
    }


def export_base(model: CoordinateModel, folder: str | Path, *, tokenizer: str | Path | None = None) -> Path:
    """Write the base as a Hugging Face folder that does not exist yet, whole or not at all; `tokenizer` is a folder to copy from.

    Without coordinates the exported model says what `model(tokens, modulate=False)` says. Raises `InputError` where the folder
    is there.
    """
    from safetensors.torch import save_file

    target = Path(folder)
    if target.exists():
        raise InputError(f"{target} is there; allowed is a folder that is not: give another, or remove it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as made:
        work = Path(made) / "model"
        work.mkdir()
        save_file(llama_state(model), work / "model.safetensors", metadata={"format": "pt"})
        (work / "config.json").write_text(json.dumps(llama_config(model), indent=2) + "\n", encoding="utf-8")
        for file in sorted(Path(tokenizer).glob("*token*")) if tokenizer is not None else ():
            shutil.copyfile(file, work / file.name)
        work.rename(target)
    return target


@torch.no_grad()
def style_factors(model: CoordinateModel, phases: list[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """(B, A) of every modulated matrix at one coordinate, by its module name in the exported base; B = U M within the budget.

    `phases` is one (pairs,) a layer, as `Directions.phases(theta)` gives for a theta of (coordinates,). Raises `InputError` for
    literal factors, whose change has a rank of 2 m r.
    """
    found = {}
    for number, (layer, one) in enumerate(zip(model.uses, phases, strict=True)):
        for name, linear in layer.changes.items():
            factors = linear.factors
            if not isinstance(factors, SharedFactors):
                raise InputError(
                    f"{model.sizes.name} has literal factors, whose change is of full rank; a LoRA needs shared factors."
                )
            core = linear.bounded_core(weights_of(one))
            found[f"model.layers.{number}.{_PLACES[name]}"] = (factors.left @ core, factors.right.T.contiguous())
    return found


def export_style(model: CoordinateModel, theta: Tensor, folder: str | Path, *, base: str | Path) -> Path:
    """The LoRA of the coordinate `theta` (coordinates,) as a PEFT adapter in a new folder; `base` is the exported base model.

    Raises `InputError` where the folder is there, or where theta has another length.
    """
    from geonb.adapters.peft_files import save_adapter

    if theta.shape != (model.sizes.coordinates,):
        raise InputError(f"a theta of shape {tuple(theta.shape)} was given; allowed is ({model.sizes.coordinates},).")
    target = Path(folder)
    if target.exists():
        raise InputError(f"{target} is there; allowed is a folder that is not: give another, or remove it.")
    factors = style_factors(model, [layer.directions.phases(theta) for layer in model.uses])
    target.mkdir(parents=True)
    try:
        save_adapter(target, factors, base=str(base))
    except BaseException:
        shutil.rmtree(target)
        raise
    return target
