"""The page of the runs: their list, the trace of one, or several side by side, and the adapter that came out."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from geonb.errors import GeonbError
from geonb.widgets.adapter_card import AdapterCard
from geonb.widgets.dashboards.library import Library
from geonb.widgets.dashboards.page import framed, heading, leave, missing, note, query
from geonb.widgets.dashboards.run_list import RunList
from geonb.widgets.mass_trace import MassTrace
from geonb.widgets.run_comparison import RunComparison


def runs_page(library: Library) -> Any:
    """`/runs?run=NAME`, or with several of them a comparison."""
    import panel as pn

    runs = library.runs()
    wanted = [name for name in query("run") if name in runs] or list(runs)[:1]
    body = pn.Column(sizing_mode="stretch_width")
    table = RunList(library, chosen=wanted)
    body.append(table.panel())
    views: list[Any] = [table]
    leave(lambda: [view.close() for view in views])
    for name in query("run"):
        if name not in runs:
            body.append(note(missing(name)))
    if not wanted:
        body.append(note("There is no run yet: train one with `geonb train run -m MODEL -d FILE -o RUN`."))
        return framed("runs", body)
    try:
        if len(wanted) > 1:
            views.append(RunComparison([runs[name] for name in wanted]))
            body.append(views[-1].panel())
        else:
            views.append(MassTrace(runs[wanted[0]]))
            body.append(views[-1].panel())
            _append_adapter(body, runs[wanted[0]], views)
    except (GeonbError, OSError, ValueError, TypeError, KeyError) as error:
        body.append(note(f"{wanted[0]} cannot be shown: {error}"))
    return framed("runs", body)


def _append_adapter(body: Any, folder: Path, views: list[Any]) -> None:
    """The adapter's card, measured behind the page: the spectra of a large base take a while the first time."""
    import panel as pn

    adapter = folder / "adapter"
    if not (adapter / "adapter_config.json").is_file():
        return
    place = pn.Column(heading("Adapter"), note("measuring …"), sizing_mode="stretch_width")
    body.append(place)
    document = pn.state.curdoc

    def measure() -> None:
        try:
            found: Any = AdapterCard(adapter)
        except GeonbError as error:
            found = str(error)

        def put() -> None:
            if isinstance(found, str):
                place[1] = note(found)
            else:
                views.append(found)
                place[1] = found.panel()

        if document is not None:
            document.add_next_tick_callback(put)

    pn.state.onload(lambda: threading.Thread(target=measure, name="geonb-adapter", daemon=True).start())
