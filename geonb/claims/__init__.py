"""Published claims: their register, and the verdict that a notebook reaches by a rule written before the run."""

from __future__ import annotations

from geonb import _lazy

_NAMES = {
    "Batch": "batch",
    "BatchEvent": "batch",
    "Check": "checks",
    "Claim": "register",
    "ClaimRecord": "recorded",
    "ClaimResult": "verdict",
    "Environment": "environment",
    "Ledger": "ledger",
    "LedgerRow": "ledger",
    "NotebookRun": "run",
    "PublishedFigure": "reference",
    "Reference": "reference",
    "Register": "register",
    "Verdict": "verdict",
    "claim_events": "batch",
    "judge": "verdict",
    "ledger_of": "ledger",
    "ledger_page": "ledger_pages",
    "load_claims": "register",
    "load_reference": "reference",
    "load_references": "reference",
    "papers_folder": "register",
    "record_runs": "recorded",
    "result_of": "emit",
    "run_claims": "batch",
    "runs_of": "batch",
    "verify": "emit",
    "write_ledger": "ledger",
}

__getattr__, __dir__, __all__ = _lazy.attach(__name__, _NAMES)
