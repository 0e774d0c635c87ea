"""Continual learning with coordinates: 184 operations to learn one after the other, arms that learn them, what they forget."""

from __future__ import annotations

from geonb import _lazy

_NAMES = {
    "ForgettingTable": "results",
    "Operation": "operation",
    "Prompt": "operation",
    "RoutingReport": "routing",
    "by_name": "operations",
    "continual_metrics": "metrics",
    "draw": "operations",
    "forgetting_table": "table",
    "manifest": "operations",
    "operations": "operations",
    "routing_report": "routing",
}

__getattr__, __dir__, __all__ = _lazy.attach(__name__, _NAMES)
