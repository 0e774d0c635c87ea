"""Safetensors bytes that are the same every time: the library writes its metadata in the order of a hash map."""

from __future__ import annotations

import json
from collections.abc import Mapping

from torch import Tensor


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """`tensors` and `metadata` as one safetensors file, with both in sorted order; equal input gives equal bytes."""
    from safetensors.torch import save

    content = save(dict(sorted(tensors.items())), metadata=dict(metadata))
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    # offsets count from the end of the header, so its length may change
    ordered = {"__metadata__": dict(sorted(metadata.items()))}
    ordered |= {name: entry for name, entry in header.items() if name != "__metadata__"}
    text = json.dumps(ordered, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]
