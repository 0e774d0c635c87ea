"""The merged model's folder: a copy of the target's files, in which matrices are written over their own bytes."""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geonb.errors import InputError
from geonb.merge.report import RECORD, LeftTensor
from geonb.models.checkpoint import Checkpoint
from geonb.models.headers import weight_files
from geonb.models.matrix_ref import MatrixRef

# what a model's folder needs beside its weights; nothing else of a stranger's folder is copied
_KEPT = re.compile(
    r"config\.json|generation_config\.json|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt|"
    r"tokenizer[\w.]*\.(json|model)|[\w.-]+\.(model|tiktoken)|chat_template\.(jinja|json)|model\.safetensors\.index\.json"
)
_LEFT = {"embed": "embedding", "head": "output head", "router": "router", "conv": "convolution kernel"}
_ROWS = 4096  # rows of a large tensor compared at once


def copy_model(source: Path, folder: Path) -> None:
    """Copy weights, config and tokenizer of a model; a stranger's code, pickles and notes stay behind."""
    weights = {path.name for path in weight_files(source)}
    for path in sorted(source.iterdir()):
        if path.is_file() and (path.name in weights or _KEPT.fullmatch(path.name)):
            shutil.copyfile(path, folder / path.name)


def check_output(output: Path, sources: Sequence[Checkpoint], *, overwrite: bool) -> None:
    """Raise the `InputError` for an output that is taken, that lies in a source or around one, or has no room."""
    place = output.absolute().resolve()
    for source in sources:
        taken = source.folder.resolve()
        if place == taken or taken in place.parents or place in taken.parents:
            raise InputError(
                f"the output {output} and the model {source.source} lie in each other: choose another folder."
            )
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        if not overwrite:
            raise InputError(
                f"the output {output} exists; allowed is a new or empty folder: choose another, or replace that merge "
                "with --overwrite."
            )
        if not (output / RECORD).is_file():
            raise InputError(f"{output} is not a geonb merge, so --overwrite leaves it alone: choose another output.")
    parent = next(folder for folder in place.parents if folder.is_dir())
    needed = sum(path.stat().st_size for path in weight_files(sources[-1].folder))
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise InputError(
            f"{parent} has {free:,} bytes free and the merge takes {needed:,}: make room, or choose another."
        )


def put_in_place(folder: Path, output: Path) -> None:
    """Rename the finished `folder` to `output`; a merge that is there goes away when the new one stands."""
    if not output.exists():
        folder.rename(output)
        return
    aside = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}.old."))
    output.rename(aside / "old")
    folder.rename(output)
    shutil.rmtree(aside, ignore_errors=True)


def store_matrix(folder: Path, ref: MatrixRef, matrix: Any) -> None:
    """Write a matrix, (out, in), over its own bytes in the copied safetensors files; nothing else of them changes."""
    import torch

    stored = matrix.mT if ref.transposed else matrix
    row = 0
    for part in ref.parts:
        path, shape, offset = _where(folder, part)
        rows, columns = shape[-2:]
        piece = stored[row : row + rows].contiguous()
        row += rows
        if ref.slice is not None:
            offset += ref.slice * rows * columns * piece.element_size()
        with path.open("r+b") as stream:
            stream.seek(offset)
            stream.write(piece.view(torch.uint8).numpy().data)


def _where(folder: Path, name: str) -> tuple[Path, tuple[int, ...], int]:
    """File, shape and first byte of a stored tensor (safetensors: 8 bytes of length, a JSON header, the data)."""
    for path in weight_files(folder):
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            entry = json.loads(stream.read(length)).get(name)
        if entry is not None:
            return path, tuple(entry["shape"]), 8 + length + int(entry["data_offsets"][0])
    raise InputError(f"{folder} holds no tensor {name}: copy the target again.")


def left_tensors(
    target: Checkpoint, donor: Checkpoint, refs: Sequence[MatrixRef], unreached: Sequence[MatrixRef]
) -> tuple[LeftTensor, ...]:
    """Every stored tensor that no merge touched, and how far the donor's own is from it."""
    reached = {part for ref in refs if ref not in unreached for part in ref.parts}
    roles = {part: ref.role for ref in target.refs for part in ref.parts}
    alone = {part for ref in unreached for part in ref.parts}
    found = [LeftTensor(name=ref.name, because="no probe token reached it", donor_change=None) for ref in unreached]
    for name in sorted(set(target.headers) - reached - alone):
        because = _LEFT.get(
            roles.get(name, ""), "matrix outside the known linear maps" if name in roles else "norm or bias"
        )
        found.append(LeftTensor(name=name, because=because, donor_change=_distance(target, donor, name)))
    return tuple(found)


def _distance(target: Checkpoint, donor: Checkpoint, name: str) -> float | None:
    from safetensors import safe_open

    mine, theirs = target.headers[name], donor.headers.get(name)
    if theirs is None or theirs.shape != mine.shape or not mine.shape:
        return None
    squares = [0.0, 0.0]
    with safe_open(mine.file, "pt") as one, safe_open(theirs.file, "pt") as other:
        here, there = one.get_slice(name), other.get_slice(name)
        for row in range(0, mine.shape[0], _ROWS):
            first, second = (part[row : row + _ROWS].double() for part in (here, there))
            squares[0] += float(((second - first) ** 2).sum())
            squares[1] += float((first**2).sum())
    return math.sqrt(squares[0] / squares[1]) if squares[1] > 0 else (0.0 if squares[0] == 0 else None)
