"""A merged model with weight-only int8 or int4 matrices, quantised by torchao and loaded by transformers.

int8 has one scale a row (symmetric), which is the default because it is both smaller and closer than what torchao
offers beside it. Measured on the embedded model with an adapter of 60 steps on embedded:kjv, on the 16 shipped retention
texts (base 6.56 MB, of which 1.05 MB are the tied embedding, which stays bfloat16):

    int8, a scale a row          4.00 MB   logit gap 0.35   mean KL 3.2e-4 nats   same token 0.989
    int4, groups of 32           4.21 MB   logit gap 0.92   mean KL 2.0e-2 nats   same token 0.888

int4 (asymmetric groups of 32: without the adapter its KL was 9.5e-3, against 1.3e-2 symmetric and 1.1e-2 with HQQ's
scales) serves where a kernel packs it on loading; torchao's packed int4 tensors exist for accelerators alone, and the
file here holds a byte an entry. For a small file on a CPU, gguf with 8 or 4 bits has 3.55 and 1.91 MB.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.workbench.export.folder import copy_companions, quiet
from geonb.workbench.export.gap import Logits
from geonb.workbench.export.merged import write_merged
from geonb.workbench.export.source import Source
from geonb.workbench.export.target import SERVED, STORED, Target, require, transformers_logits

_GROUP = 32  # of int4: entries of a row that share a scale


def _check(checkpoint: Checkpoint, bits: int | None) -> None:
    require("torchao", extra="torchao", target="deployment_quantized")
    from torch import nn

    from geonb.models.architecture import build_architecture

    if bits == 4 and any(ref.shape[1] % _GROUP for ref in checkpoint.refs if ref.targetable):
        odd = next(ref for ref in checkpoint.refs if ref.targetable and ref.shape[1] % _GROUP)
        raise InputError(
            f"{odd.name} has {odd.shape[1]} columns, and int4 needs a multiple of {_GROUP}: choose --bits 8."
        )
    # experts and GPT-2's Conv1D are no nn.Linear, and torchao leaves them alone
    model = build_architecture(checkpoint.folder, checkpoint.config).model
    modules = dict(model.named_modules()) if model is not None else {}
    if not any(isinstance(modules.get(ref.module), nn.Linear) for ref in checkpoint.refs if ref.targetable):
        raise InputError(
            f"{checkpoint.source} ({checkpoint.architecture}) keeps its matrices outside of nn.Linear, where torchao "
            "quantises none of them: choose --target merged_bf16 or merged_fp16."
        )


def _config(bits: int | None) -> Any:
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup
    from torchao.quantization.quant_primitives import MappingType
    from transformers import TorchAoConfig

    if bits == 4:
        import torch

        return TorchAoConfig(
            IntxWeightOnlyConfig(
                weight_dtype=torch.int4, granularity=PerGroup(_GROUP), mapping_type=MappingType.ASYMMETRIC
            )
        )
    return TorchAoConfig(Int8WeightOnlyConfig())


def _write(source: Source, folder: Path, bits: int | None, progress: Callable[[str], None]) -> tuple[str, ...]:
    from transformers import AutoModelForCausalLM

    merged = folder / ".merged"
    merged.mkdir()
    notes = list(write_merged(source, merged, None, progress))
    progress(f"quantise to int{bits}")
    with quiet():
        model: Any = AutoModelForCausalLM.from_pretrained(
            merged, quantization_config=_config(bits), dtype="auto", trust_remote_code=False, local_files_only=True
        )
        model.save_pretrained(folder)
    shutil.rmtree(merged)
    copy_companions(source.checkpoint, folder)
    kept = [ref for ref in source.checkpoint.refs if not _is_quantised(model, ref.module)]
    share = sum(ref.parameters for ref in kept) / sum(ref.parameters for ref in source.checkpoint.refs)
    notes.append(
        f"{share:.0%} of the matrices' numbers stay as they were ({', '.join(sorted({r.role for r in kept}))})"
    )
    if bits == 4:
        notes.append("torchao stores each int4 in a byte of its own here; gguf with --bits 4 is the smaller file")
    return tuple(notes)


def _is_quantised(model: Any, path: str) -> bool:
    from torchao.utils import TorchAOBaseTensor

    module = dict(model.named_modules()).get(path)
    return isinstance(getattr(module, "weight", None), TorchAOBaseTensor)


def _reload(source: Source, folder: Path) -> Iterator[tuple[str, Logits]]:
    import torch
    from torch import nn
    from torchao.utils import TorchAOBaseTensor
    from transformers import AutoModelForCausalLM

    with quiet():
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", trust_remote_code=False, local_files_only=True, use_safetensors=True
        )
    yield SERVED, transformers_logits(model, source.device)
    # the integers and scales as they were stored, multiplied out: what the quantisation itself did
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, TorchAOBaseTensor):
            module.weight = nn.Parameter(weight.dequantize().to(torch.float32), requires_grad=False)
    yield STORED, transformers_logits(model.to(torch.float32), source.device)


TARGET = Target(
    name="deployment_quantized",
    loader="torchao",
    precision=lambda checkpoint, bits: f"int{bits}",
    check=_check,
    write=_write,
    reload=_reload,
    bits=(8, 4),
)
