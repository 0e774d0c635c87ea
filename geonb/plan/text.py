"""A plan as text: the resolved values, the fifteen with their reasons, and on request every matrix."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from geonb.derive.derivation import Derivation, shown
from geonb.records import plain

if TYPE_CHECKING:
    from geonb.plan.plan import Plan

_WIDTH = 110
_LABEL = 14


def plan_text(plan: Plan, *, explain: bool = False) -> str:
    """What a shell shows of `plan`; `explain` adds formulas, sources and the table of matrices."""
    lines = [f"Plan: {plan.model['name']} on {plan.data['path']}", ""]
    lines += [line for label, value in _facts(plan) for line in _row(label, value)]
    lines += ["", "The fifteen (value, what the specification's formula gives, evidence, reason)"]
    for derivation in plan.derivations:
        lines += _explained(derivation) if explain else _short(derivation)
    if explain:
        lines += ["", *_matrices(plan)]
    return "\n".join(plain(line) for line in lines)


def _facts(plan: Plan) -> list[tuple[str, str]]:
    """Label and value of each resolved thing, in reading order."""
    chosen, split, batch, steps = plan.chosen(), plan.split, plan.batch, plan.horizon
    bounds = {
        name: shown({target.name: getattr(target, name) for target in chosen})
        for name in ("sigma_k", "sigma_max", "budget", "rank")
    }
    evaluation = plan.evaluation["path"] or "split off the data"
    resolves = "" if split["resolves"] is None else f"; can tell {split['resolves']:.3g} nats"
    share = plan.n_parameters / max(1, plan.model["parameters"])
    cut = f"; {plan.data['n_cut']:,} cut" if plan.data["n_cut"] else ""
    controller = plan.controller
    rank = plan.derivation("lora_rank")
    return [
        ("model", f"{plan.model['source']} ({plan.model['architecture']}, {plan.model['digest'][:12]})"),
        (
            "data",
            f"{plan.data['n_examples']:,} examples, {plan.data['n_tokens']:,} tokens ({plan.data['digest'][:12]})",
        ),
        ("evaluation", f"{evaluation}{resolves}"),
        ("seed", f"{plan.seed} ({plan.seed_source})"),
        ("output", f"{plan.output} (checked when training starts; a folder that exists is never overwritten unasked)"),
        ("length", f"{plan.sequence_length:,} tokens ({plan.sequence_length_source}){cut}"),
        (
            "split",
            f"{split['method']}: {split['n_train']:,} to train, {split['n_eval']:,} to evaluate; {split['because']}",
        ),
        (
            "batch",
            f"{batch['size']:,} = {batch['micro']:,} x {batch['accumulation']:,} accumulated; {batch['micro_source']}",
        ),
        ("horizon", f"{steps['steps']:,} steps, {steps['epochs']:.3g} epochs ({steps['source']})"),
        (
            "targets",
            f"{len(chosen):,} of {len(plan.targets):,} matrices, ranks {bounds['rank']}, {plan.n_parameters:,} trained "
            f"parameters ({share:.1%} of the model's own); {rank.because.split('. ')[0].lower()}",
        ),
        ("bounds", f"sigma_k {bounds['sigma_k']}, sigma_max {bounds['sigma_max']}, R {bounds['budget']}"),
        (
            "controller",
            f"{controller['name']}, {controller['sides']}-sided, {controller['basis']} basis, "
            f"{controller['budget']} budget: no fixed rate; each step is min(eta_ceiling, eta_sps, eta_weyl)",
        ),
        ("during", "measured: " + ", ".join(plan.measured_during_training)),
        ("after", "verified: " + ", ".join(plan.verified_after_training)),
        ("benchmark", plan.options.get("benchmark") or "off; add --benchmark quick for scores before and after"),
        ("calibration", plan.calibration.because if plan.calibration else "off: noise scale and gains are unmeasured"),
    ]


def _row(label: str, value: str) -> list[str]:
    return textwrap.wrap(
        plain(value),
        _WIDTH,
        initial_indent=f"  {label:{_LABEL - 2}}",
        subsequent_indent=" " * _LABEL,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _short(derivation: Derivation) -> list[str]:
    value = f"{shown(derivation.value)} {derivation.unit}".strip()
    if derivation.key == "target_modules":
        value = derivation.unit
    documented = "the same rule" if derivation.key == "target_modules" else shown(derivation.documented_value)
    mark = "" if derivation.applied else ", documented form not applied"
    head = f"  {derivation.number:>2}  {derivation.replaces:24}{value}"
    note = f"documented {documented} [{derivation.documented_evidence}]; here [{derivation.evidence}]{mark}"
    return [head, *_indented(note), *_indented(derivation.because)]


def _explained(derivation: Derivation) -> list[str]:
    return [
        *_short(derivation),
        *_indented(f"formula: {derivation.formula}; documented: {derivation.documented_formula}"),
        *_indented(f"source: {derivation.source}"),
        *(line for name, item in derivation.beside.items() for line in _indented(f"beside: {name}: {shown(item)}")),
    ]


def _indented(text: str) -> list[str]:
    return textwrap.wrap(plain(text), _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False)


def _matrices(plan: Plan) -> list[str]:
    """Every matrix, chosen ones by falling budget, then the rest with their reasons."""
    lines = ["Matrices that are trained, by budget"]
    lines.append(f"  {'name':52}{'shape':>13}{'rank':>6}{'tail':>6}{'k':>6}{'R':>10}{'sigma_k':>10}{'parameters':>12}")
    for target in sorted(plan.chosen(), key=lambda target: (-target.budget, target.name)):
        shape = f"{target.shape[0]} x {target.shape[1]}"
        doubt = "" if target.k_certified else "  k not certified"
        lines.append(
            f"  {target.name:52}{shape:>13}{target.rank:>6}{target.tail_dims:>6}{target.structural_rank:>6}"
            f"{target.budget:>10.4g}{target.sigma_k:>10.4g}{target.parameters:>12,}{doubt}"
        )
    if plan.skipped():
        lines += ["", "Matrices that are analysed only"]
        lines += [f"  {target.name:52}  {target.because}" for target in plan.skipped()]
    return lines
