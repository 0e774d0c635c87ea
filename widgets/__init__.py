"""Every view of geonb, installed as geonb.widgets: record in, picture out."""

from __future__ import annotations

from geonb import _lazy

_NAMES = {
    "AdapterCard": "adapter_card",
    "CoordinateMap": "coordinate_map",
    "LedgerView": "ledger",
    "MassTrace": "mass_trace",
    "RunComparison": "run_comparison",
    "SpectrumExplorer": "spectrum_explorer",
    "TargetTable": "target_table",
    "View": "view",
    "show": "view_of",
    "write_report": "report",
}

__getattr__, __dir__, __all__ = _lazy.attach(__name__, _NAMES)
