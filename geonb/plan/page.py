"""A plan as self-contained HTML: readable in light and dark, small pictures in inline SVG, everything escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from geonb.derive.derivation import Derivation, shown
from geonb.records import plain

if TYPE_CHECKING:
    from geonb.plan.plan import Plan
    from geonb.plan.target import TargetPlan

_STYLE = """
.geonb-plan{--ink:#1c2330;--soft:#5b6678;--line:#dde2ea;--ground:#ffffff;--panel:#f6f8fb;--room:#d5e3f8;--used:#2f6fd0;
--mark:#c2571a;--good:#1d7a46;--doubt:#8a6100;--bad:#b3261e;color:var(--ink);background:var(--ground);
font:14px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;padding:20px 24px;border-radius:12px;
max-width:1100px;box-sizing:border-box;overflow-wrap:anywhere}
@media (prefers-color-scheme:dark){.geonb-plan{--ink:#e6eaf2;--soft:#9aa6b8;--line:#333c4b;--ground:#161b24;
--panel:#1e2530;--room:#2a3d5c;--used:#6ea3f0;--mark:#f0a06a;--good:#6fcf97;--doubt:#e0b84c;--bad:#f28b82}}
.geonb-plan h2{font-size:20px;margin:0 0 2px}.geonb-plan h3{font-size:15px;margin:26px 0 8px}
.geonb-plan p{margin:0;color:var(--soft)}
.geonb-plan .tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:10px;margin:16px 0}
.geonb-plan .tile{background:var(--panel);border-radius:8px;padding:10px 12px}
.geonb-plan .tile b{display:block;font-size:19px;font-variant-numeric:tabular-nums}
.geonb-plan .tile span{color:var(--soft);font-size:12px}
.geonb-plan .buckets{display:grid;grid-template-columns:repeat(auto-fit,minmax(310px,1fr));gap:12px}
.geonb-plan .bucket{border:1px solid var(--line);border-radius:8px;padding:10px 14px}
.geonb-plan dl{margin:8px 0 0;font-size:13px;display:grid;grid-template-columns:minmax(84px,auto) 1fr;
gap:5px 12px}
.geonb-plan dt{font-weight:600;overflow-wrap:normal}.geonb-plan dd{margin:0;color:var(--soft)}
.geonb-plan table{border-collapse:collapse;width:100%;font-size:13px;background:none;color:inherit}
.geonb-plan th,.geonb-plan td{text-align:left;vertical-align:top;padding:6px 10px 6px 0;
border-bottom:1px solid var(--line);white-space:normal;background:none}
.geonb-plan th{color:var(--soft);font-weight:600}
.geonb-plan td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.geonb-plan .why{color:var(--soft);font-size:12.5px}
.geonb-plan td.key{overflow-wrap:normal;min-width:84px}
.geonb-plan .chip{display:inline-block;white-space:nowrap;margin-top:3px;
font-size:11px;border:1px solid currentColor;border-radius:9px;padding:0 7px}
.geonb-plan .proven,.geonb-plan .validated{color:var(--good)}.geonb-plan .disproven{color:var(--bad)}
.geonb-plan .empirical,.geonb-plan .conjectural{color:var(--doubt)}.geonb-plan .convention{color:var(--soft)}
.geonb-plan code{font:12px ui-monospace,SFMono-Regular,Menlo,monospace;background:none;color:inherit}
.geonb-plan details{margin-top:10px}.geonb-plan summary{cursor:pointer;font-weight:600}
.geonb-plan .scroll{overflow-x:auto}.geonb-plan svg{display:block}
"""


def _safe(value: Any) -> str:
    return html.escape(plain(value), quote=True)


def plan_html(plan: Plan) -> str:
    """The whole plan as one `<section>` that needs nothing else."""
    return (
        f'<section class="geonb-plan"><style>{_STYLE}</style>'
        f"<h2>{_safe(plan.model['name'])} on {_safe(plan.data['path'])}</h2>"
        f"<p>{_safe(plan.model['architecture'])} · weights <code>{_safe(plan.model['digest'][:12])}</code> · "
        f"data <code>{_safe(plan.data['digest'][:12])}</code> · geonb {_safe(plan.geonb_version)}</p>"
        f"{_tiles(plan)}{_buckets(plan)}{_fifteen(plan.derivations)}{_targets(plan)}</section>"
    )


def _tiles(plan: Plan) -> str:
    ranks = {target.name: target.rank for target in plan.chosen()}
    tiles = [
        (f"{len(plan.chosen()):,}", f"matrices of {len(plan.targets):,}"),
        (shown(ranks), "rank"),
        (f"{plan.n_parameters:,}", "trained parameters"),
        (f"{plan.horizon['steps']:,}", f"steps, {plan.horizon['epochs']:.3g} epochs"),
        (f"{plan.batch['size']:,}", f"examples a batch, {plan.batch['micro']:,} at a time"),
        (f"{plan.sequence_length:,}", "tokens at most"),
        (f"{plan.split['n_eval']:,}", f"to evaluate, {plan.split['n_train']:,} to train"),
    ]
    cells = "".join(f'<div class="tile"><b>{_safe(big)}</b><span>{_safe(small)}</span></div>' for big, small in tiles)
    return f'<div class="tiles">{cells}</div>'


def _buckets(plan: Plan) -> str:
    resolved = {
        **plan.derived_now,
        "seed from": plan.seed_source,
        "length from": plan.sequence_length_source,
        "split": plan.split["because"],
        "horizon from": plan.horizon["source"],
        "controller": f"{plan.controller['name']}, {plan.controller['sides']}-sided, basis {plan.controller['basis']}, "
        f"budget {plan.controller['budget']}",
        "benchmark": plan.options.get("benchmark") or "off; opt in with --benchmark",
    }
    parts = [
        ("Derived now", resolved),
        ("Measured during training", plan.measured_during_training),
        ("Verified after training", plan.verified_after_training),
    ]
    return '<div class="buckets">' + "".join(_bucket(title, items) for title, items in parts) + "</div>"


def _bucket(title: str, items: dict[str, Any]) -> str:
    listed = "".join(f"<dt>{_safe(name)}</dt><dd>{_safe(shown(value))}</dd>" for name, value in items.items())
    return f'<div class="bucket"><b>{_safe(title)}</b><dl>{listed}</dl></div>'


def _chip(evidence: str) -> str:
    return f'<span class="chip {_safe(evidence)}">{_safe(evidence)}</span>'


def _fifteen(derivations: Iterable[Derivation]) -> str:
    rows = []
    for derivation in derivations:
        listed = derivation.key == "target_modules"
        documented = "" if listed else f"<b>{_safe(shown(derivation.documented_value))}</b><br>"
        beside = "".join(
            f"<br>{_safe(name)}: {_safe(shown(item))}" for name, item in derivation.beside.items() if item is not None
        )
        rows.append(
            f'<tr><td class="n">{derivation.number}</td><td class="key">{_safe(derivation.replaces)}</td>'
            f"<td><b>{_safe(derivation.brief)}</b><br><code>{_safe(derivation.formula)}</code><br>{_chip(derivation.evidence)}</td>"
            f"<td>{documented}<code>{_safe(derivation.documented_formula)}</code><br>"
            f"{_chip(derivation.documented_evidence)}</td>"
            f'<td class="why">{_safe(derivation.because)}{beside}<br>'
            f"<i>{_safe(derivation.source)}</i></td></tr>"
        )
    head = "".join(f"<th>{name}</th>" for name in ("", "replaces", "here", "documented", "because"))
    return (
        "<h3>The fifteen hyperparameters</h3>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _targets(plan: Plan) -> str:
    chosen = plan.chosen()
    largest = max((target.sigma_max for target in chosen), default=0.0) or 1.0
    rows = "".join(
        f"<tr><td><code>{_safe(target.name)}</code></td>"
        f'<td class="n">{target.shape[0]} × {target.shape[1]}</td><td class="n">{target.rank:,}</td>'
        f"<td>{_rank_picture(target)}</td><td>{_scale_picture(target, largest)}</td>"
        f'<td class="n">{target.budget:.4g}</td><td class="n">{target.parameters:,}</td></tr>'
        for target in chosen
    )
    names = ("matrix", "out × in", "rank", "structure k | rank of q", "sigma_k and sigma_max", "R", "parameters")
    head = "".join(f"<th>{name}</th>" for name in names)
    skipped = "".join(
        f"<tr><td><code>{_safe(target.name)}</code></td><td class='why'>{_safe(target.because)}</td></tr>"
        for target in plan.skipped()
    )
    return (
        f"<h3>Target matrices</h3><details open><summary>{len(chosen):,} trained</summary>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>'
        + (
            f"<details><summary>{len(plan.skipped()):,} analysed only</summary>"
            f'<div class="scroll"><table><tbody>{skipped}</tbody></table></div></details>'
            if skipped
            else ""
        )
    )


def _rank_picture(target: TargetPlan) -> str:
    """A bar of q directions: the k structural ones outlined at the left, the adapter's rank filled from the right."""
    width, full = 150.0, max(1, min(target.shape))
    structure = width * target.structural_rank / full
    rank = width * min(target.rank, full) / full
    label = f"k = {target.structural_rank}, rank {target.rank} of q = {full}"
    return (
        f'<svg width="150" height="14" role="img" aria-label="{_safe(label)}"><title>{_safe(label)}</title>'
        f'<rect width="150" height="14" rx="3" style="fill:var(--room)"/>'
        f'<rect x="{width - rank:.1f}" width="{rank:.1f}" height="14" rx="3" style="fill:var(--used)"/>'
        f'<rect x="{max(0.0, structure - 1):.1f}" width="2" height="14" style="fill:var(--mark)"/></svg>'
    )


def _scale_picture(target: TargetPlan, largest: float) -> str:
    """sigma_max as a bar against the largest of the model, with sigma_k marked on it."""
    width = 150.0
    top, inner = width * target.sigma_max / largest, width * target.sigma_k / largest
    label = f"sigma_k {target.sigma_k:.4g}, sigma_max {target.sigma_max:.4g}"
    return (
        f'<svg width="150" height="14" role="img" aria-label="{_safe(label)}"><title>{_safe(label)}</title>'
        f'<rect width="{top:.1f}" height="14" rx="3" style="fill:var(--room)"/>'
        f'<rect width="{inner:.1f}" height="14" rx="3" style="fill:var(--used)"/></svg>'
    )
