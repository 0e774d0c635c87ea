"""JSONL in, checked and tokenised examples out."""

from __future__ import annotations

from geonb import _lazy

_NAMES = {
    "DataRecord": "records",
    "Dataset": "tokenise",
    "Example": "example",
    "Split": "split",
    "batch_at": "batches",
    "collate": "collate",
    "data_digest": "digests",
    "derive_seed": "digests",
    "read_records": "records",
    "split": "split",
    "tokenise": "tokenise",
}

__getattr__, __dir__, __all__ = _lazy.attach(__name__, _NAMES)
