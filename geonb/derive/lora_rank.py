"""11 of 15. The LoRA rank: all tail dimensions, less only where a stated limit cannot hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geonb.derive.context import DerivationContext, parameters_of
from geonb.derive.derivation import Derivation, Outcome, make

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
) -> Outcome:
    """min(tail_dims, max_rank, c) of each matrix, c the largest common cap that `memory_limit` bytes hold.

    A common cap takes from the largest first, so that small matrices keep their whole tail. The `full` basis keeps
    every input direction. Ranks are at least 1. Documented: tail_dims = q - floor(erank).

    >>> compute(tail_dims={"a": 40, "b": 6}, shapes={"a": (64, 64), "b": (8, 8)}, basis="tail", sides="one",
    ...         max_rank=10, memory_limit=None).used
    {'a': 10, 'b': 6}
    """
    documented = dict(tail_dims)
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


def ceilings(context: DerivationContext) -> dict[str, Any]:
    """The ranks that other rules would give and what each would cost; shown, never used. None is unmeasured."""
    chosen = context.chosen()
    shapes = {matrix.name: matrix.shape for matrix in chosen}
    gradient = context.calibration.gradient_ranks if context.calibration is not None else {}
    rules: dict[str, dict[str, int] | None] = {
        "customary 8": {m.name: min(8, m.tail_dims) for m in chosen},
        "knee": {m.name: max(1, min(m.tail_dims, m.knee_rank * m.tail_dims // m.full_rank)) for m in chosen},
        "noise edge": {m.name: max(1, min(m.tail_dims, m.full_rank - m.noise_rank)) for m in chosen},
        "data": {m.name: max(1, min(m.tail_dims, context.n_train)) for m in chosen},
        "gradient": (
            {m.name: max(1, min(m.tail_dims, gradient[m.name])) for m in chosen}
            if chosen and all(m.name in gradient for m in chosen)
            else None
        ),
    }
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


def decided_by(context: DerivationContext, ranks: Mapping[str, int]) -> str:
    """Which bound decided the ranks, in a few words."""
    if context.basis == "full":
        return "the full basis, which keeps every input direction"
    lower = [name for name, rank in ranks.items() if rank < context.matrix(name).tail_dims]
    if not lower:
        return "tail_dims in every matrix"
    cap = max(ranks.values())
    if context.max_rank is not None and cap == context.max_rank:
        return f"--max-rank {context.max_rank:,} in {len(lower):,} of {len(ranks):,} matrices"
    return f"the memory limit ({context.memory_source}) in {len(lower):,} of {len(ranks):,} matrices"


def derive(context: DerivationContext) -> Derivation:
    """Derivation 11 for this plan."""
    chosen = context.chosen()
    inputs = {
        "tail_dims": {matrix.name: matrix.tail_dims for matrix in chosen},
        "shapes": {matrix.name: matrix.shape for matrix in chosen},
        "basis": context.basis,
        "sides": context.sides,
        "max_rank": context.max_rank,
        "memory_limit": context.memory_limit,
    }
    outcome = compute(**inputs)
    return make(
        outcome,
        inputs,
        number=11,
        key="lora_rank",
        replaces="LoRA rank",
        unit="r by matrix",
        formula="r = in" if context.basis == "full" else "r = tail_dims = q - k, less only by a stated limit",
        source="geonb's own runs on two small language models; effective rank: Roy & Vetterli 2007, on energies",
        evidence="empirical",
        applied=True,
        because=(
            f"Decided by {decided_by(context, outcome.used)}. In a spectral ball rank is capacity, not risk: loss fell "
            "with rank at nearly constant forgetting."
        ),
        documented_formula="tail_dims = q - floor(erank)",
        documented_evidence="empirical",
        beside=ceilings(context),
    )
