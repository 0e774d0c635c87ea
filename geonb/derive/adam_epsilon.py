"""2 of 15. Adam's epsilon: a ridge in units of weight^2, sound in ScaledGD and meaningless inside Adam."""

from __future__ import annotations

from collections.abc import Mapping

from geonb.derive.context import SQRT_EPS, DerivationContext
from geonb.derive.derivation import Derivation, Outcome, make


def compute(*, controller: str, sigma_k: Mapping[str, float], sigma_max: Mapping[str, float]) -> Outcome:
    """max(sigma_k^2, sqrt(eps) sigma_max^2) of each matrix; used by `scaled-gd` alone, elsewhere there is no epsilon.

    >>> compute(controller="scaled-gd", sigma_k={"w": 0.5}, sigma_max={"w": 1.0}).used
    {'w': 0.25}
    """
    ridge = {name: max(sigma_k[name] ** 2, SQRT_EPS * sigma_max[name] ** 2) for name in sigma_k}
    return Outcome(ridge if controller == "scaled-gd" else "none", ridge)


def derive(context: DerivationContext) -> Derivation:
    """Derivation 2 for this plan."""
    inputs = {
        "controller": context.controller,
        "sigma_k": context.by_target("sigma_k"),
        "sigma_max": context.by_target("sigma_max"),
    }
    ridge = context.controller == "scaled-gd"
    return make(
        compute(**inputs),
        inputs,
        number=2,
        key="adam_epsilon",
        replaces="Adam epsilon",
        unit="weight^2" if ridge else "",
        formula="ridge of (B^T B + e I)^-1" if ridge else "none: polar(m) has no denominator, and polar(0) = 0",
        source="ScaledGD: Tong, Ma & Chi 2021" if ridge else "scale invariance of the polar factor",
        evidence="conjectural" if ridge else "proven",
        applied=ridge,
        because=(
            "As the ridge of ScaledGD the units agree: weight squared is added to weight squared."
            if ridge
            else "Adam adds epsilon to a gradient's size, so a squared weight does not belong there; this step "
            "depends on the gradient's direction only and divides by nothing."
        ),
        documented_formula="max(sigma_k^2, sqrt(eps) sigma_max^2) per layer",
        documented_evidence="disproven",
        beside={"customary": "1e-8"},
    )
