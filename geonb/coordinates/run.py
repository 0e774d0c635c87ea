"""The folder of a coordinate model: recipe, tokenizer, trace, checkpoint, and the finished model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geonb.adapters.serialise import safetensors_bytes
from geonb.coordinates.configuration import Configuration
from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.recipe import RECIPE, Recipe
from geonb.errors import InputError
from geonb.records import atomic_write, is_file

TOKENIZER, TRACE = "tokenizer.json", "trace.jsonl"
STATE, MODEL, CONFIGURATION = "checkpoint/state.safetensors", "model.safetensors", "configuration.json"


def save_model(model: CoordinateModel, folder: Path) -> None:
    """Write configuration and weights; the file of the weights appears last and whole."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / CONFIGURATION, model.sizes.to_json(indent=1) + "\n")
    tensors = {name: one.detach().cpu().contiguous().clone() for name, one in model.named_parameters()}
    atomic_write(folder / MODEL, safetensors_bytes(tensors, {"format": "pt"}))


def load_model(folder: str | Path) -> CoordinateModel:
    """The model that a finished run, or the last checkpoint of an unfinished one, left in `folder`.

    Raises `InputError` for a folder without one, and where names or shapes are not those of its configuration.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    state, prefix = folder / MODEL, ""
    if not is_file(state):
        state, prefix = folder / STATE, "model/"
    if not is_file(state):
        raise InputError(f"{folder} holds no coordinate model: train one with `geonb coordinates train -o {folder}`.")
    where = folder / (CONFIGURATION if is_file(folder / CONFIGURATION) else RECIPE)
    sizes = Configuration.load(where) if where.name == CONFIGURATION else Recipe.load(where).configuration
    model = CoordinateModel(sizes)
    try:
        found = {name.removeprefix(prefix): one for name, one in load_file(state).items() if name.startswith(prefix)}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{state} cannot be read: {error}; train the model again, or copy the file again.") from None
    wanted = dict(model.named_parameters())
    wrong = [name for name in wanted if name not in found or found[name].shape != wanted[name].shape]
    if wrong or set(found) - set(wanted):
        name = (wrong or sorted(set(found) - set(wanted)))[0]
        raise InputError(f"{state} does not fit its configuration: {name} is missing, unknown or of another shape.")
    with torch.no_grad():
        for name, one in wanted.items():
            one.copy_(found[name])
    return model.eval()


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer of the model in `folder`."""
    from tokenizers import Tokenizer

    path = Path(folder) / TOKENIZER
    if not is_file(path):
        raise InputError(f"{path} is not there; a coordinate model has its tokenizer beside it.")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise InputError(f"{path} is no tokenizer: {error}.") from None


def save_state(folder: Path, step: int, trace_length: int, tensors: dict[str, Tensor]) -> None:
    """Replace the checkpoint by that of `step`, with a digest that a later reader checks."""
    path = folder / STATE
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {name: one.detach().cpu().contiguous().clone() for name, one in tensors.items()}
    state = json.dumps({"step": step, "trace_length": trace_length}, sort_keys=True)
    atomic_write(path, safetensors_bytes(kept, {"state": state, "digest": _digest(state, kept)}))


def load_state(folder: Path) -> tuple[int, int, dict[str, Tensor]]:
    """Step, length of the trace in bytes, and tensors of the checkpoint."""
    from safetensors import SafetensorError, safe_open

    path = folder / STATE
    if not is_file(path):
        raise InputError(f"{path} is not there, so there is nothing to resume: start the run without --resume.")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        state = metadata["state"]
        header = json.loads(state)
        if metadata["digest"] != _digest(state, tensors):
            raise InputError(f"{path} is damaged: its digest is not that of its content; start the run again.")
        return int(header["step"]), int(header["trace_length"]), tensors
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read: {error}; start the run again.") from None


def _digest(state: str, tensors: dict[str, Tensor]) -> str:
    found = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
