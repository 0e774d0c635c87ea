"""15 of 15. Residual scaling: measured on real activations and left alone."""

from __future__ import annotations

from collections.abc import Mapping

from geonb.derive.context import SQRT_EPS, DerivationContext
from geonb.derive.derivation import Derivation, Outcome, make


def compute(*, residual_gains: Mapping[str, float] | None) -> Outcome:
    """1 for every block; documented: sigma_max(x) / sigma_max(f(x)) clamped to [sqrt(eps), 1/sqrt(eps)].

    >>> compute(residual_gains={"layers.0": 1e9}).documented["layers.0"] == 1 / SQRT_EPS
    True
    """
    if not residual_gains:
        return Outcome(1.0, None)
    return Outcome(1.0, {name: min(max(gain, SQRT_EPS), 1 / SQRT_EPS) for name, gain in residual_gains.items()})


def derive(context: DerivationContext) -> Derivation:
    """Derivation 15 for this plan."""
    measured = context.calibration
    inputs = {"residual_gains": dict(measured.residual_gains) if measured is not None else None}
    return make(
        compute(**inputs),
        inputs,
        number=15,
        key="residual_scaling",
        replaces="residual scaling",
        unit="factor of every block's output",
        formula="x + f(x), as the model was trained",
        source="a factor of one is the identity",
        evidence="proven",
        applied=False,
        because=(
            "Any factor but one changes what the pretrained model computes before training starts; the measured ratio "
            "is shown because it tells how strongly each block writes into the residual stream."
        ),
        documented_formula="sigma_max(x) / sigma_max(f(x)) per block, median over calibration examples",
        documented_evidence="conjectural",
        beside={"customary": "1"},
    )
