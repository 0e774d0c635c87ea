"""An adapter in mlx-lm's layout: adapters.safetensors and adapter_config.json, for `mlx_lm.generate --adapter-path`.

mlx-lm computes y = W x + scale (x lora_a) lora_b with lora_a (in, r) = A^T and lora_b (r, out) = B^T, and knows one rank
and one scale for all matrices. Smaller ranks are filled up with zero columns and rows, which is exact. One scale for all
matrices stays in the config; several are multiplied into B, which rounds each entry of B once (not at all where the
scale is a power of two), and the config's scale is 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.workbench.export.folder import quiet
from geonb.workbench.export.gap import Logits
from geonb.workbench.export.rounding import round_once
from geonb.workbench.export.source import Source
from geonb.workbench.export.target import SERVED, STORED, Target, require

WEIGHTS, CONFIG = "adapters.safetensors", "adapter_config.json"


def _check(checkpoint: Checkpoint, bits: int | None) -> None:
    require("mlx_lm", extra="mlx-lm", target="mlx")
    try:
        _load(checkpoint, lazy=True)
    except (ValueError, KeyError, FileNotFoundError, TypeError, AttributeError) as error:
        raise InputError(
            f"mlx-lm cannot load {checkpoint.source} ({' '.join(str(error).split())[:160]}); allowed is an architecture "
            "that it knows: choose another target."
        ) from None


def _load(checkpoint: Checkpoint, *, lazy: bool) -> Any:
    from mlx_lm.utils import load_model

    with quiet():
        return load_model(checkpoint.folder, lazy=lazy)[0]


def _write(source: Source, folder: Path, bits: int | None, progress: Callable[[str], None]) -> tuple[str, ...]:
    import torch
    from safetensors.torch import save_file

    progress("write the adapter for mlx-lm")
    model = _load(source.checkpoint, lazy=True)
    modules = dict(model.named_modules())
    strange = [change.module for change in source.changes if change.module not in modules]
    if strange or not source.changes:
        what = repr(strange[0]) if strange else "nothing"
        raise InputError(
            f"the adapter changes {what}, for which mlx-lm has no linear map of that name in {source.checkpoint.source}: "
            "export a merged model, which mlx-lm loads as it is."
        )
    rank = max(change.rank for change in source.changes)
    scales = {change.scale for change in source.changes}
    scale = scales.pop() if len(scales) == 1 else 1.0
    tensors = {}
    for change in source.changes:
        left, right = change.left.float(), change.right.float()
        if change.scale != scale:
            left = round_once(change.left.double() * change.scale, torch.float32)
        pad = (0, rank - change.rank)
        tensors[f"{change.module}.lora_a"] = torch.nn.functional.pad(right.mT, pad).contiguous()
        tensors[f"{change.module}.lora_b"] = torch.nn.functional.pad(left, pad).mT.contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "mlx"})
    config = {
        "fine_tune_type": "lora",
        "model": source.checkpoint.source,
        "num_layers": len(model.layers),
        # whole paths: a key such as "self_attn.q_proj" would adapt that matrix in every layer
        "lora_parameters": {
            "rank": rank,
            "scale": scale,
            "dropout": 0.0,
            "keys": sorted(change.module for change in source.changes),
        },
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    padded = sum(change.rank != rank for change in source.changes)
    notes = [f"ranks are padded with zeros to {rank} in {padded} matrices"] if padded else []
    return (*notes, "the matrices' own scales are multiplied into lora_b") if scales else tuple(notes)


def _reload(source: Source, folder: Path) -> Iterator[tuple[str, Logits]]:
    import mlx.core as mx
    import numpy as np
    import torch
    from mlx_lm.tuner.utils import load_adapters

    model = load_adapters(_load(source.checkpoint, lazy=False), str(folder))
    model.eval()

    def logits(ids):
        return torch.from_numpy(np.array(model(mx.array([list(ids)]))[0].astype(mx.float32)))

    if any(ref.dtype != "float32" for ref in source.checkpoint.refs):
        yield SERVED, logits
        model.set_dtype(mx.float32)
    yield STORED, logits


def _explain(source: Source) -> str:
    """How far mlx-lm's base is from transformers' base, where that is more than round-off."""
    import mlx.core as mx
    import numpy as np

    model = _load(source.checkpoint, lazy=False)
    model.set_dtype(mx.float32)
    gaps = [
        float(np.abs(np.array(model(mx.array([list(ids)]))[0, -1]) - last.numpy()).max())
        for ids, last in zip(source.reference.ids, source.reference.base_last, strict=True)
    ]
    gap = max(gaps) / source.reference.spread
    if gap <= 1e-5:
        return ""
    return (
        f"the base alone has a logit gap of {gap:.3g} between mlx-lm and transformers (its config.json may leave out what "
        "the two fill in differently)"
    )


TARGET = Target(
    name="mlx",
    explain=_explain,
    loader="mlx_lm",
    precision=lambda checkpoint, bits: "float32",
    check=_check,
    write=_write,
    reload=_reload,
)
