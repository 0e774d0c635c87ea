"""The page of a plan: its targets with their reasons, the fifteen numbers, and what-if."""

from __future__ import annotations

from typing import Any

from geonb.widgets.dashboards.library import Library, one_of, read_plan
from geonb.widgets.dashboards.page import choices, framed, leave, missing, note, query
from geonb.widgets.target_table import TargetTable


def plan_page(library: Library) -> Any:
    """`/plan?run=NAME`; without runs the plan that the dashboard was started with."""
    import panel as pn

    runs = library.runs()
    names = [*(["this plan"] if library.plan is not None else []), *runs]
    chosen = one_of((query("run") or [None])[0], names)
    body = pn.Column(choices("plan", "run", names, chosen), sizing_mode="stretch_width")
    wanted = (query("run") or [chosen])[0]
    if wanted != chosen:
        body.append(note(missing(wanted)))
    plan = library.plan if chosen == "this plan" else read_plan(runs[chosen]) if chosen in runs else None
    if plan is None:
        reason = (
            f"The plan of {chosen} cannot be read: the run is being written or was deleted. Reload the page."
            if chosen is not None
            else "There is no plan yet: give a run, or start with `geonb dashboard MODEL --data FILE`."
        )
        body.append(note(reason))
        return framed("plan", body)
    view = TargetTable(plan)
    leave(view.close)
    body.append(view.panel())
    return framed("plan", body)
