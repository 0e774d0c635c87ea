"""The ledger as HTML: a table for a notebook's cell, and a page of its own with pictures; no script, no network."""

from __future__ import annotations

import html
from urllib.parse import quote

from geonb.claims.ledger import NO_VERDICT, NOT_RUN, Ledger, LedgerRow, run_told
from geonb.claims.ledger_pictures import colour_rules, figure_picture, verdict_bars
from geonb.claims.register import badge
from geonb.records import plain

_SCOPE = ".geonb-ledger"
_STYLE = """
.geonb-ledger{--ink:#1c2330;--soft:#5b6678;--line:#dde2ea;--ground:#ffffff;--ours:#2f6fd0;--bad:#b3261e;
color:var(--ink);background:var(--ground);font:14px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;
padding:20px 24px;border-radius:12px;box-sizing:border-box;overflow-wrap:anywhere}
@media (prefers-color-scheme:dark){.geonb-ledger{--ink:#e6eaf2;--soft:#9aa6b8;--line:#333c4b;--ground:#161b24;
--ours:#6ea3f0;--bad:#f28b82}}
.geonb-ledger h1{font-size:22px;margin:0 0 2px}.geonb-ledger h2{font-size:16px;margin:28px 0 6px}
.geonb-ledger p{margin:0 0 12px;color:var(--soft)}
.geonb-ledger .scroll{overflow-x:auto}
.geonb-ledger table{border-collapse:collapse;width:100%;min-width:960px;table-layout:fixed;font-size:13px;background:none;
color:inherit}
.geonb-ledger th,.geonb-ledger td{text-align:left;vertical-align:top;padding:7px 12px 7px 0;
border-bottom:1px solid var(--line);white-space:normal;background:none}
.geonb-ledger th{color:var(--soft);font-weight:600}
.geonb-ledger .badge{margin-bottom:2px}.geonb-ledger .badge span{display:inline-block;white-space:nowrap}
.geonb-ledger .soft{color:var(--soft);font-size:12px}.geonb-ledger .bad{color:var(--bad)}
.geonb-ledger a{color:var(--ours)}.geonb-ledger svg{display:block;max-width:100%;height:auto;margin:2px 0}
.geonb-ledger svg text{fill:var(--soft);font-size:10px;font-family:inherit}
.geonb-ledger .bars text{font-size:12px}
.geonb-ledger svg .axis{stroke:var(--line)}
.geonb-ledger svg .rule{stroke:var(--soft);stroke-dasharray:3 3}
.geonb-ledger svg line.published{stroke:var(--soft);stroke-width:2;opacity:.6}
.geonb-ledger svg circle.published{fill:var(--ground);stroke:var(--soft);stroke-width:2}
.geonb-ledger svg line.ours{stroke:var(--ours);stroke-width:2}.geonb-ledger svg circle.ours{fill:var(--ours)}
"""
# with their widths in percent, the same in every paper's table
_COLUMNS = (
    ("claim", 25),
    ("published as", 10),
    ("published and measured", 27),
    ("register", 14),
    ("this run", 17),
    ("notebook", 7),
)
_LEGEND = (
    "In the pictures: ○ published, ● measured here with its interval, ┊ the threshold of the rule. A disproven claim passes "
    "when its disproof reproduces."
)


def ledger_table(ledger: Ledger) -> str:
    """The ledger as one `<section>` that needs nothing else, without pictures."""
    return _section(ledger, pictures=False)


def ledger_page(ledger: Ledger) -> str:
    """A whole page with the ledger's pictures, light or dark as its reader's system is."""
    told = _safe(ledger.summary().removeprefix("Ledger(").removesuffix(")"))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>Ledger of claims: {told}</title><style>body{{margin:0}}"
        "@media (prefers-color-scheme:dark){body{background:#161b24}}</style></head>"
        f"<body>{_section(ledger, pictures=True)}</body></html>\n"
    )


def _section(ledger: Ledger, *, pictures: bool) -> str:
    told = _safe(ledger.summary().removeprefix("Ledger(").removesuffix(")"))
    head = f"<h1>Ledger of claims</h1><p>{told}.</p>"
    if pictures:
        head += f'<div class="bars scroll">{verdict_bars(ledger)}</div><p>{_safe(_LEGEND)}</p>'
    tables = "".join(f"<h2>{_safe(paper)}</h2>{_table(rows, pictures)}" for paper, rows in ledger.papers().items())
    style = _STYLE + colour_rules(f"{_SCOPE} ")
    return f'<section class="geonb-ledger"><style>{style}</style>{head}{tables}</section>'


def _table(rows: tuple[LedgerRow, ...], pictures: bool) -> str:
    head = "".join(f'<th style="width:{width}%">{name}</th>' for name, width in _COLUMNS)
    body = "".join(_line(row, pictures) for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _line(row: LedgerRow, pictures: bool) -> str:
    run = f'<div class="soft">{_safe(run_told(row))}</div>' if row.passed is not None else ""
    because = f'<div class="soft">{_safe(row.because)}</div>' if row.because and not row.problem else ""
    problem = f'<div class="bad">{_safe(row.problem)}</div>' if row.problem else ""
    link = f'<a href="{html.escape(quote(row.link), quote=True)}">open</a>' if row.link else ""
    is_verdict = row.decision not in (NOT_RUN, NO_VERDICT)
    decision = f'<div class="badge">{badge(row.decision) if is_verdict else f"<b>{_safe(row.decision)}</b>"}</div>'
    return (
        f"<tr><td><b>{_safe(row.claim)}</b><br>{_safe(row.statement)}</td>"
        f"<td>{_safe(row.published)}</td><td>{_figures(row, pictures)}</td>"
        f'<td><div class="badge">{badge(row.registered)}</div></td><td>{decision}{run}{because}{problem}</td><td>{link}</td></tr>'
    )


def _figures(row: LedgerRow, pictures: bool) -> str:
    parts = []
    for (figure, check), (published, ours) in zip(row.compared(), row.told(), strict=True):
        if pictures:
            parts.append(figure_picture(figure, check))
        note = f" ({figure.note})" if figure is not None and figure.note else ""
        told = "; ".join(filter(None, (published and f"published {published}{note}", ours)))
        parts.append(f'<div class="soft">{_safe(told)}</div>')
    return "".join(parts)


def _safe(text: str) -> str:
    return html.escape(plain(text), quote=True)
