"""Serve the dashboard: on this machine alone, to pages of its own origin, behind a password if one is given."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from geonb.errors import InputError
from geonb.widgets.dashboards.library import Library
from geonb.widgets.hosts import define_components

ADDRESS = "127.0.0.1"


def pages(library: Library) -> dict[str, Callable[[], Any]]:
    """Every page by its path; each browser gets views of its own."""
    from geonb.widgets.dashboards.ledger_page import ledger_page, notebook_page
    from geonb.widgets.dashboards.model_page import model_page
    from geonb.widgets.dashboards.plan_page import plan_page
    from geonb.widgets.dashboards.runs_page import runs_page

    first = runs_page if library.runs() else ledger_page if library.batches and not library.models else model_page
    return {
        "/": lambda: first(library),
        "model": lambda: model_page(library),
        "plan": lambda: plan_page(library),
        "runs": lambda: runs_page(library),
        "ledger": lambda: ledger_page(library),
        "notebook": lambda: notebook_page(library),
    }


def origins(port: int, more: Sequence[str] = ()) -> list[str]:
    """What a browser's address may begin with: this machine, and what a person added (a proxy, a forwarded port)."""
    for origin in more:
        if "*" in origin or "/" in origin:
            raise InputError(
                f"--origin was given {origin!r}; allowed is one HOST:PORT as the browser shows it, without * or a path."
            )
    return [f"{ADDRESS}:{port}", f"localhost:{port}", *more]


def refuse_taken(port: int) -> None:
    """Raise `InputError` where somebody listens on `port` already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError as error:
            raise InputError(f"port {port} cannot be used ({error.strerror}): give a free one with --port.") from None


def serve(
    library: Library,
    *,
    port: int = 5006,
    origin: Sequence[str] = (),
    password: str | None = None,
    show: bool = False,
) -> None:
    """Serve the pages of a `Library` until the process is stopped.

    Binds 127.0.0.1 only; a websocket from another origin than `origins` is refused. With `password` every page asks
    for it first (any user name).
    """
    allowed = origins(port, origin)
    refuse_taken(port)
    import panel as pn

    pn.extension()
    define_components()
    guarded: dict[str, Any] = {}
    if password is not None:
        # Panel's own form loads a logo from another machine
        form = str(Path(__file__).with_name("login.html"))
        guarded = {"basic_auth": password, "cookie_secret": secrets.token_urlsafe(32), "login_template": form}
    pn.serve(
        cast(Any, pages(library)),
        address=ADDRESS,
        port=port,
        websocket_origin=allowed,
        show=show,
        title="geonb",
        verbose=False,
        autoreload=False,
        **guarded,
    )
