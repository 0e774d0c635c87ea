"""14 of 15. Initialisation: the change of every matrix starts at exactly zero, in directions that the basis names."""

from __future__ import annotations

from collections.abc import Mapping

from geonb.derive.context import DerivationContext
from geonb.derive.derivation import Derivation, Outcome, make

_BASES = {
    "tail": "the last right singular vectors, null space first: the input directions that W uses least",
    "top": "the first right singular vectors: the input directions that W uses most",
    "full": "all input directions",
    "gradient": "the first right singular vectors of a calibration gradient",
    "random": "random orthonormal input directions",
}


def compute(*, basis: str, sigma_k: Mapping[str, float]) -> Outcome:
    """||BA||_2 at step 0: zero, because B = 0; documented: sigma_k of each matrix, the whole strict budget.

    >>> compute(basis="tail", sigma_k={"w": 0.5})
    Outcome(used=0.0, documented={'w': 0.5})
    """
    del basis
    return Outcome(0.0, dict(sigma_k))


def derive(context: DerivationContext) -> Derivation:
    """Derivation 14 for this plan."""
    inputs = {"basis": context.basis, "sigma_k": context.by_target("sigma_k")}
    return make(
        compute(**inputs),
        inputs,
        number=14,
        key="initialisation",
        replaces="LoRA initialisation",
        unit="||BA||_2 at step 0",
        formula=f"B = 0; rows of A orthonormal: {_BASES[context.basis]}",
        source="B = 0 gives BA = 0; choice of directions: geonb's own runs on two small language models",
        evidence="empirical",
        applied=True,
        because=(
            "The model is unchanged at step 0 and the whole budget is left. Starting at ||BA||_2 = sigma_k changes the "
            "model before any data is seen, and factors of norm sqrt(sigma_k) reach that product for rank one only."
        ),
        documented_formula="||A||_2 = ||B||_2 = sqrt(sigma_k), meant as ||BA||_2 = sigma_k",
        documented_evidence="disproven",
        beside={"customary": "random A, B = 0"},
    )
