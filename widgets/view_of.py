"""From a record to its view: one table, and what makes a notebook use it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from geonb.errors import InputError

# record (module, class) -> view (module in geonb.widgets, maker)
_VIEWS = {
    ("geonb.models.spectra", "ModelSpectra"): ("spectrum_explorer", "SpectrumExplorer"),
    ("geonb.plan.plan", "Plan"): ("target_table", "TargetTable"),
    ("geonb.train.execute", "Run"): ("mass_trace", "MassTrace"),
    ("geonb.train.status", "RunStatus"): ("mass_trace", "MassTrace"),
    ("geonb.train.compare", "RunsCompared"): ("run_comparison", "RunComparison"),
    ("geonb.adapters.audit", "AdapterAudit"): ("adapter_card", "AdapterCard"),
    ("geonb.claims.ledger", "Ledger"): ("ledger", "LedgerView"),
    ("geonb.coordinates.clusters", "CoordinateClusters"): ("coordinate_map", "CoordinateMap"),
}


def show(record: Any) -> Any:
    """The view of a record; raises `InputError` for what has none.

    >>> show(model_spectra("embedded"))    # doctest: +SKIP
    SpectrumExplorer('embedded', 29 matrices)
    """
    kind = type(record)
    found = _VIEWS.get((kind.__module__, kind.__name__))
    if found is None:
        names = ", ".join(name for _, name in _VIEWS)
        raise InputError(f"a view was asked of {kind.__name__}; allowed are {names}: display it as it is.")
    module, name = found
    return getattr(importlib.import_module(f"geonb.widgets.{module}"), name)(record)


def register(shell: Any) -> None:
    """Let a shell display every record that has a view as that view; nothing is imported until one is displayed."""
    formatter = shell.display_formatter.mimebundle_formatter
    for module, name in _VIEWS:
        formatter.for_type_by_name(module, name, _bundle)


def unregister(shell: Any) -> None:
    """Records display themselves again."""
    formatter = shell.display_formatter.mimebundle_formatter
    for module, name in _VIEWS:
        formatter.deferred_printers.pop((module, name), None)
        for kind in [kind for kind in formatter.type_printers if (kind.__module__, kind.__name__) == (module, name)]:
            formatter.type_printers.pop(kind)


def _bundle(record: Any) -> Any:
    own: Callable[[], Any] = record._repr_mimebundle_
    try:
        found = show(record)._repr_mimebundle_()
    except Exception:
        # a run that was not saved, whose folder has gone or is damaged, has no trace to draw; the record shows itself
        return own()
    bundle, metadata = found if isinstance(found, tuple) else (found, {})
    bundle["text/plain"] = record.to_text()
    return bundle, metadata
