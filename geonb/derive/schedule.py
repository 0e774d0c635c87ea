"""7 of 15. The schedule: a straight line to zero over the derived horizon, part of the step rather than a knob."""

from __future__ import annotations

from geonb.derive.context import DerivationContext
from geonb.derive.derivation import Derivation, Outcome, make


def compute(*, controller: str, horizon: int) -> Outcome:
    """T, the number of steps over which the step length falls to zero; 0 where the controller has no schedule.

    >>> compute(controller="frank-wolfe", horizon=200).used
    200
    """
    return Outcome(horizon if controller == "frank-wolfe" else 0, 0)


def derive(context: DerivationContext) -> Derivation:
    """Derivation 7 for this plan."""
    inputs = {"controller": context.controller, "horizon": context.horizon}
    annealed = context.controller == "frank-wolfe"
    return make(
        compute(**inputs),
        inputs,
        number=7,
        key="schedule",
        replaces="learning-rate schedule",
        unit="steps to zero" if annealed else "steps to zero (constant)",
        formula="eta_weyl proportional to 1 - t/T" if annealed else "none",
        source="Zamani & Glineur 2023; Defazio et al. 2023",
        evidence="empirical" if annealed else "conjectural",
        applied=annealed,
        because=(
            f"T = {context.horizon:,}: {context.horizon_source or 'as given'}. The straight line is optimal for the "
            "last iterate of convex Lipschitz problems; that it carries over to networks is measured, not proven."
            if annealed
            else "The documented controllers keep their ceiling constant within an epoch."
        ),
        documented_formula="removed (optional)",
        documented_evidence="empirical",
        beside={"customary": "cosine to zero"},
    )
