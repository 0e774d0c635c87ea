"""The headers of a folder's safetensors files: names, shapes and dtypes without a single weight in memory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from geonb.errors import InputError
from geonb.records import parse_json

FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_HEADER_LIMIT = 100_000_000  # bytes; the format's own limit, so that a corrupt length is not taken for a size


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """One stored tensor: its file, name, shape and dtype as the header names it ("BF16")."""

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: str


def read_header(path: Path) -> dict[str, TensorHeader]:
    """The tensors of one safetensors file, after checking that the file is as long as its header says."""
    size = path.stat().st_size
    broken = f"{path} is not a whole safetensors file ({{}}): copy or download it again."
    if size < 8:
        raise InputError(broken.format(f"{size} bytes"))
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(_HEADER_LIMIT, size - 8):
            raise InputError(broken.format(f"its header claims {length} bytes, the file has {size}"))
        try:
            header = json.loads(stream.read(length))
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise InputError(broken.format("its header is not JSON")) from None
    header.pop("__metadata__", None)
    end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if end != size:
        raise InputError(broken.format(f"{size} bytes instead of {end}"))
    return {
        name: TensorHeader(name=name, file=path, shape=tuple(entry["shape"]), dtype=entry["dtype"])
        for name, entry in header.items()
    }


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, by its index where it has one; pickles are refused."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(map(str, parse_json(index.read_bytes(), str(index))["weight_map"].values())))
        except (InputError, KeyError, TypeError, AttributeError):
            raise InputError(f"{index} is not a readable index: copy or download it again.") from None
        for name in names:
            # an index is a stranger's file: it must not lead out of its folder
            if Path(name).name != name or not _is_file(folder / name):
                raise InputError(
                    f"{index} names {name!r}, which is not in its folder: copy or download the missing shard."
                )
        return [folder / name for name in names]
    found = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("adapter_"))
    if found:
        return found
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth")):
        raise InputError(
            f"{folder} holds its weights only as pickle files, which can run code when read; allowed is safetensors: "
            "save the model again with safetensors."
        )
    raise InputError(f"{folder} holds no safetensors weights: give the folder that a model was saved into.")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # a name that no file can have: too long, or with a NUL in it
        return False


def read_headers(folder: Path) -> dict[str, TensorHeader]:
    """All tensors of a checkpoint folder by name."""
    found: dict[str, TensorHeader] = {}
    for path in weight_files(folder):
        found.update(read_header(path))
    if not found:
        raise InputError(f"{folder} holds safetensors files without a tensor: save the model again.")
    return found
