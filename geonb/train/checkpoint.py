"""A training checkpoint: one safetensors file, replaced by one rename, from which a run goes on to the same bytes."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geonb.errors import GeonbError, InputError
from geonb.records import atomic_write
from geonb.train.own_files import refuse_link


@dataclass(slots=True)
class Snapshot:
    """Everything that a resumed run needs: step counter and histories, factors, best factors, controller state."""

    step: int
    trace_length: int
    facts: dict[str, Any]
    leaves: dict[str, Tensor]
    best: dict[str, Tensor]
    controller: dict[str, Tensor]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def save_snapshot(path: Path, snapshot: Snapshot, *, before: Callable[[], None] | None = None) -> None:
    """Write `snapshot` beside the previous one and swap them; with no space left the previous one survives.

    `before` brings to the disk what the snapshot counts on: the trace up to `trace_length`.
    """
    from safetensors.torch import save

    groups: Mapping[str, Mapping[str, Tensor]] = {
        "leaf": snapshot.leaves,
        "best": snapshot.best,
        "controller": snapshot.controller,
        "array": {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in snapshot.arrays.items()},
    }
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous().clone()
        for group, members in groups.items()
        for name, tensor in members.items()
    }
    header = {"step": snapshot.step, "trace_length": snapshot.trace_length, "facts": snapshot.facts}
    state = json.dumps(header, sort_keys=True)
    refuse_link(path.parent, "nothing is saved there: remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if before is not None:
            before()
        atomic_write(path, save(tensors, metadata={"state": state, "digest": _digest(state, tensors)}))
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise GeonbError(
                f"no space left for the checkpoint of step {snapshot.step} in {path.parent}; the previous one is whole: "
                "free some space and start again with --resume."
            ) from None
        raise


def load_snapshot(path: Path) -> Snapshot:
    """Read a checkpoint back."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path} is not there, so there is nothing to resume: start the run without --resume.")
    groups: dict[str, dict[str, Tensor]] = {
        "leaf": {},
        "best": {},
        "controller": {},
        "array": {},
    }
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}
        if metadata["digest"] != _digest(metadata["state"], tensors):
            raise ValueError("its bytes are not those that were written")
        header = json.loads(metadata["state"])
        for key, tensor in tensors.items():
            group, _, name = key.partition("/")
            groups[group][name] = tensor
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{path} is not a readable checkpoint ({reason}): start the run again with --overwrite."
        ) from None
    return Snapshot(
        step=header["step"],
        trace_length=header["trace_length"],
        facts=header["facts"],
        leaves=groups["leaf"],
        best=groups["best"],
        controller=groups["controller"],
        arrays={name: tensor.numpy() for name, tensor in groups["array"].items()},
    )


def _digest(state: str, tensors: Mapping[str, Tensor]) -> str:
    """sha256 over the state and every tensor: a flipped bit must not train on as if nothing had happened."""
    found = hashlib.sha256(state.encode("utf-8"))
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        found.update(tensor.flatten().view(torch.uint8).numpy().data if tensor.numel() else b"")
    return found.hexdigest()
