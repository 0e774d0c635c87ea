"""What a plan would be with a derived number overridden: recomputed from the plan alone, at once, and labelled.

The model is not opened and nothing is measured again. `build_plan` with the same options gives the same plan, but for
what only a new measurement could tell: a calibration at other limits (`--max-rank`, `--memory-budget`) with the batch,
the horizon and everything else that follows from it, and how much the memory of a device that is no CPU holds, which a
plan does not store: there the micro-batch stays as it was given, and ranks that a device did not limit are not limited.
"""

from __future__ import annotations

import dataclasses
import html
import math
import re
from collections.abc import Iterable
from typing import Any

from geonb._version import __version__
from geonb.derive import lora_rank
from geonb.derive.context import DerivationContext, MatrixFacts
from geonb.derive.derivation import Derivation, shown
from geonb.derive.rounding import rounded
from geonb.derive.table import derive_all
from geonb.errors import InputError
from geonb.plan.buckets import derived_now
from geonb.plan.build import overridden, targeted
from geonb.plan.memory import Footprint, adapter_limit, micro_batch
from geonb.plan.options import PlanOptions, bytes_of, role_names
from geonb.plan.plan import Plan
from geonb.plan.target import TargetPlan
from geonb.plan.targets import target_plans
from geonb.record_tables import table_html
from geonb.records import Record, plain

_FLAGS = {
    "memory_budget": "--memory-budget",
    "max_rank": "--max-rank",
    "rank_rule": "--rank-rule",
    "exclude_roles": "--exclude-roles",
}
# what a `TargetPlan` keeps of the facts that it was made from, under the same name
_KEPT = (
    "name role layer expert shape sigma_max sigma_k effective_rank structural_rank k_certified tail_dims gap_boundary "
    "knee_rank noise_rank"
).split()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Change(Record):
    """One quantity of one matrix that an override changed: "chosen" (bool), "rank" or "parameters" (int)."""

    name: str
    quantity: str
    derived: Any
    override: Any


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf(Record):
    """An overridden plan beside the one that was given, which is called `derived` whatever it was itself.

    `arguments` are the flags of every override in effect in `plan`, to stand beside the model, the data and the options
    that are no override; `parameters` and `adapter_bytes` are pairs (derived, override).
    """

    plan: Plan
    changes: tuple[Change, ...]
    because: str
    arguments: tuple[str, ...]
    parameters: tuple[int, int]
    adapter_bytes: tuple[int, int]

    def summary(self) -> str:
        return f"WhatIf({self.because} {self.parameters[0]:,} -> {self.parameters[1]:,} parameters)"

    def to_text(self) -> str:
        """The sentence, both totals, and every matrix that changed."""
        lines = [self.because, *(f"  {name:20}{before:>16} -> {after}" for name, before, after in self._totals())]
        lines += [
            f"  {change.name}: {change.quantity} {shown(change.derived)} -> {shown(change.override)}"
            for change in self.changes
        ]
        return "\n".join(plain(line) for line in lines)

    def to_html(self) -> str:
        """The same as escaped tables."""
        rows = [
            (plain(change.name), change.quantity, shown(change.derived), shown(change.override))
            for change in self.changes
        ]
        totals = table_html(("", "derived", "override"), self._totals())
        changes = table_html(("matrix", "quantity", "derived", "override"), rows) if rows else ""
        return f"<p>{html.escape(plain(self.because))}</p>{totals}{changes}"

    def _totals(self) -> list[tuple[str, str, str]]:
        return [
            ("trained parameters", shown(self.parameters[0]), shown(self.parameters[1])),
            ("bytes of adapters", shown(self.adapter_bytes[0]), shown(self.adapter_bytes[1])),
        ]


