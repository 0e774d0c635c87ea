"""13 of 15. Dropout: none, with the documented product of two ratios beside it."""

from __future__ import annotations

from collections.abc import Mapping

from geonb.derive.context import DerivationContext
from geonb.derive.derivation import Derivation, Outcome, make


def compute(*, effective_rank: Mapping[str, float], full_rank: Mapping[str, int], rank: Mapping[str, int]) -> Outcome:
    """0 for all; documented: (1 - erank/q) (r/q) of each matrix, r no more than q.

    >>> compute(effective_rank={"w": 4.0}, full_rank={"w": 8}, rank={"w": 6})
    Outcome(used=0.0, documented={'w': 0.375})
    """
    documented = {
        name: max(0.0, 1.0 - effective_rank[name] / full_rank[name]) * min(1.0, rank[name] / full_rank[name])
        for name in rank
    }
    return Outcome(0.0, documented)


def derive(context: DerivationContext) -> Derivation:
    """Derivation 13 for this plan."""
    inputs = {
        "effective_rank": context.by_target("effective_rank"),
        "full_rank": context.by_target("full_rank"),
        "rank": {name: context.ranks[name] for name in context.targets},
    }
    return make(
        compute(**inputs),
        inputs,
        number=13,
        key="dropout",
        replaces="LoRA dropout",
        unit="probability",
        formula="0",
        source="dropout acts as a nuclear-norm penalty: Cavazza et al. 2018",
        evidence="conjectural",
        applied=False,
        because=(
            "The spectral ball already limits every direction of the change, which the specification itself takes for "
            "the tighter regulariser; at full tail rank its product reaches half, far above the range it reports."
        ),
        documented_formula="(1 - erank/q) (r/q) per layer",
        documented_evidence="disproven",
        beside={"customary": "0.1"},
    )
