"""Models made from a base model by one change under which a method might break, such as `llama-1m+bf16`.

They are made on demand from the base's own bytes, always the same, and kept in the cache folder under the digest of the
base: a base that was trained anew has others. A row of results carries the digest of the changed model. What each is
called stands in `conditions`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geonb.errors import GeonbError, InputError
from geonb.models.checkpoint import Checkpoint

_RANDOM_SEED = 17
# gains are multiplied by it or by its inverse; a power of two changes no bit of the function
_GAIN = 8.0
# steps of the training before
_BEFORE = 200
# families whose blocks are norm, attention, norm, MLP, with gains that multiply
_PRE_NORM = ("llama", "mistral", "qwen2")


def _tensors(checkpoint: Checkpoint) -> dict[str, Any]:
    from safetensors.torch import load_file

    found: dict[str, Any] = {}
    for path in sorted({header.file for header in checkpoint.headers.values()}):
        found |= load_file(path)
    return found


def _write(checkpoint: Checkpoint, tensors: dict[str, Any], folder: Path, dtype: str | None = None) -> None:
    from safetensors.torch import save_file

    from geonb.workbench.export.folder import copy_companions, write_config

    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    write_config(checkpoint, folder, dtype=dtype, untied=False)
    copy_companions(checkpoint, folder)


def _bf16(checkpoint: Checkpoint, folder: Path) -> None:
    import torch

    rounded = {
        name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
        for name, tensor in _tensors(checkpoint).items()
    }
    _write(checkpoint, rounded, folder, "bfloat16")


def _random(checkpoint: Checkpoint, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from geonb.workbench.export.folder import quiet

    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_SEED)
        config = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    state = model.state_dict()
    if missing := sorted(set(checkpoint.headers) - set(state)):
        raise InputError(
            f"{checkpoint.source} stores {missing[0]}, which its config does not build: give another model."
        )
    _write(checkpoint, {name: state[name] for name in checkpoint.headers}, folder, "float32")


def _dead(checkpoint: Checkpoint, folder: Path) -> None:
    """A layer in the middle adds nothing to the stream, and the last layer's queries are zero."""
    layers = sorted({ref.layer for ref in checkpoint.refs if ref.layer is not None})
    wanted = [(layers[len(layers) // 2 - 1], "o"), (layers[len(layers) // 2 - 1], "down"), (layers[-1], "q")]
    tensors = _tensors(checkpoint)
    for layer, role in wanted:
        parts = [name for ref in checkpoint.refs if (ref.layer, ref.role) == (layer, role) for name in ref.parts]
        if not parts:
            raise InputError(f"{checkpoint.source} has no matrix of the role {role} in layer {layer}: give a Llama.")
        for name in parts:
            tensors[name] = tensors[name].zero_()
    _write(checkpoint, tensors, folder)


def _gains(factor: float) -> Callable[[Checkpoint, Path], None]:
    """Norms before attention and MLP times `factor`, the maps that read them divided by it: the same function."""

    def make(checkpoint: Checkpoint, folder: Path) -> None:
        if checkpoint.model_type not in _PRE_NORM:
            raise InputError(
                f"the gains of {checkpoint.source} were to be rescaled, and it is a {checkpoint.model_type}; allowed are "
                f"{', '.join(_PRE_NORM)}."
            )
        tensors = _tensors(checkpoint)
        for name in tensors:
            if name.endswith(("input_layernorm.weight", "post_attention_layernorm.weight")):
                tensors[name] = tensors[name] * factor
        for ref in checkpoint.refs:
            if ref.layer is not None and ref.role in ("q", "k", "v", "gate", "up"):
                for name in ref.parts:
                    tensors[name] = tensors[name] / factor
        _write(checkpoint, tensors, folder)

    return make


def _after(domain: str) -> Callable[[Checkpoint, Path], None]:
    """Trained on `domain` by the product's own run (R = sigma_max, T = 200, batch 16, seed 0), and merged."""

    def make(checkpoint: Checkpoint, folder: Path) -> None:
        from geonb.models.cache import cache_folder
        from geonb.train.execute import run_training
        from geonb.workbench.benchmark.arm import OPEN
        from geonb.workbench.benchmark.attach import plan_for
        from geonb.workbench.benchmark.plans import plan_of
        from geonb.workbench.export.export import merge_adapter

        # the radius is named, so that another default of the product makes no other model
        plan = plan_for(
            OPEN, plan_of(str(checkpoint.source), domain, _BEFORE, 16, 0, cache_folder() / "benchmark-data")
        )
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            run = run_training(plan, output=Path(temporary) / "run", device="cpu")
            merged = Path(temporary) / "merged"
            made = merge_adapter(checkpoint, Path(temporary) / "run" / "adapter", merged, dtype="float32")
            if run.adapter is None or made.verdict != "passed":
                raise GeonbError(
                    f"the adapter of {domain} could not be merged into {checkpoint.source}: {made.summary()}"
                )
            for path in merged.iterdir():
                shutil.copy(path, folder / path.name)

    return make


# how each of `conditions.WEIGHTS` is made: a function that writes the changed model into an empty folder
_MAKE: dict[str, Callable[[Checkpoint, Path], None]] = {
    "bf16": _bf16,
    "random": _random,
    "dead": _dead,
    "gains-up": _gains(_GAIN),
    "gains-down": _gains(1 / _GAIN),
    "after-chat": _after("chat"),
}


def derived_source(base: str, condition: str, folder: Path, *, make: bool = True) -> str:
    """The folder below `folder` that holds the model `base` (any source) under `condition`, made if it is not there.

    Raises `InputError` where it is not there and `make` is False: one of them is trained for minutes.
    """
    checkpoint = Checkpoint.open(base)
    target = folder / f"{checkpoint.name}+{condition}-{checkpoint.digest[:12]}"
    if (target / "config.json").is_file():
        return str(target)
    if not make:
        raise InputError(
            f"{checkpoint.name}+{condition} was given, which was not made on this machine: run a job of it."
        )
    folder.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=folder))
    try:
        _MAKE[condition](checkpoint, part)
        part.chmod(0o755)
        try:
            part.rename(target)
        except OSError:
            # another process was faster, and made the same
            if not (target / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return str(target)