def what_if(
    plan: Plan,
    *,
    memory_budget: int | str | None = None,
    rank_rule: str | None = None,
    exclude_roles: str | Iterable[str] | None = None,
    max_rank: int | None = None,
) -> WhatIf:
    """`plan` with these of its options overridden; None leaves an option as the plan has it.

    `rank_rule="tail"` and `exclude_roles=()` take an override of the given plan back. Raises `InputError` as
    `build_plan` does, and where the plan lacks what an override needs: a calibration for the rule `gradient`, and for a
    memory budget the sizes that plans of earlier versions do not hold.

    >>> what_if(plan, rank_rule="knee").parameters    # doctest: +SKIP
    (1535488, 641024)
    """
    given = PlanOptions.from_dict(plan.options)
    asked: dict[str, Any] = {
        "memory_budget": bytes_of(memory_budget),
        "max_rank": max_rank,
        "rank_rule": rank_rule,
        "exclude_roles": None if exclude_roles is None else role_names(exclude_roles),
    }
    options = dataclasses.replace(given, **{name: value for name, value in asked.items() if value is not None})
    options = options.checked()
    changed = [name for name in _FLAGS if getattr(options, name) != getattr(given, name)]
    found = _recomputed(plan, options) if changed else plan
    return WhatIf(
        plan=found,
        changes=_changes(plan.targets, found.targets),
        because=_because(plan, given, options, changed),
        arguments=_arguments(options),
        parameters=(plan.n_parameters, found.n_parameters),
        adapter_bytes=(_adapter_bytes(plan), _adapter_bytes(found)),
    )


def _recomputed(plan: Plan, options: PlanOptions) -> Plan:
    """The plan of `options`, which differ from the plan's own in overrides alone."""
    context = dataclasses.replace(overridden(_context(plan), options), max_rank=options.max_rank)
    context = _limited(targeted(context, plan.model["source"]), plan, options)
    derivations = derive_all(context)
    targets = target_plans(context, plan.targets, next(found for found in derivations if found.key == "dropout"))
    found = dataclasses.replace(
        plan,
        geonb_version=__version__,
        targets=targets,
        derivations=derivations,
        options=rounded(options.to_dict()),
    )
    batch = _batch(plan, options, _adapter_bytes(found))
    return dataclasses.replace(
        found,
        batch=batch,
        derived_now=derived_now(
            seed=plan.seed,
            output=plan.output,
            sequence_length=plan.sequence_length,
            split=plan.derived_now["evaluation split"],
            chosen=found.chosen(),
            batch=batch,
            horizon=plan.horizon,
        ),
    )


def _context(plan: Plan) -> DerivationContext:
    """What the derivations of `plan` read, from the plan; without targets, ranks and limits, which are to be found."""
    rule = plan.derivation("target_modules").inputs
    return DerivationContext(
        matrices=tuple(_facts(target, bool(rule["targetable"][target.name])) for target in plan.targets),
        n_train=plan.split["n_train"],
        n_eval=plan.split["n_eval"],
        resolves=plan.split["resolves"],
        controller=plan.controller["name"],
        basis=plan.controller["basis"],
        budget=plan.controller["budget"],
        sides=plan.controller["sides"],
        chosen_experts=tuple(rule["chosen_experts"]),
        batch_size=plan.batch["size"],
        horizon=plan.horizon["steps"],
        horizon_source=plan.horizon["source"],
        calibration=plan.calibration,
    )


def _facts(target: TargetPlan, targetable: bool) -> MatrixFacts:
    return MatrixFacts(
        **{name: getattr(target, name) for name in _KEPT},
        targetable=targetable,
        because=target.because.removeprefix("not targeted: "),
        is_zero=target.sigma_max == 0.0,
        full_rank=min(target.shape),
        # no derivation reads it and a plan does not store it: whoever starts to will notice
        gap_inside=math.nan,
    )


