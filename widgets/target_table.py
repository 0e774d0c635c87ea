"""TargetTable: every matrix of a plan with its reason, the fifteen numbers, and what an override would change."""

from __future__ import annotations

from typing import Any

from geonb.derive.derivation import shown
from geonb.derive.lora_rank import RANK_RULES
from geonb.models.matrix_ref import ROLES
from geonb.plan.override import WhatIf, what_if
from geonb.plan.plan import Plan
from geonb.record_tables import table_html
from geonb.widgets.view import View, picture_html

_STATIC_ROWS = 60


class TargetTable(View):
    """The matrices of a `Plan` - chosen or skipped, rank, budget, parameters, and the sentence that says why.

    Sort, filter and search in the page; `what_if` (in the page or here) recomputes the plan with a memory budget, a
    rank rule or excluded roles, and marks every change against the derived plan. `plan` is then the overridden one.

    >>> table = TargetTable(plan)                        # doctest: +SKIP
    >>> table.what_if(rank_rule="knee").plan.n_parameters    # doctest: +SKIP
    641024
    """

    name = "target_table"

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.derived = plan
        self.result: WhatIf = what_if(plan)
        self._asked: dict[str, Any] = {"memory_budget": None, "rank_rule": None, "exclude_roles": None}

    def __repr__(self) -> str:
        return f"TargetTable({len(self.derived.chosen())} of {len(self.derived.targets)} matrices, {self._model()!r})"

    def _model(self) -> str:
        return str(self.derived.model["name"])

    @property
    def record(self) -> Plan:
        """The plan that was given."""
        return self.derived

    @property
    def plan(self) -> Plan:
        """The plan as it is shown: the derived one, or the overridden one."""
        return self.result.plan

    def what_if(
        self,
        *,
        memory_budget: int | str | None = None,
        rank_rule: str | None = None,
        exclude_roles: str | list[str] | tuple[str, ...] | None = None,
    ) -> TargetTable:
        """Override the derived plan by these, or by nothing; raises `InputError` and changes nothing on bad input."""
        asked = {"memory_budget": memory_budget or None, "rank_rule": rank_rule, "exclude_roles": exclude_roles}
        self.result = what_if(self.derived, **asked)
        self._asked = asked
        self.push(data=False)
        return self

    # -- what is sent ---------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        plan, before = self.plan, {target.name: target for target in self.derived.targets}
        changed = {change.name for change in self.result.changes}
        options = plan.options
        return {
            "title": f"{self._model()} on {self.derived.data['path']}",
            "lead": (
                f"{plan.batch['size']} examples a step · {plan.horizon['steps']:,} steps · {plan.controller['name']} · "
                f"seed {plan.seed}"
            ),
            "matrices": [self._row(target, before, changed) for target in plan.targets],
            "roles": [role for role in ROLES if any(target.role == role for target in plan.targets)],
            "rules": list(RANK_RULES),
            "asked": {
                "memory_budget": self._asked["memory_budget"] or options.get("memory_budget") or "",
                "rank_rule": options.get("rank_rule", "tail"),
                "exclude_roles": list(options.get("exclude_roles", ())),
            },
            "is_override": bool(self.result.changes) or plan.to_dict() != self.derived.to_dict(),
            "because": self.result.because,
            "arguments": list(self.result.arguments),
            "parameters": list(self.result.parameters),
            "bytes": list(self.result.adapter_bytes),
            "derivations": [
                {
                    "number": found.number,
                    "replaces": found.replaces,
                    "value": shown(found.value),
                    "unit": found.unit,
                    "formula": found.formula,
                    "evidence": found.evidence,
                    "applied": found.applied,
                    "because": found.because,
                    "source": found.source,
                    "documented": f"{shown(found.documented_value)} by {found.documented_formula}",
                    "documented_evidence": found.documented_evidence,
                }
                for found in plan.derivations
            ],
        }

    def _row(self, target: Any, before: dict[str, Any], changed: set[str]) -> dict[str, Any]:
        kept = (
            "name",
            "role",
            "layer",
            "expert",
            "chosen",
            "rank",
            "budget",
            "parameters",
            "because",
            "sigma_k",
            "tail_dims",
        )
        row = {name: getattr(target, name) for name in kept}
        row["shape"] = list(target.shape)
        if target.name in changed:
            old = before[target.name]
            row["was"] = {"chosen": old.chosen, "rank": old.rank, "parameters": old.parameters}
        return row

    def receive(self, event: dict[str, Any]) -> None:
        if event.get("kind") == "what-if":
            roles = event.get("exclude_roles")
            self.what_if(
                memory_budget=str(event.get("memory_budget") or "").strip() or None,
                rank_rule=event.get("rank_rule") or None,
                exclude_roles=[str(role) for role in roles] if roles is not None else None,
            )

    # -- still pictures -------------------------------------------------------------------------------------------

    def static(self) -> str:
        from geonb.widgets.target_picture import target_picture

        plan = self.plan
        rows = [
            (
                target.name, "trained" if target.chosen else "skipped", target.rank or None, target.budget or None,
                target.parameters or None, target.because,
            )
            for target in plan.targets[:_STATIC_ROWS]
        ]  # fmt: skip
        more = f", the first {_STATIC_ROWS} here" if len(plan.targets) > _STATIC_ROWS else ""
        fifteen = [
            (
                found.number,
                found.replaces,
                found.brief,
                found.evidence,
                found.because,
            )
            for found in plan.derivations
        ]
        return (
            picture_html(target_picture(plan), alt=f"Ranks by layer and role of {self._model()}")
            + table_html(
                ("", "instead of", "this plan uses", "evidence", "because"), fifteen, caption="The fifteen numbers"
            ).replace("white-space:nowrap", "vertical-align:top")
            + "<details><summary>"
            + f"{len(plan.chosen())} of {len(plan.targets)} matrices, {plan.n_parameters:,} parameters{more}</summary>"
            + table_html(("matrix", "", "rank", "budget R", "parameters", "because"), rows)
            + "</details>"
        )

    def figure(self) -> Any:
        from geonb.widgets.figures import target_figure

        return target_figure(self.plan)
