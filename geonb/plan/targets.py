"""From geometry to targets: the facts that the derivations read, and what the plan says of every matrix."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from geonb.derive import target_modules
from geonb.derive.context import DerivationContext, MatrixFacts, parameters_of
from geonb.derive.derivation import Derivation
from geonb.derive.rounding import significant
from geonb.plan.target import TargetPlan


def facts_of(geometry: Any) -> MatrixFacts:
    """The scalars of one `MatrixGeometry` as the derivations see them, floats rounded as stored."""
    ref, spectrum = geometry.ref, geometry.spectrum
    return MatrixFacts(
        name=ref.name,
        role=ref.role,
        layer=ref.layer,
        expert=ref.expert,
        shape=(int(ref.shape[0]), int(ref.shape[1])),
        targetable=bool(ref.targetable),
        because=ref.because,
        is_zero=bool(spectrum.is_zero),
        sigma_max=significant(spectrum.sigma_max),
        sigma_k=significant(spectrum.sigma_k),
        effective_rank=significant(spectrum.effective_rank),
        structural_rank=int(spectrum.structural_rank),
        k_certified=bool(spectrum.k_certified),
        full_rank=int(spectrum.full_rank),
        tail_dims=int(spectrum.tail_dims),
        gap_inside=significant(spectrum.gap_inside),
        gap_boundary=significant(spectrum.gap_boundary),
        knee_rank=int(spectrum.knee_rank),
        noise_rank=int(spectrum.noise_rank),
    )


def target_plans(
    context: DerivationContext, refs: Iterable[Any], dropout: Derivation | None = None
) -> tuple[TargetPlan, ...]:
    """One `TargetPlan` for every analysed matrix, in the order of the checkpoint."""
    modules = {ref.name: ref.module for ref in refs}
    chosen, budgets = set(context.targets), context.budgets()
    documented = dropout.documented_value if dropout is not None else {}
    plans = []
    for matrix in context.matrices:
        is_chosen = matrix.name in chosen
        rank = context.ranks.get(matrix.name, 0) if is_chosen else 0
        plans.append(
            TargetPlan(
                name=matrix.name,
                module=modules[matrix.name],
                role=matrix.role,
                layer=matrix.layer,
                expert=matrix.expert,
                shape=matrix.shape,
                chosen=is_chosen,
                because=target_modules.reason(
                    matrix, chosen_experts=context.chosen_experts, excluded_roles=context.excluded_roles
                ),
                rank=rank,
                basis=context.basis if is_chosen else "",
                budget=budgets[matrix.name] if is_chosen else 0.0,
                parameters=parameters_of({matrix.name: matrix.shape}, {matrix.name: rank}, context.sides),
                sigma_k=matrix.sigma_k,
                sigma_max=matrix.sigma_max,
                gap_boundary=matrix.gap_boundary,
                effective_rank=matrix.effective_rank,
                structural_rank=matrix.structural_rank,
                k_certified=matrix.k_certified,
                tail_dims=matrix.tail_dims,
                knee_rank=matrix.knee_rank,
                noise_rank=matrix.noise_rank,
                dropout_documented=documented.get(matrix.name, 0.0) if is_chosen else 0.0,
            )
        )
    return tuple(plans)