def _limited(context: DerivationContext, plan: Plan, options: PlanOptions) -> DerivationContext:
    """`context` with its memory limit and its ranks."""
    shapes = {matrix.name: matrix.shape for matrix in context.chosen()}
    wanted = lora_rank.derive(context).value
    if options.memory_budget is not None:
        limit, source = adapter_limit(
            _footprint(plan),
            shapes,
            wanted,
            sides=context.sides,
            memory_budget=options.memory_budget,
            device="cpu",
        )
    else:
        given = plan.derivation("lora_rank")
        limit, source = given.inputs["memory_limit"], _device(given)
    if options.memory_budget is None and (
        limit is None or lora_rank.adapter_bytes(shapes, wanted, context.sides) <= limit
    ):
        limit, source = None, "nothing stated"
    context = dataclasses.replace(context, memory_limit=limit, memory_source=source)
    return dataclasses.replace(context, ranks=lora_rank.derive(context).value)


def _device(rank: Derivation) -> str:
    """How a plan names the device whose memory limited its ranks."""
    found = re.search(r"the memory limit \((.+?)\) in ", rank.because)
    return found[1] if found else "the device of the plan that was given"


def _footprint(plan: Plan) -> Footprint:
    if "model_bytes" not in plan.batch or "example_bytes" not in plan.batch:
        raise InputError(
            f"--memory-budget needs what model and examples take in memory, which this plan of geonb "
            f"{plan.geonb_version} does not hold: build it again with this version."
        )
    return Footprint(model=plan.batch["model_bytes"], example=plan.batch["example_bytes"])


def _batch(plan: Plan, options: PlanOptions, adapters: int) -> dict[str, Any]:
    # without a budget the micro-batch follows from a device that is not asked again (on a CPU it would be the same)
    if options.memory_budget is None:
        return plan.batch
    micro, fits = micro_batch(
        plan.batch["size"], _footprint(plan), adapters, memory_budget=options.memory_budget, device="cpu"
    )
    parts = {"micro": micro, "accumulation": -(-plan.batch["size"] // micro), "micro_source": fits}
    return {**plan.batch, **parts}


def _adapter_bytes(plan: Plan) -> int:
    chosen = plan.chosen()
    shapes, ranks = {t.name: t.shape for t in chosen}, {t.name: t.rank for t in chosen}
    return lora_rank.adapter_bytes(shapes, ranks, plan.controller["sides"])


def _changes(derived: tuple[TargetPlan, ...], override: tuple[TargetPlan, ...]) -> tuple[Change, ...]:
    return tuple(
        Change(
            name=before.name, quantity=quantity, derived=getattr(before, quantity), override=getattr(after, quantity)
        )
        for before, after in zip(derived, override, strict=True)
        for quantity in ("chosen", "rank", "parameters")
        if getattr(before, quantity) != getattr(after, quantity)
    )


def _because(plan: Plan, given: PlanOptions, options: PlanOptions, changed: list[str]) -> str:
    if not changed:
        standing = " ".join(_arguments(given))
        if not standing:
            return "Nothing is overridden: this is the derived plan."
        return f"Nothing more is overridden: this is the plan that was given, an override by {standing}."
    parts = [
        f"{_FLAGS[name]} {_written(getattr(options, name))} in place of {_written(getattr(given, name))}"
        for name in changed
    ]
    measured = plan.calibration is not None and {"max_rank", "memory_budget"} & set(changed)
    kept = "; the calibration, and the batch that follows from it, stay as they were measured" if measured else ""
    return f"An override: {', '.join(parts)}{kept}."


def _arguments(options: PlanOptions) -> tuple[str, ...]:
    usual = PlanOptions()
    return tuple(
        part
        for name, flag in _FLAGS.items()
        if getattr(options, name) != getattr(usual, name)
        for part in (flag, _written(getattr(options, name)))
    )


def _written(value: Any) -> str:
    """An option's value as a shell is given it; "none" is for sentences only."""
    if isinstance(value, tuple):
        return ",".join(value) or "none"
    return "none" if value is None else str(value)
