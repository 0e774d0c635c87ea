"""A PEFT adapter, copied and normalised: safetensors only, and nothing left to a reader's default.

The factors keep their names, bytes and dtype. The config names r and lora_alpha (PEFT's defaults where they were left
out), every target by its full path, and the base; ranks, alphas and rsLoRA stay, so that the scale is what it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from geonb.adapters.foreign import read_config
from geonb.adapters.peft_files import CONFIG, WEIGHTS
from geonb.adapters.serialise import safetensors_bytes
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.workbench.bench import Bench
from geonb.workbench.export.gap import Logits
from geonb.workbench.export.source import Source
from geonb.workbench.export.target import STORED, Target

_PEFT_DEFAULT = 8  # LoraConfig's r and lora_alpha


def _write(source: Source, folder: Path, bits: int | None, progress: Callable[[str], None]) -> tuple[str, ...]:
    from safetensors import SafetensorError, safe_open

    progress("copy the adapter")
    path = source.adapter / WEIGHTS
    try:
        with safe_open(path, "pt") as file:
            tensors, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except SafetensorError as error:
        raise InputError(f"{path} cannot be read ({error}): copy or save the adapter again.") from None
    # written anew, so that the header is in one order and nothing but tensors and notes comes along
    (folder / WEIGHTS).write_bytes(safetensors_bytes(tensors, {"format": "pt", **header}))
    config = read_config(source.adapter)
    notes = tuple(f"{key} was missing; PEFT takes {_PEFT_DEFAULT}, and now the file says so"
                  for key in ("r", "lora_alpha") if key not in config)  # fmt: skip
    explicit = {
        "rank_pattern": {}, "alpha_pattern": {}, "use_rslora": False, "fan_in_fan_out": False, "bias": "none",
        "task_type": "CAUSAL_LM", "r": _PEFT_DEFAULT, "lora_alpha": _PEFT_DEFAULT, **config, "inference_mode": True,
    }  # fmt: skip
    if not explicit.get("base_model_name_or_path"):
        explicit["base_model_name_or_path"] = source.checkpoint.source
    modules = _modules(tensors, set(config.get("target_parameters") or ()))
    # a rule such as "all-linear" or a list of endings may mean other modules in another version
    if modules and not _layered(config):
        explicit["target_modules"] = modules
    (folder / CONFIG).write_text(json.dumps(explicit, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return notes


def _modules(names, parameters: set[str]) -> list[str]:
    """The paths of all modules that have factors, parameters of experts left out."""
    holders = {parameter.rpartition(".")[0] for parameter in parameters}
    paths = {name.removeprefix("base_model.model.").rpartition(".lora_A.")[0] for name in names}
    bare = {re.sub(r"(\.base_layer)+$", "", path) for path in paths if path}
    return sorted(path for path in bare if not any(path == one or path.endswith(f".{one}") for one in holders))


def _layered(config) -> bool:
    """Whether the config chooses modules by more than their names, which a list of paths must not override."""
    return bool(config.get("layers_to_transform") or config.get("layer_replication") or config.get("exclude_modules"))


def _reload(source: Source, folder: Path) -> Iterator[tuple[str, Logits]]:
    bench = Bench.open(source.checkpoint, {"export": folder}, device=source.device, dtype="float32")

    def logits(ids):
        with bench.using("export"):
            return bench.runtime.logits(ids)

    yield STORED, logits


def _anything(checkpoint: Checkpoint, bits: int | None) -> None:
    """PEFT itself has loaded the adapter onto the base by then."""


TARGET = Target(
    name="adapter",
    loader="peft",
    precision=lambda checkpoint, bits: "adapter",
    check=_anything,
    write=_write,
    reload=_reload,
    needs_changes=False,
)
