"""6 of 15. Warm-up: removed, because no running second moment has to fill up before the first step is safe."""

from __future__ import annotations

from geonb.derive.context import DerivationContext
from geonb.derive.derivation import Derivation, Outcome, make


def compute(*, controller: str) -> Outcome:
    """Zero steps of warm-up, as documented."""
    del controller
    return Outcome(0, 0)


def derive(context: DerivationContext) -> Derivation:
    """Derivation 6 for this plan."""
    inputs = {"controller": context.controller}
    return make(
        compute(**inputs),
        inputs,
        number=6,
        key="warmup",
        replaces="warm-up",
        unit="steps",
        formula="none: the first step is bounded like every other",
        source="Ma & Yarats 2021: warm-up mends Adam's first steps",
        evidence="empirical",
        applied=True,
        because=(
            "Warm-up covers for Adam's unfilled moments; here the change of a matrix starts at zero and its first step "
            "is at most sigma_k over sqrt(T). Our runs had none and none diverged at the start."
        ),
        documented_formula="removed",
        documented_evidence="empirical",
        beside={"customary": "5 to 10 % of the steps"},
    )
