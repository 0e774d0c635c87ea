"""Adapters into what others load: PEFT, mlx-lm, merged models, quantised models and GGUF, each read back and measured."""

from __future__ import annotations

from geonb import _lazy

_NAMES = {
    "TARGETS": "export",
    "Export": "record",
    "GapRow": "record",
    "GapTable": "record",
    "export_adapter": "export",
    "gap_table": "table",
    "merge_adapter": "export",
}

__getattr__, __dir__, __all__ = _lazy.attach(__name__, _NAMES)
