"""Training: the loop, its controllers, stopping certificate, checkpoints and verification."""

from __future__ import annotations

from geonb import _lazy

_NAMES = {
    "EvalEvent": "events",
    "Run": "execute",
    "RunFolder": "run_folder",
    "RunStatus": "status",
    "RunsCompared": "compare",
    "StepEvent": "events",
    "StopEvent": "events",
    "Training": "training",
    "Verification": "gates",
    "compare_runs": "compare",
    "run_status": "status",
    "run_training": "execute",
    "train": "training",
    "verify": "verification",
}

__getattr__, __dir__, __all__ = _lazy.attach(__name__, _NAMES)
