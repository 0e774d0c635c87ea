"""`geonb dashboard`: models, plans, runs and the ledger of claims in a browser."""

from __future__ import annotations

from typing import Any

import typer

from geonb.cli.output import note
from geonb.cli.progress import StageLine
from geonb.errors import InputError


def dashboard(
    sources: list[str] = typer.Argument(
        ...,
        metavar="MODEL|RUN|BATCH...",
        help="Models (folder, hub id, `embedded`), run folders, folders of runs, or that of a `geonb claims run`.",
    ),
    data: str | None = typer.Option(
        None, "--data", "-d", help="Derive a plan for the first MODEL on this data as well."
    ),
    port: int = typer.Option(5006, "--port", help="The port on 127.0.0.1."),
    password: str | None = typer.Option(
        None, "--password", envvar="GEONB_DASHBOARD_PASSWORD", help="Ask for this password (better by the variable)."
    ),
    origin: list[str] = typer.Option(
        [], "--origin", help="One more HOST:PORT that the browser may show, behind a proxy or a forwarded port."
    ),
    show: bool = typer.Option(False, "--open", help="Open a browser."),
) -> Any:
    """Look at models, plans, runs and claims in a browser: spectra, targets with what-if, live traces, comparisons, the ledger.

    Serves 127.0.0.1 only. From another machine: `ssh -L 5006:127.0.0.1:5006 HOST`, then open 127.0.0.1:5006 there.
    Training never waits for a browser: the pages read the run folders.
    """
    from geonb.widgets.dashboards import app as dashboards
    from geonb.widgets.dashboards.library import Library

    if not 1 <= port <= 65535:
        raise InputError(f"--port was given {port}; allowed is a port from 1 to 65535.")
    allowed = dashboards.origins(port, origin)
    dashboards.refuse_taken(port)
    plan = None
    if data is not None:
        from geonb.plan.build import build_plan

        with StageLine() as progress:
            plan = build_plan(sources[0], data, progress=progress)
    library = Library(sources, plan=plan)
    note(
        f"dashboard: http://127.0.0.1:{port}  (pages /model, /plan, /runs, /ledger; accepts {', '.join(allowed)}; Ctrl-C ends it)"
    )
    dashboards.serve(library, port=port, origin=origin, password=password, show=show)
    return None
