"""JSONL in, checked and tokenised examples out."""

from __future__ import annotations

from geonb import _lazy

_NAMES = {
    "DataRecord": "records",
    "Dataset": "dataset",
    "Example": "example",
    "Split": "split",
    "batch_at": "batches",
    "data_digest": "seeds",
    "derive_seed": "seeds",
    "read_records": "records",
    "tokenise": "dataset",
}

__getattr__, __dir__, __all__ = _lazy.attach(__name__, _NAMES)
