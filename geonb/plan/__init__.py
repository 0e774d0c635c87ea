"""Compose the fifteen derivations into a training plan, explain it, save it."""

from geonb._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Plan": "plan",
        "TargetPlan": "target",
        "PlanOptions": "options",
        "build_plan": "build",
        "load_inputs": "inputs",
        "WhatIf": "override",
        "what_if": "override",
    },
)
