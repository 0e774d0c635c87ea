"""Tiny random checkpoints of every architecture that geonb names, with the embedded tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from geonb.assets import embedded_model_folder

_COMMON = {"vocab_size": 2048, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
_MODERN = {
    **_COMMON,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
_OLDER = {**_MODERN}
del _OLDER["num_key_value_heads"]

# family -> (config class, model class, arguments)
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", _MODERN),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", _MODERN),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {**_MODERN, "head_dim": 16}),
    "mistral": ("MistralConfig", "MistralForCausalLM", _MODERN),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", {**_MODERN, "head_dim": 16}),
    "phi": ("PhiConfig", "PhiForCausalLM", _OLDER),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", _MODERN),
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {**_COMMON, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
    ),
    "gpt_neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", _OLDER),
    "mixtral": (
        "MixtralConfig",
        "MixtralForCausalLM",
        {**_MODERN, "num_local_experts": 3, "num_experts_per_tok": 2},
    ),
    "lfm2": (
        "Lfm2Config",
        "Lfm2ForCausalLM",
        {**_MODERN, "layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    ),
    "bert": ("BertConfig", "BertModel", {**_OLDER, "bos_token_id": None}),
}
CAUSAL = [family for family in FAMILIES if family != "bert"]


def write_tiny(family: str, folder: Path, **changes: Any) -> Path:
    """Save a random two-layer model of `family` into `folder`, always the same bytes, and return the folder."""
    import torch
    import transformers

    config_name, model_name, arguments = FAMILIES[family]
    config = getattr(transformers, config_name)(**{**arguments, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(len(family))
        model = getattr(transformers, model_name)(config)
        # some families start their output maps at zero; a trained model has none
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                torch.nn.init.normal_(parameter, std=0.08)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((embedded_model_folder() / name).read_bytes())
    return folder
