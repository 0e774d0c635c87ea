"""The data's digest, and the seed that model and data derive."""

from __future__ import annotations

import hashlib
from pathlib import Path

from geonb.errors import InputError


def data_digest(*paths: str | Path) -> str:
    """sha256 over the sorted sha256 of the files' contents: where a file lies does not matter, its bytes do."""
    digests = []
    for path in map(Path, paths):
        if not path.is_file():
            raise InputError(f"{path} is not a file; the data is a JSONL file with one record a line: check the path.")
        with path.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def derive_seed(model_digest: str, data: str) -> int:
    """The first four bytes, big-endian, of sha256("model digest:data digest"): the same for equal bytes anywhere.

    >>> derive_seed("a", "b") == derive_seed("a", "b")
    True
    """
    return int.from_bytes(hashlib.sha256(f"{model_digest}:{data}".encode()).digest()[:4], "big")
