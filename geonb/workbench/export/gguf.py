"""A merged model as one GGUF file of the architecture `llama`, for llama.cpp and what is built on it.

Tensors get llama.cpp's names. The rows of q and k change their order, because llama.cpp rotates neighbouring pairs
(2i, 2i+1) where transformers rotates the halves (i, i + d/2): within each head, row (half, i) moves to (i, half).
Vectors (norms, biases) stay float32; matrices are F16, F32, Q8_0 or Q4_0, and F16 where a row is no multiple of 32.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.workbench.export.folder import quiet
from geonb.workbench.export.gap import Logits
from geonb.workbench.export.gguf_tokenizer import read_tokenizer, write_tokenizer
from geonb.workbench.export.source import Source
from geonb.workbench.export.target import STORED, Target, require, transformers_logits
from geonb.workbench.export.weights import MergedWeights

FILE = "model.gguf"
_KINDS = {16: "F16", 8: "Q8_0", 4: "Q4_0", 32: "F32"}
_FAMILIES = ("llama", "mistral")
_BLOCK = 32  # entries of a row that share a scale in Q8_0 and Q4_0


def _check(checkpoint: Checkpoint, bits: int | None) -> None:
    require("gguf", extra="gguf", target="gguf")
    config = checkpoint.config
    given = f"{checkpoint.source} ({checkpoint.model_type or 'of an unknown architecture'})"
    if checkpoint.model_type not in _FAMILIES:
        raise InputError(
            f"{given} cannot be written as gguf here; allowed are {' and '.join(_FAMILIES)}: export merged_bf16 and use "
            "llama.cpp's own converter."
        )
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    window, context = config.get("sliding_window"), checkpoint.context_length or 0
    if kind != "default" or (window and window < context) or config.get("hidden_act", "silu") != "silu":
        what = f"rope {kind!r}, sliding window {window}, activation {config.get('hidden_act', 'silu')!r}"
        raise InputError(
            f"{given} has {what}; allowed for gguf are plain rope, no window within its context, and silu: export "
            "merged_bf16 and use llama.cpp's own converter."
        )
    read_tokenizer(checkpoint)


def permute_heads(values: Any, heads: int) -> Any:
    """Rows of q or k, (heads * d, ...), from the order (head, half, i) to llama.cpp's (head, i, half).

    >>> permute_heads(np.arange(8), heads=2)
    array([0, 2, 1, 3, 4, 6, 5, 7])
    """
    split = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return split.swapaxes(1, 2).reshape(values.shape)


def _write(source: Source, folder: Path, bits: int | None, progress: Callable[[str], None]) -> tuple[str, ...]:
    from gguf import GGUFWriter
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType
    from gguf.quants import quant_shape_to_byte_shape, quantize

    checkpoint, kind = source.checkpoint, _KINDS[bits or 16]
    weights = MergedWeights(checkpoint, source.changes, dtype="float32")
    names, shapes = _names(weights, checkpoint), weights.shapes
    with quiet():
        writer = GGUFWriter(str(folder / FILE), "llama")
        _write_config(writer, checkpoint, "with adapter" if source.changes else f"in {bits or 16} bits")
        files = {"F16": "MOSTLY_F16", "F32": "ALL_F32", "Q8_0": "MOSTLY_Q8_0", "Q4_0": "MOSTLY_Q4_0"}
        writer.add_file_type(LlamaFileType[files[kind]])
        if kind.startswith("Q"):
            writer.add_quantization_version(2)
        write_tokenizer(writer, checkpoint)
        types: dict[str, Any] = {}
        for stored, name in names.items():
            shape = shapes[stored]
            types[stored] = GGMLQuantizationType[_kind_of(shape, kind)]
            block, size = GGML_QUANT_SIZES[types[stored]]
            nbytes = int(np.prod(shape)) // block * size
            floats = np.dtype(np.float16 if types[stored].name == "F16" else np.float32)
            if types[stored].name.startswith("Q"):
                shape = quant_shape_to_byte_shape(shape, types[stored])
                floats = np.dtype(np.uint8)
            writer.add_tensor_info(name, shape, floats, nbytes, raw_dtype=types[stored])
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for stored, name in names.items():
                progress(f"write {name}")
                writer.write_tensor_data(quantize(_values(weights, checkpoint, stored, types[stored]), types[stored]))
        finally:
            writer.close()
    plain = [stored for stored in names if len(shapes[stored]) == 2 and types[stored].name != kind]
    notes = [f"{len(plain)} matrices stay F16: their rows are no multiple of {_BLOCK}"] if plain else []
    if weights.unties_head:
        notes.append("the head was tied to the embedding and is now its own tensor")
    return (*notes, "read back by transformers through the gguf package; llama.cpp itself was not run")


def _names(weights: MergedWeights, checkpoint: Checkpoint) -> dict[str, str]:
    """llama.cpp's name of every stored tensor that it has one for; a stored rotation table has none and needs none."""
    from gguf.constants import MODEL_ARCH
    from gguf.tensor_mapping import get_tensor_name_map

    table = get_tensor_name_map(MODEL_ARCH.LLAMA, int(checkpoint.config["num_hidden_layers"]))
    found: dict[str, str] = {}
    tied = bool(checkpoint.config.get("tie_word_embeddings")) and not weights.unties_head
    for stored in weights.shapes:
        if stored.endswith("rotary_emb.inv_freq") or (tied and stored == "lm_head.weight"):
            continue
        name = table.get_name(stored, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise InputError(f"llama.cpp has no name for the tensor {stored!r}: export merged_bf16 instead.")
        found[stored] = name
    return found


def _kind_of(shape: tuple[int, ...], kind: str) -> str:
    if len(shape) < 2:
        return "F32"
    return "F16" if kind.startswith("Q") and shape[-1] % _BLOCK else kind


def _values(weights: MergedWeights, checkpoint: Checkpoint, stored: str, kind: Any) -> np.ndarray:
    """One tensor in llama.cpp's order; float16 straight from the merged float64, float32 for all else."""
    if kind.name == "F16":
        weights.dtype = "float16"
    values = weights.read(stored).numpy()
    weights.dtype = "float32"
    heads = int(checkpoint.config["num_attention_heads"])
    if ".q_proj." in stored:
        values = permute_heads(values, heads)
    elif ".k_proj." in stored:
        values = permute_heads(values, int(checkpoint.config.get("num_key_value_heads") or heads))
    return np.ascontiguousarray(values)


def _write_config(writer: Any, checkpoint: Checkpoint, what: str) -> None:
    config = checkpoint.config
    heads, width = int(config["num_attention_heads"]), int(config["hidden_size"])
    size = int(config.get("head_dim") or width // heads)
    rope = config.get("rope_parameters") or {}
    # transformers takes a file whose name is exactly "mistral" for another architecture
    writer.add_name(f"{checkpoint.name} {what}")
    writer.add_vocab_size(int(config["vocab_size"]))
    writer.add_context_length(int(checkpoint.context_length or 2048))
    writer.add_embedding_length(width)
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0))
    writer.add_layer_norm_rms_eps(float(config.get("rms_norm_eps", 1e-6)))


def _reload(source: Source, folder: Path) -> Iterator[tuple[str, Logits]]:
    import torch
    from transformers import AutoModelForCausalLM

    # its bar asks nobody whether it may be shown
    with quiet(), contextlib.redirect_stderr(io.StringIO()):
        model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=FILE, dtype=torch.float32, trust_remote_code=False, local_files_only=True
        )
    yield STORED, transformers_logits(model, source.device)


TARGET = Target(
    name="gguf",
    loader="transformers",
    precision=lambda checkpoint, bits: {16: "float16", 32: "float32", 8: "int8", 4: "int4"}[bits or 16],
    check=_check,
    write=_write,
    reload=_reload,
    bits=(16, 8, 4, 32),
)
