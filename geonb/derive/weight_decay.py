"""4 of 15. Weight decay: the shrinkage that is already part of a step inside the ball."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

from geonb.derive.context import DerivationContext
from geonb.derive.derivation import Derivation, Outcome, make


def compute(
    *,
    controller: str,
    sigma_k: Mapping[str, float],
    sigma_max: Mapping[str, float],
    budget: Mapping[str, float],
    horizon: int,
) -> Outcome:
    """gamma_0 = min(1, sigma_k / (R sqrt(T))), the first step's shrinkage of a factor; documented: sigma_k / sigma_max.

    `scaled-gd` uses the documented ratio, decoupled; the Cayley-Stiefel controllers decay nothing.

    >>> compute(controller="frank-wolfe", sigma_k={"w": 1.0}, sigma_max={"w": 2.0}, budget={"w": 2.0}, horizon=100)
    Outcome(used={'w': 0.05}, documented={'w': 0.5})
    """
    documented = {name: sigma_k[name] / sigma_max[name] for name in sigma_k}
    if controller == "scaled-gd":
        return Outcome(documented, documented)
    if controller != "frank-wolfe":
        return Outcome(0.0, documented)
    return Outcome({name: min(1.0, sigma_k[name] / (budget[name] * sqrt(horizon))) for name in sigma_k}, documented)


def derive(context: DerivationContext) -> Derivation:
    """Derivation 4 for this plan."""
    inputs = {
        "controller": context.controller,
        "sigma_k": context.by_target("sigma_k"),
        "sigma_max": context.by_target("sigma_max"),
        "budget": context.budgets(),
        "horizon": context.horizon,
    }
    ball = context.controller == "frank-wolfe"
    return make(
        compute(**inputs),
        inputs,
        number=4,
        key="weight_decay",
        replaces="weight decay",
        unit="share of the factor, first step" if ball else "per step",
        formula="X <- (1 - gamma_t) X - gamma_t R u_t; shown: gamma_0 = sigma_k / (R sqrt(T))" if ball else "none",
        source="conditional gradient: a convex combination stays in the ball"
        if ball
        else "the bounded parameterisation",
        evidence="proven" if ball else "conjectural",
        applied=ball or context.controller == "scaled-gd",
        because=(
            "A step toward the ball's boundary is a convex combination, so the old factor shrinks by gamma by itself; "
            "that keeps the norm within the budget, and a second decay would only fight it."
            if ball
            else "The norm is bounded by the parameterisation; the documented ratio reaches 1 on a flat spectrum, a "
            "hundred times the usual decay, and nobody has run it."
        ),
        documented_formula="sigma_k / sigma_max per layer",
        documented_evidence="conjectural",
        beside={"customary": "0.01 for every parameter"},
    )
