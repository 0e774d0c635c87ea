"""The two places a live view can stand: a notebook (anywidget) and a served page (Panel), with the same ESM in both.

A host is dumb: `state` (JSON) and `data` (bytes) go to the page, `event` (JSON) comes back. All thinking is the view's.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

_ESM = Path(__file__).with_name("esm")


@functools.cache
def module_text(name: str) -> str:
    """The ES module of the view `name`: the shared helpers and its own file, as one string that imports nothing.

    A string, not a path: anywidget watches paths, and a watched file keeps every widget ever made alive.
    """
    return "\n".join(_ESM.joinpath(f"{part}.js").read_text(encoding="utf-8") for part in ("common", name))


@functools.cache
def style_text() -> str:
    """The style sheet of all views."""
    return _ESM.joinpath("geonb.css").read_text(encoding="utf-8")


@functools.cache
def notebook_host(name: str) -> type:
    """The anywidget class of the view `name`."""
    import anywidget
    import traitlets

    return type(
        f"{_title(name)}Widget",
        (anywidget.AnyWidget,),
        {
            "__doc__": f"{_title(name)} in a notebook.",
            "__repr__": lambda self: f"{_title(name)}Widget()",
            "_esm": module_text(name),
            "_css": style_text(),
            "state": traitlets.Dict().tag(sync=True),
            "data": traitlets.Bytes().tag(sync=True),
            "event": traitlets.Dict().tag(sync=True),
        },
    )


@functools.cache
def panel_host(name: str) -> type:
    """The Panel component class of the view `name`."""
    import param
    from panel.custom import AnyWidgetComponent

    return type(
        f"{_title(name)}Component",
        (AnyWidgetComponent,),
        {
            "__doc__": f"{_title(name)} in a Panel page.",
            "_esm": module_text(name),
            "_stylesheets": [style_text()],
            "state": param.Dict(default={}),
            "data": param.Bytes(default=b""),
            "event": param.Dict(default={}),
        },
    )


def define_components() -> None:
    """Make every Panel component's class before any page is served.

    A page knows the classes that there were when it was written; one that is made later, in a thread and first for
    another page, arrives as a type that it cannot resolve.
    """
    for path in sorted(_ESM.glob("*.js")):
        if path.stem != "common":
            panel_host(path.stem)


def answer_where_asked(host: Any) -> None:
    """Let messages of the page reach the kernel on the subshell that they name.

    ipykernel 7.4 sends them to the subshell of whoever last published on the comm. Where a thread publishes, as a live
    view does, that is the last request of any page; after a reload it is a subshell that is gone, and every click
    is lost ("Unknown subshell_id" in the log of the server).
    """
    comm = getattr(host, "comm", None)
    if comm is not None and hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, default: default


def _title(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def send(host: Any, state: dict[str, Any], data: bytes | None) -> None:
    """Give a host what it shows; state and data arrive together. `None` leaves the data as it is."""
    fresh: dict[str, Any] = {"state": state} if data is None else {"state": state, "data": data}
    if hasattr(host, "hold_sync"):
        with host.hold_sync():
            for name, value in fresh.items():
                setattr(host, name, value)
    else:
        host.param.update(**fresh)
