"""The frame around every page: header, links, dark and light; no font, style or script from another machine."""

from __future__ import annotations

import html
import urllib.parse
from collections.abc import Callable
from typing import Any, cast

PAGES = (("model", "Model"), ("plan", "Plan"), ("runs", "Runs"), ("ledger", "Ledger"))

_TEMPLATE = """
{% extends base %}
{% block title %}geonb · {{ page_title }}{% endblock %}
{% block postamble %}
<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="referrer" content="no-referrer">
<style>
:root{--gn-paper:#fff;--gn-ink:#1b1d21;color-scheme:light}
:root[data-theme=dark]{--gn-paper:#16181d;--gn-ink:#e6e6e6;color-scheme:dark}
html,body{background:var(--gn-paper)!important;color:var(--gn-ink);margin:0;min-height:100%}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
.page{max-width:1120px;margin:0 auto;padding:0 1.2rem 3rem}
header.geonb-head{display:flex;gap:1.4rem;align-items:center;border-bottom:1px solid #8884;padding:.7rem 0;margin-bottom:1rem}
header.geonb-head b{font-size:1.15rem}
header.geonb-head a{color:inherit;text-decoration:none;opacity:.7;padding:.15rem 0}
header.geonb-head a[aria-current=page]{opacity:1;border-bottom:2px solid #0072B2}
header.geonb-head button{margin-left:auto;font:inherit;font-size:.85rem;color:inherit;background:transparent;
  border:1px solid #8886;border-radius:.35rem;cursor:pointer;padding:.15rem .7rem}
</style>
<script>
const kept = localStorage.getItem("geonb-theme");
const wished = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
document.documentElement.dataset.theme = new URLSearchParams(location.search).get("theme") || kept || wished;
function geonbTheme() {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("geonb-theme", next);
}
</script>
{% endblock %}
{% block contents %}
<div class="page">
<header class="geonb-head"><b>geonb</b>
{% for link in links %}<a href="{{ link.href }}"{% if link.here %} aria-current="page"{% endif %}>{{ link.name }}</a>{% endfor %}
<button type="button" onclick="geonbTheme()">dark / light</button></header>
{{ embed(roots.body) }}
{{ embed(roots.location) }}
</div>
{% endblock %}
"""


# Panel gives every component a text colour of its own theme, which knows nothing of the page's
_INK = "color:var(--gn-ink)"


def framed(page: str, body: Any) -> Any:
    """`body` (a Panel object) as the page called `page`."""
    import panel as pn

    template = pn.Template(_TEMPLATE)
    # the address is a model of its own: without it nothing that is chosen could be linked to
    template.location = True
    template.add_panel("body", body)
    template.add_variable("page_title", dict(PAGES)[page])
    template.add_variable("links", [{"href": key, "name": name, "here": key == page} for key, name in PAGES])
    return template


def note(text: str) -> Any:
    """One escaped sentence."""
    import panel as pn

    return pn.pane.HTML(f'<p style="{_INK}">{html.escape(text)}</p>', sizing_mode="stretch_width")


def missing(run: str) -> str:
    """The sentence for a run that an address names and nobody has."""
    return f"{run} is not among the runs: it was deleted, or never given to this dashboard."


def heading(text: str) -> Any:
    """An escaped heading."""
    import panel as pn

    return pn.pane.HTML(f'<h2 style="{_INK};margin:.6rem 0 .2rem;font-size:1.1rem">{html.escape(text)}</h2>')


def choices(page: str, name: str, values: list[str], chosen: str | None) -> Any:
    """Links to the same page with another value of the query's `name`; nothing where there is no choice."""
    import panel as pn

    if len(values) < 2:
        return pn.pane.HTML("", height=1)
    links = " · ".join(
        f'<a style="color:inherit{";font-weight:600" if value == chosen else ""}" '
        f'href="{page}?{urllib.parse.urlencode({name: value})}">{html.escape(value)}</a>'
        for value in values
    )
    return pn.pane.HTML(f'<p style="{_INK}">{links}</p>', sizing_mode="stretch_width")


def query(name: str) -> list[str]:
    """The values of one name in the address of this session."""
    import panel as pn

    found = pn.state.session_args.get(name, []) if pn.state.session_args else []
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in found]


def remember(**values: str) -> None:
    """Write values into the address, so that what is seen can be linked to."""
    import panel as pn

    if pn.state.location is not None:
        cast(Any, pn.state.location).update_query(**values)


def leave(action: Callable[[], None]) -> None:
    """Call `action` when this browser has gone."""
    import panel as pn

    pn.state.on_session_destroyed(lambda context: action())
