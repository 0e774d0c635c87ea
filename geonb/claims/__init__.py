"""Published claims: their register, and the verdict that a notebook reaches by a rule written before the run."""

from __future__ import annotations

from geonb import _lazy

_NAMES = {
    "Check": "checks",
    "Claim": "register",
    "ClaimResult": "verdict",
    "Register": "register",
    "Verdict": "verdict",
    "judge": "verdict",
    "load_claims": "register",
    "papers_folder": "register",
    "result_of": "emit",
    "verify": "emit",
}

__getattr__, __dir__, __all__ = _lazy.attach(__name__, _NAMES)
