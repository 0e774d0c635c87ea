"""Numbers on their way to a front end: one JSON header and the arrays as raw little-endian bytes behind it."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from geonb.records import encode

_KINDS = {"float32": np.dtype("<f4"), "uint8": np.dtype("u1"), "int32": np.dtype("<i4")}


def pack(columns: Mapping[str, np.ndarray], /, **meta: Any) -> bytes:
    """`columns` (float32, uint8 or int32; float64 is narrowed) and JSON-able `meta` as one self-describing block.

    Layout: the header's length (uint32), the header, then each array from a multiple of four bytes. NaN stays NaN.

    >>> unpack(pack({"x": np.array([1.0, 2.0])}, n=2))[0]["x"].tolist()
    [1.0, 2.0]
    """
    described, blocks, offset = [], [], 0
    for name, values in columns.items():
        array = np.ascontiguousarray(values)
        kind = array.dtype.name if array.dtype.name in _KINDS else "float32"
        with np.errstate(over="ignore"):  # what float32 cannot hold arrives as infinite
            block = array.astype(_KINDS[kind], copy=False).tobytes()
        described.append({"name": name, "kind": kind, "offset": offset, "length": int(array.size)})
        blocks.append(block + b"\0" * (-len(block) % 4))
        offset += len(blocks[-1])
    header = json.dumps({"meta": encode(meta), "columns": described}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 4)
    return struct.pack("<I", len(header)) + header + b"".join(blocks)


def unpack(block: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `pack` was given: (columns, meta); the front end reads the same layout."""
    (length,) = struct.unpack_from("<I", block)
    header = json.loads(block[4 : 4 + length])
    start = 4 + length
    columns = {
        column["name"]: np.frombuffer(
            block, dtype=_KINDS[column["kind"]], count=column["length"], offset=start + column["offset"]
        )
        for column in header["columns"]
    }
    return columns, header["meta"]
