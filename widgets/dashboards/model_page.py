"""The page of a model: its map of matrices, filling in as they are measured."""

from __future__ import annotations

from typing import Any

from geonb.errors import GeonbError
from geonb.widgets.dashboards.library import Library, one_of
from geonb.widgets.dashboards.page import choices, framed, leave, note, query, remember
from geonb.widgets.spectrum_explorer import SpectrumExplorer
from geonb.widgets.spectrum_scalars import SCALARS


def model_page(library: Library) -> Any:
    """`/model?model=NAME&matrix=NAME&scalar=KEY`."""
    import panel as pn

    sources = library.model_sources()
    chosen = one_of((query("model") or [None])[0], list(sources))
    if chosen is None:
        return framed("model", note("No model was given: start with `geonb dashboard MODEL`, or give a run."))
    body = pn.Column(choices("model", "model", list(sources), chosen), sizing_mode="stretch_width")
    try:
        view = SpectrumExplorer(
            sources[chosen], scalar=one_of((query("scalar") or [None])[0], list(SCALARS)) or "tail_share"
        )
        wanted = (query("matrix") or [""])[0]
        if any(ref.name == wanted for ref in view.refs):
            view.select(wanted)
    except GeonbError as error:
        body.append(note(str(error)))
        return framed("model", body)
    view.title = chosen

    def link(event: dict[str, Any]) -> None:
        remember(model=chosen, matrix=view.selected_title(), scalar=view.scalar)

    view.listeners.append(link)
    leave(view.close)
    body.append(view.panel())
    return framed("model", body)
