"""9 of 15. Early stopping: a certificate of five conditions, each met, not met or unmeasured."""

from __future__ import annotations

from geonb.derive.context import SQRT_EPS, DerivationContext
from geonb.derive.derivation import Derivation, Outcome, make

CONDITIONS = ("stationarity", "improvement bound", "worst group", "no drift", "task improvement")


def compute(*, controller: str, n_eval: int, confidence: float) -> Outcome:
    """How many conditions must be met at which confidence; documented: a loss change and a share of the budget.

    `budget may stop` is False for the ball, where a full budget is an ordinary point of the boundary.

    >>> compute(controller="frank-wolfe", n_eval=32, confidence=0.95).used["conditions"]
    5
    """
    used = {
        "conditions": len(CONDITIONS) if n_eval > 0 else 0,
        "confidence": confidence,
        "budget may stop": controller != "frank-wolfe",
    }
    return Outcome(used, {"loss change below": SQRT_EPS, "budget above": 0.9})


def derive(context: DerivationContext) -> Derivation:
    """Derivation 9 for this plan."""
    inputs = {"controller": context.controller, "n_eval": context.n_eval, "confidence": 0.95}
    beside: dict[str, object] = {"customary": "patience of a few evaluations", "conditions": CONDITIONS}
    if context.resolves is not None:
        beside["what the evaluation split can tell apart (nats)"] = context.resolves
    return make(
        compute(**inputs),
        inputs,
        number=9,
        key="early_stopping",
        replaces="early stopping",
        unit="",
        formula="stop when all five hold; a condition that was not measured is never met",
        source="paired bootstrap over examples; improvement bound a^2/(2b) from a Hessian-vector product",
        evidence="conjectural",
        applied=True,
        because=(
            "A validation loss moves by sampling noise that is far above sqrt(eps), so the documented first test never "
            "fires; each condition here is compared with a confidence interval of the same examples."
        ),
        documented_formula="loss change < sqrt(eps) or ||BA||_2 / sigma_k > 0.9",
        documented_evidence="disproven",
        beside=beside,
    )
