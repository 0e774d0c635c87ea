"""1 of 15. The learning rate becomes a displacement: the smallest of three bounds, per layer, in spectral norm."""

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
    gap_boundary: Mapping[str, float],
    budget: Mapping[str, float],
    horizon: int,
    batches_per_epoch: int,
) -> Outcome:
    """The first step of each matrix (spectral norm of its weight change), and the documented global ceiling.

    frank-wolfe: min(R, sigma_k / sqrt(T)), MATH.md section 4. mass: min sigma_k / max sigma_max / sqrt(N), one number
    for all. mass-layer: delta / (2 sqrt2 R) per unit of ||A_s||_2, delta = min(sigma_k, gap_boundary / 2).

    >>> out = compute(controller="frank-wolfe", sigma_k={"w": 0.5}, sigma_max={"w": 2.0}, gap_boundary={"w": 0.1},
    ...               budget={"w": 2.0}, horizon=100, batches_per_epoch=25)
    >>> out.used, out.documented
    ({'w': 0.05}, 0.25)
    """
    ceiling = min(sigma_k.values()) / max(sigma_max.values())
    if controller == "mass":
        return Outcome(ceiling / sqrt(batches_per_epoch), ceiling)
    if controller == "mass-layer":
        return Outcome(
            {name: min(sigma_k[name], gap_boundary[name] / 2) / (2 * sqrt(2) * budget[name]) for name in sigma_k},
            ceiling,
        )
    return Outcome({name: min(budget[name], sigma_k[name] / sqrt(horizon)) for name in sigma_k}, ceiling)


_USED = {
    "frank-wolfe": (
        "||dW step||_2",
        "eta_t = min(R, eta_sps, sigma_k (1 - t/T) / sqrt(T)); shown: t = 0",
        "conditional gradient (Frank & Wolfe 1956) on Weyl's ball; last iterate: Zamani & Glineur 2023",
        "empirical",
        "Each matrix may move by sigma_k once the random walk of T steps is counted; the documented ratio is a pure "
        "number where a rate needs length^2 per loss, and bound every step where it was tried.",
    ),
    "mass": (
        "rate, all layers",
        "eta = min(ceiling / sqrt(N), loss / ||d||^2, sigma_k_min / ||d||); shown: ceiling / sqrt(N)",
        "documented MASS controller with its sqrt(N) correction",
        "disproven",
        "Kept literal for reproduction: the ceiling mixes units and turned the run into gradient descent at a "
        "constant rate wherever it was measured.",
    ),
    "mass-layer": (
        "curve time x ||A_s||_2",
        "t <= delta / (2 sqrt2 R ||A_s||_2), delta = min(sigma_k - ||dW||_2, gap_boundary / 2)",
        "curve of Wen & Yin 2013; Lipschitz constant 2 sqrt2 R of the product",
        "conjectural",
        "The same three bounds stated per layer in one space; the Lipschitz constant is proven, that the resulting "
        "rate trains well is not.",
    ),
}


def derive(context: DerivationContext) -> Derivation:
    """Derivation 1 for this plan."""
    inputs = {
        "controller": context.controller,
        "sigma_k": context.by_target("sigma_k"),
        "sigma_max": context.by_target("sigma_max"),
        "gap_boundary": context.by_target("gap_boundary"),
        "budget": context.budgets(),
        "horizon": context.horizon,
        "batches_per_epoch": context.batches_per_epoch,
    }
    unit, formula, source, evidence, because = _USED.get(context.controller, _USED["frank-wolfe"])
    return make(
        compute(**inputs),
        inputs,
        number=1,
        key="learning_rate",
        replaces="learning rate",
        unit=unit,
        formula=formula,
        source=source,
        evidence=evidence,
        applied=True,
        because=because,
        documented_formula="min(sigma_k_min / sigma_max, loss / ||d||^2, sigma_k_min / ||d||); shown: the static term",
        documented_evidence="disproven",
        beside={"customary": "1e-4 to 3e-4 with Adam, found by search"},
    )
