"""10 of 15. The LoRA scale: a ball that the adapter never leaves, instead of a factor applied afterwards."""

from __future__ import annotations

from collections.abc import Mapping

from geonb.derive.context import DerivationContext, radii
from geonb.derive.derivation import Derivation, Outcome, make

_REASONS = {
    "strict": ("sigma_k", "Strict budget: no singular value of any matrix can move by more than its sigma_k."),
    "balanced": (
        "min(3 sigma_k, sigma_max)",
        "Balanced budget: no singular value of any matrix can move by more than three times its sigma_k, and no change "
        "exceeds its matrix. The bound is proven; the factor is a convention, which in papers/zero-knob fitted as well as "
        "sigma_max and forgot less.",
    ),
    "open": (
        "sigma_max",
        "Open budget: a change never exceeds the matrix itself. The bound is proven; that sigma_max is the right radius "
        "is a preference, which in papers/zero-knob fitted as well as 3 sigma_k and forgot more; better in long runs.",
    ),
}


def compute(*, budget: str, sigma_k: Mapping[str, float], sigma_max: Mapping[str, float]) -> Outcome:
    """R of each matrix: sigma_k (`strict`), 3 sigma_k but at most sigma_max (`balanced`), or sigma_max (`open`).

    Documented: sigma_k / ||BA||_2, shown at ||BA||_2 = R, the scale that the specification would still allow an adapter
    that has used all of R.

    >>> compute(budget="open", sigma_k={"w": 0.5}, sigma_max={"w": 2.0})
    Outcome(used={'w': 2.0}, documented={'w': 0.25})
    """
    radius = radii(budget, sigma_k, sigma_max)
    return Outcome(radius, {name: sigma_k[name] / radius[name] for name in radius})


def derive(context: DerivationContext) -> Derivation:
    """Derivation 10 for this plan."""
    inputs = {
        "budget": context.budget,
        "sigma_k": context.by_target("sigma_k"),
        "sigma_max": context.by_target("sigma_max"),
    }
    radius, because = _REASONS[context.budget]
    return make(
        compute(**inputs),
        inputs,
        number=10,
        key="lora_scale",
        replaces="LoRA scale (alpha / r)",
        unit="R, bound of ||BA||_2",
        formula=f"||BA||_2 <= R = {radius}; the scale in the file is 1 (alpha = r)",
        source="Weyl 1912: no singular value moves by more than ||BA||_2; convexity of the ball",
        evidence="proven",
        applied=True,
        because=because,
        documented_formula="sigma_k / ||BA||_2; shown at ||BA||_2 = R",
        documented_evidence="proven",
        beside={
            "customary": "alpha = 2r, a scale of 2 whatever the matrix",
            "as a predictor of behaviour": "disproven: the ratio ||BA||_2 / sigma_k bounds spectra, not quality",
        },
    )
