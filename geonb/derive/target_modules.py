"""12 of 15. The target modules: every linear map inside the blocks that has room, which is nearly every one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geonb.derive.context import DerivationContext, MatrixFacts
from geonb.derive.derivation import Derivation, Outcome, make


def compute(
    *,
    tail_dims: Mapping[str, int],
    targetable: Mapping[str, bool],
    is_expert: Mapping[str, bool],
    chosen_experts: tuple[str, ...],
    excluded: Mapping[str, bool] | None = None,
) -> Outcome:
    """The names of the targets, in checkpoint order; documented: tail_dims > 0, whatever the matrix is.

    `excluded` is True for the matrices that a person took out by their role.

    >>> compute(tail_dims={"a": 3, "b": 0}, targetable={"a": True, "b": True}, is_expert={"a": False, "b": False},
    ...         chosen_experts=()).used
    ('a',)
    """
    wanted, taken_out = set(chosen_experts), excluded or {}
    used = tuple(
        name
        for name, tail in tail_dims.items()
        if targetable[name] and tail > 0 and (name in wanted or not is_expert[name]) and not taken_out.get(name, False)
    )
    return Outcome(used, tuple(name for name, tail in tail_dims.items() if tail > 0))


def reason(matrix: MatrixFacts, *, chosen_experts: tuple[str, ...] = (), excluded_roles: tuple[str, ...] = ()) -> str:
    """Why `matrix` is a target, or why it is not, in one sentence."""
    if matrix.is_zero:
        return "not targeted: every entry is zero, so it has no spectrum to measure a budget by"
    if matrix.full_rank < 2:
        return f"not targeted: {matrix.shape[0]} x {matrix.shape[1]} has one singular value and no tail"
    if not matrix.targetable:
        return f"not targeted: {matrix.because or 'it is not a linear map inside a block'}"
    if matrix.expert is not None and matrix.name not in chosen_experts:
        return (
            "not targeted: an expert sees only the tokens routed to it and PEFT loads it as a parameter; "
            "name it in --target-experts to train it"
        )
    if matrix.role in excluded_roles:
        return f"not targeted: the role {matrix.role} was excluded by --exclude-roles (an override)"
    return (
        f"targeted: {matrix.tail_dims:,} of {matrix.full_rank:,} directions lie beyond the "
        f"{matrix.structural_rank:,} that carry its structure"
    )


def derive(context: DerivationContext) -> Derivation:
    """Derivation 12 for this plan."""
    inputs: dict[str, Any] = {
        "tail_dims": {matrix.name: 0 if matrix.is_zero else matrix.tail_dims for matrix in context.matrices},
        "targetable": {matrix.name: matrix.targetable and not matrix.is_zero for matrix in context.matrices},
        "is_expert": {matrix.name: matrix.expert is not None for matrix in context.matrices},
        "chosen_experts": context.chosen_experts,
    }
    override = ""
    if context.excluded_roles:
        without = len(compute(**inputs).used)
        inputs["excluded"] = {matrix.name: matrix.role in context.excluded_roles for matrix in context.matrices}
        without -= len(compute(**inputs).used)
        override = (
            f" An override: --exclude-roles {','.join(context.excluded_roles)} took out {without:,} of the matrices "
            "that this rule targets."
        )
    outcome = compute(**inputs)
    return make(
        outcome,
        inputs,
        number=12,
        key="target_modules",
        replaces="target modules",
        unit=f"{len(outcome.used):,} of {len(context.matrices):,} matrices",
        formula="linear maps inside the blocks with sigma_max > 0 and tail_dims > 0"
        + (", less the excluded roles" if override else ""),
        source="k is at most q - 1 by its definition, so tail_dims is at least 1",
        evidence="convention",
        applied=True,
        because=(
            "tail_dims is at least one for every matrix with two or more singular values, so the documented test "
            "refuses nothing; what decides is being a linear map inside a block. The table ranks them by budget."
            + override
        ),
        documented_formula="tail_dims > 0",
        documented_evidence="disproven",
        beside={"customary": "q and v projections"},
    )
