"""The headers of a folder's safetensors files: names, shapes and dtypes without a single weight in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geonb.errors import InputError
from geonb.records import is_file, parse_json, plain

FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# of one number, by dtype; of dtypes that share a byte, or that are newer than this table, nothing is checked
_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}
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
            header = parse_json(stream.read(length), str(path))
        except InputError:
            raise InputError(broken.format("its header is not JSON")) from None
    if not isinstance(header, dict):
        raise InputError(broken.format(f"its header is a JSON {type(header).__name__}"))
    header.pop("__metadata__", None)
    found, end = {}, 0
    for name, entry in header.items():
        if not _is_entry(entry):
            raise InputError(broken.format(f"its header says of {plain(name)[:100]!r} what is no tensor"))
        found[name] = TensorHeader(name=name, file=path, shape=tuple(entry["shape"]), dtype=entry["dtype"])
        end = max(end, entry["data_offsets"][1])
    if 8 + length + end != size:
        raise InputError(broken.format(f"{size} bytes instead of {8 + length + end}"))
    return found


def _is_entry(entry: Any) -> bool:
    """Whether an entry of a header says a dtype, a shape and a place, and a place of as many bytes as the shape needs."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    shape, place = (entry.get(field) for field in ("shape", "data_offsets"))
    if not isinstance(shape, list) or not isinstance(place, list):
        return False
    # type and not isinstance: true and false are whole numbers to Python
    if not all(type(number) is int and number >= 0 for number in (*shape, *place)):
        return False
    if len(place) != 2 or place[0] > place[1]:
        return False
    width = _BYTES.get(entry["dtype"])
    return width is None or math.prod(shape) * width == place[1] - place[0]


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
            if Path(name).name != name or not is_file(folder / name):
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


def read_headers(folder: Path) -> dict[str, TensorHeader]:
    """All tensors of a checkpoint folder by name."""
    found: dict[str, TensorHeader] = {}
    for path in weight_files(folder):
        found.update(read_header(path))
    if not found:
        raise InputError(f"{folder} holds safetensors files without a tensor: save the model again.")
    return found
