"""A merged model: a complete Hugging Face folder in which W + scale B A stands in the place of W.

Each matrix is added up in float64 and rounded once to the folder's dtype; the base is never in memory as a whole. What
the base transposes (GPT-2), joins or stacks (experts) is changed where it is stored. An adapter on a head that is tied
to the embedding unties it, because the embedding itself does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from geonb.models.checkpoint import Checkpoint
from geonb.models.headers import FLOATS
from geonb.workbench.export.folder import copy_companions, quiet, write_config
from geonb.workbench.export.gap import Logits
from geonb.workbench.export.source import Source
from geonb.workbench.export.target import SERVED, STORED, Target, transformers_logits
from geonb.workbench.export.weights import MergedWeights

DTYPES = ("float32", "float16", "bfloat16")


def own_dtype(checkpoint: Checkpoint) -> str:
    """The dtype of most of the base's stored numbers."""
    sizes: dict[str, int] = {}
    for ref in checkpoint.refs:
        sizes[ref.dtype] = sizes.get(ref.dtype, 0) + ref.parameters
    return max(sizes, key=lambda dtype: sizes[dtype])


def write_merged(source: Source, folder: Path, dtype: str | None, progress: Callable[[str], None]) -> tuple[str, ...]:
    """Write the merged folder; `dtype` None keeps that of each tensor. Returns what should be known about it."""
    weights = MergedWeights(source.checkpoint, source.changes, dtype=dtype)
    weights.save(folder, progress)
    write_config(source.checkpoint, folder, dtype=dtype, untied=weights.unties_head)
    copy_companions(source.checkpoint, folder)
    return ("the head was tied to the embedding and is now its own tensor",) if weights.unties_head else ()


def reload_merged(source: Source, folder: Path) -> Iterator[tuple[str, Logits]]:
    """Load the folder through transformers: as it is (where that is not float32), then in float32."""
    import torch

    stored = {header.dtype for header in _headers(folder)}
    if stored != {"F32"}:
        yield SERVED, transformers_logits(_load(folder, "auto"), source.device)
    yield STORED, transformers_logits(_load(folder, torch.float32), source.device)


def _load(folder: Path, dtype):
    from transformers import AutoModelForCausalLM

    with quiet():
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, trust_remote_code=False, local_files_only=True, use_safetensors=True
        )


def _headers(folder: Path):
    from geonb.models.headers import read_headers

    return [header for header in read_headers(folder).values() if header.dtype in FLOATS]


def merged_target(name: str, dtype: str | None) -> Target:
    """The target that merges into `dtype`, or with None into the base's own."""
    return Target(
        name=name,
        loader="transformers",
        precision=lambda checkpoint, bits: dtype or own_dtype(checkpoint),
        check=lambda checkpoint, bits: None,
        write=lambda source, folder, bits, progress: write_merged(source, folder, dtype, progress),
        reload=reload_merged,
    )
