"""5 of 15. Gradient clipping: removed, because the step's length does not depend on the gradient's."""

from __future__ import annotations

from geonb.derive.context import DerivationContext
from geonb.derive.derivation import Derivation, Outcome, make


def compute(*, controller: str) -> Outcome:
    """No threshold, in any controller of geonb and in the documented design."""
    del controller
    return Outcome("none", "removed")


def derive(context: DerivationContext) -> Derivation:
    """Derivation 5 for this plan."""
    inputs = {"controller": context.controller}
    ball = context.controller == "frank-wolfe"
    return make(
        compute(**inputs),
        inputs,
        number=5,
        key="gradient_clipping",
        replaces="gradient clipping",
        unit="",
        formula="||polar(m)||_2 = 1" if ball else "the step is bounded by eta_weyl",
        source="duality of the spectral and the nuclear norm" if ball else "the controller's displacement bound",
        evidence="proven" if ball else "empirical",
        applied=True,
        because=(
            "The direction has spectral norm one whatever the gradient's size, so there is nothing to clip."
            if ball
            else "The controller limits the displacement of every step; a threshold on the gradient would come on top."
        ),
        documented_formula="removed",
        documented_evidence="empirical",
        beside={"customary": "norm 1.0"},
    )
