"""Merged weights as a stream: one stored tensor of the base at a time, changed in float64 and rounded once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.headers import FLOATS
from geonb.workbench.export.changes import Change
from geonb.workbench.export.rounding import round_once

Progress = Callable[[str], None]
_CODES = {name: code for code, name in FLOATS.items()}
_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}


class MergedWeights:
    """The tensors that a checkpoint would hold if the adapter were part of it.

    `dtype` ("float16", ...) is that of every floating tensor; None keeps each tensor's own.
    """

    def __init__(self, checkpoint: Checkpoint, changes: Sequence[Change], *, dtype: str | None) -> None:
        self.checkpoint = checkpoint
        self.dtype = dtype
        self._edits: dict[str, list[tuple[Change, slice | None]]] = {}
        self._heads: dict[str, tuple[str, Change]] = {}  # new tensor -> (the embedding's tensor, its change)
        for change in changes:
            if change.ref is None:
                embedding = next(ref for ref in checkpoint.refs if ref.role == "embed")
                self._heads[f"{change.module}.weight"] = embedding.parts[0], change
                continue
            start = 0
            for part in change.ref.parts:
                rows = checkpoint.headers[part].shape[0] if len(change.ref.parts) > 1 else None
                own = None if rows is None else slice(start, start + rows)
                self._edits.setdefault(part, []).append((change, own))
                start += rows or 0

    @property
    def unties_head(self) -> bool:
        """Whether the head was tied to the embedding and is now a tensor of its own."""
        return bool(self._heads)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor and its shape, in the base's order."""
        found = {name: header.shape for name, header in self.checkpoint.headers.items()}
        return found | {name: found[stored] for name, (stored, _) in self._heads.items()}

    def code(self, name: str) -> str:
        """The dtype of a tensor as safetensors writes it ("BF16")."""
        stored = self.checkpoint.headers[self._heads[name][0] if name in self._heads else name].dtype
        return _CODES[self.dtype] if self.dtype is not None and stored in FLOATS else stored

    def shards(self) -> dict[Path, list[str]]:
        """The base's files, and the tensors of each; a head that is no longer tied stands beside its embedding."""
        files: dict[Path, list[str]] = {}
        for name, header in self.checkpoint.headers.items():
            files.setdefault(header.file, []).append(name)
        for name, (stored, _) in self._heads.items():
            files[self.checkpoint.headers[stored].file].append(name)
        return files

    def read(self, name: str) -> Any:
        """One merged tensor in its stored shape and final dtype; raises `InputError` where the dtype cannot hold it."""
        stored: str = name
        edits: Sequence[tuple[Change, slice | None]] = self._edits.get(name, [])
        if name in self._heads:
            stored, change = self._heads[name]
            edits = [(change, None)]
        header = self.checkpoint.headers[stored]
        tensor = _stored_tensor(header.file, stored)
        if header.dtype not in FLOATS:
            return tensor
        return self._merge(name, tensor, edits)

    def _merge(self, name: str, tensor: Any, edits: Sequence[tuple[Change, slice | None]]) -> Any:
        import torch

        dtype = getattr(torch, FLOATS[self.code(name)])
        merged = round_once(tensor, dtype) if tensor.dtype == torch.float64 else tensor.to(dtype, copy=True)
        for change, rows in edits:
            update = change.dense() if rows is None else change.dense()[rows]
            if change.ref is not None and change.ref.transposed:
                update = update.mT
            place = change.ref.slice if change.ref is not None and change.ref.slice is not None else slice(None)
            merged[place] = round_once(tensor[place].double() + update, dtype)
        if not merged.isfinite().all():
            raise InputError(
                f"the merged tensor {name!r} does not fit {FLOATS[self.code(name)]} (its largest entry is "
                f"{float(tensor.double().abs().max()):.3g} before merging); allowed is a dtype that holds it: export as "
                "merged_bf16, or check the adapter for nan."
            )
        return merged

    def save(self, folder: Path, progress: Progress | None = None) -> None:
        """Write every shard of the base under its own name into `folder`, and an index where the base has one."""
        weight_map: dict[str, str] = {}
        total = 0
        for file, names in self.shards().items():
            entries = {name: (self.code(name), self.shapes[name]) for name in names}
            total += write_safetensors(folder / file.name, entries, self._reading(names, progress))
            weight_map |= dict.fromkeys(names, file.name)
        if len(set(weight_map.values())) > 1:
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")

    def _reading(self, names: Sequence[str], progress: Progress | None) -> Iterator[Any]:
        for name in names:
            if progress is not None:
                progress(f"merge {name}")
            yield self.read(name)


def _stored_tensor(file: Path, name: str) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as stream:
            return stream.get_tensor(name)
    except SafetensorError as error:
        raise InputError(f"{file} cannot be read ({error}): copy or download it again.") from None


def write_safetensors(path: Path, entries: Mapping[str, tuple[str, Sequence[int]]], tensors: Iterator[Any]) -> int:
    """Write a safetensors file of `entries` (name -> dtype code, shape) from `tensors`, one in memory at a time.

    The library's own writer wants all tensors at once. Returns the bytes of the tensors.
    """
    import torch

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (code, shape) in entries.items():
        count = 1
        for size in shape:
            count *= size
        end = offset + count * _BYTES.get(code, 1)
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in zip(entries, tensors, strict=True):
            content = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
            start, end = header[name]["data_offsets"]
            if content.nbytes != end - start:
                raise RuntimeError(f"{name} has {content.nbytes} bytes, its header says {end - start}")
            stream.write(content.data)
    return offset
