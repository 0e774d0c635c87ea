"""3 of 15. Momentum: averaging of gradients whose length follows from the horizon."""

from __future__ import annotations

from geonb.derive.context import DerivationContext
from geonb.derive.derivation import Derivation, Outcome, make


def compute(*, controller: str, horizon: int) -> Outcome:
    """beta = 1 - 1/sqrt(T) for conditional gradient; the Cayley-Stiefel controllers carry no momentum.

    >>> compute(controller="frank-wolfe", horizon=400).used
    0.95
    """
    return Outcome(1.0 - horizon**-0.5 if controller == "frank-wolfe" else 0.0, "Cayley-Stiefel retraction")


def derive(context: DerivationContext) -> Derivation:
    """Derivation 3 for this plan."""
    inputs = {"controller": context.controller, "horizon": context.horizon}
    averaging = context.controller == "frank-wolfe"
    return make(
        compute(**inputs),
        inputs,
        number=3,
        key="momentum",
        replaces="momentum (Adam's betas)",
        unit="beta" if averaging else "beta (none)",
        formula="beta = 1 - 1/sqrt(T), bias-corrected" if averaging else "none; the factors move on a Cayley curve",
        source=(
            "order of stochastic conditional gradient: Mokhtari et al. 2020, Cutkosky & Mehta 2020"
            if averaging
            else "Wen & Yin 2013"
        ),
        evidence="empirical" if averaging else "conjectural",
        applied=True,
        because=(
            "Theory gives the exponent and the unit constant is a convention; without averaging, the noise of single "
            "batches cancelled most of the step in our runs."
            if averaging
            else "The retraction keeps the factors orthogonal, which stands where momentum stood in the specification."
        ),
        documented_formula="orthogonality constraint on the factors, no betas",
        documented_evidence="conjectural",
        beside={"customary": "betas 0.9 and 0.999"},
    )
