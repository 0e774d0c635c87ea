"""11 of 15. The LoRA rank: all tail dimensions, less only where a stated limit cannot hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geonb.derive.context import DerivationContext, parameters_of
from geonb.derive.derivation import Derivation, Outcome, make
from geonb.errors import InputError

# the first is the derived one; the others are shown beside it, and used where --rank-rule asks for one
RANK_RULES = ("tail", "customary", "knee", "noise", "data", "gradient")
_SHOWN = {"customary 8": "customary", "knee": "knee", "noise edge": "noise", "data": "data", "gradient": "gradient"}

# float32: B, its gradient, its average and its polar factor (out each), and A (in); both trained: four of each
_BYTES = 4


def adapter_bytes(shapes: Mapping[str, tuple[int, int]], ranks: Mapping[str, int], sides: str) -> int:
    """Bytes that factors, gradients, averages and polar factors of these ranks take, all in float32."""
    copies_of_a = 4 if sides == "two" else 1
    return _BYTES * sum(rank * (4 * shapes[name][0] + copies_of_a * shapes[name][1]) for name, rank in ranks.items())


def compute(
    *,
    tail_dims: Mapping[str, int],
    shapes: Mapping[str, tuple[int, int]],
    basis: str,
    sides: str,
    max_rank: int | None,
    memory_limit: int | None,
    asked: Mapping[str, int] | None = None,
) -> Outcome:
    """min(tail_dims, max_rank, c) of each matrix, c the largest common cap that `memory_limit` bytes hold.

    A common cap takes from the largest first, so that small matrices keep their whole tail. The `full` basis keeps
    every input direction. `asked` are the ranks of another rule, which a person put in the place of tail_dims. Ranks
    are at least 1. Documented: tail_dims = q - floor(erank).

    >>> compute(tail_dims={"a": 40, "b": 6}, shapes={"a": (64, 64), "b": (8, 8)}, basis="tail", sides="one",
    ...         max_rank=10, memory_limit=None).used
    {'a': 10, 'b': 6}
    """
    documented = dict(tail_dims)
    if asked is not None:
        wanted = {name: max(1, min(tail, asked[name])) for name, tail in tail_dims.items()}
    else:
        wanted = {name: shapes[name][1] if basis == "full" else tail for name, tail in tail_dims.items()}
    if max_rank is not None:
        wanted = {name: min(rank, max_rank) for name, rank in wanted.items()}
    if memory_limit is None or adapter_bytes(shapes, wanted, sides) <= memory_limit:
        return Outcome(wanted, documented)
    low, high = 1, max(wanted.values())
    while low < high:
        middle = (low + high + 1) // 2
        capped = {name: min(rank, middle) for name, rank in wanted.items()}
        low, high = (middle, high) if adapter_bytes(shapes, capped, sides) <= memory_limit else (low, middle - 1)
    return Outcome({name: min(rank, low) for name, rank in wanted.items()}, documented)


def ranks_by(rule: str, context: DerivationContext) -> dict[str, int] | None:
    """The ranks that one of `RANK_RULES` gives the targets, before any limit; None where `gradient` is unmeasured."""
    chosen = context.chosen()
    if rule == "gradient":
        measured = context.calibration.gradient_ranks if context.calibration is not None else {}
        if not chosen or any(matrix.name not in measured for matrix in chosen):
            return None
        wanted = {matrix.name: measured[matrix.name] for matrix in chosen}
    elif rule == "customary":
        wanted = {matrix.name: 8 for matrix in chosen}
    elif rule == "knee":
        wanted = {matrix.name: matrix.knee_rank * matrix.tail_dims // matrix.full_rank for matrix in chosen}
    elif rule == "noise":
        wanted = {matrix.name: matrix.full_rank - matrix.noise_rank for matrix in chosen}
    elif rule == "data":
        wanted = {matrix.name: context.n_train for matrix in chosen}
    else:
        wanted = {matrix.name: matrix.tail_dims for matrix in chosen}
    return {matrix.name: max(1, min(matrix.tail_dims, wanted[matrix.name])) for matrix in chosen}


def asked_for(context: DerivationContext) -> dict[str, int] | None:
    """The ranks of the rule that a person chose; None where the derived rule stands."""
    if context.rank_rule == RANK_RULES[0]:
        return None
    found = ranks_by(context.rank_rule, context)
    if found is None:
        measured = context.calibration.gradient_ranks if context.calibration is not None else {}
        without = sum(name not in measured for name in context.targets)
        raise InputError(
            "--rank-rule gradient needs a calibration that measured the gradient's rank of every target, and "
            f"{without:,} of {len(context.targets):,} have none: choose another rule."
        )
    return found


def ceilings(context: DerivationContext) -> dict[str, Any]:
    """The ranks that the other rules would give and what each would cost; None is unmeasured."""
    shapes = {matrix.name: matrix.shape for matrix in context.chosen()}
    rules = {shown: ranks_by(rule, context) for shown, rule in _SHOWN.items()}
    return {
        name: None
        if ranks is None
        else {
            "lowest": min(ranks.values(), default=0),
            "highest": max(ranks.values(), default=0),
            "parameters": parameters_of(shapes, ranks, context.sides),
        }
        for name, ranks in rules.items()
    }


def decided_by(context: DerivationContext, ranks: Mapping[str, int], asked: Mapping[str, int] | None = None) -> str:
    """Which bound decided the ranks, in a few words."""
    if asked is not None:
        rule = f"--rank-rule {context.rank_rule}, an override of the derived tail_dims"
        lower = [name for name, rank in ranks.items() if rank < asked[name]]
        return rule if not lower else f"{rule}, and by {_limit(context, ranks, lower)}"
    if context.basis == "full":
        return "the full basis, which keeps every input direction"
    tails = {matrix.name: matrix.tail_dims for matrix in context.chosen()}
    lower = [name for name, rank in ranks.items() if rank < tails[name]]
    return _limit(context, ranks, lower) if lower else "tail_dims in every matrix"


def _limit(context: DerivationContext, ranks: Mapping[str, int], lower: Sequence[str]) -> str:
    """Which stated limit took from the matrices called `lower`."""
    cap = max(ranks.values())
    if context.max_rank is not None and cap == context.max_rank:
        return f"--max-rank {context.max_rank:,} in {len(lower):,} of {len(ranks):,} matrices"
    return f"the memory limit ({context.memory_source}) in {len(lower):,} of {len(ranks):,} matrices"


def derive(context: DerivationContext) -> Derivation:
    """Derivation 11 for this plan."""
    chosen = context.chosen()
    inputs: dict[str, Any] = {
        "tail_dims": {matrix.name: matrix.tail_dims for matrix in chosen},
        "shapes": {matrix.name: matrix.shape for matrix in chosen},
        "basis": context.basis,
        "sides": context.sides,
        "max_rank": context.max_rank,
        "memory_limit": context.memory_limit,
    }
    asked = asked_for(context)
    if asked is not None:
        inputs["asked"] = asked
    outcome = compute(**inputs)
    formula = "r = in" if context.basis == "full" else "r = tail_dims = q - k, less only by a stated limit"
    return make(
        outcome,
        inputs,
        number=11,
        key="lora_rank",
        replaces="LoRA rank",
        unit="r by matrix",
        formula=formula
        if asked is None
        else f"r by the rule {context.rank_rule}, at most tail_dims, less by a stated limit",
        source=(
            "geonb's own runs on two small language models; effective rank: Roy & Vetterli 2007, on energies"
            if asked is None
            else f"--rank-rule {context.rank_rule}, a choice of whoever made this plan"
        ),
        evidence="empirical" if asked is None else "convention",
        applied=asked is None,
        because=(
            f"Decided by {decided_by(context, outcome.used, asked)}. In a spectral ball rank is capacity, not risk: "
            "loss fell with rank at nearly constant forgetting."
        ),
        documented_formula="tail_dims = q - floor(erank)",
        documented_evidence="empirical",
        beside=ceilings(context),
    )
