"""The base of every view: record in, picture out - a plotly figure, a static picture, a notebook widget, a Panel page."""

from __future__ import annotations

import abc
import contextlib
import json
import re
import threading
import urllib.parse
from collections.abc import Callable
from typing import Any, ClassVar

from geonb.errors import GeonbError
from geonb.widgets import displayed
from geonb.widgets.hosts import answer_where_asked, notebook_host, panel_host, send
from geonb.widgets.svg import escape

# what a notebook may carry of a record's own JSON: more would be most of the file
_JSON_LIMIT = 60_000


class View(abc.ABC):
    """A picture of a record; a subclass says what is sent (`state`, `data`), what comes back, and its static forms.

    `figure()` is a plotly figure, `static()` self-contained HTML, `widget()` a live anywidget and `panel()` the same
    thing for a served page. Several hosts may show one view at once; closing the last one lets the view rest.
    """

    name: ClassVar[str]  # of its ES module, esm/<name>.js

    def __init__(self) -> None:
        self._hosts: list[Any] = []
        self._pushes = 0
        self._lock = threading.RLock()
        self._error = ""
        # called after each event of a page that was taken in, with that event
        self.listeners: list[Callable[[dict[str, Any]], None]] = []

    # -- what a subclass says -------------------------------------------------------------------------------------

    @property
    def record(self) -> Any:
        """The record that is shown, or None."""
        return None

    @abc.abstractmethod
    def state(self) -> dict[str, Any]:
        """JSON for the front end."""

    def data(self) -> bytes:
        """Numbers for the front end, packed by `geonb.widgets.packing.pack`."""
        return b""

    def receive(self, event: dict[str, Any]) -> None:  # noqa: B027 - a hook that most views have no use for
        """Something happened in the page; a `GeonbError` raised here is shown under the view."""

    @abc.abstractmethod
    def figure(self) -> Any:
        """The picture as a plotly `Figure`."""

    @abc.abstractmethod
    def static(self) -> str:
        """The picture as self-contained HTML: no script, no network."""

    def prepare(self) -> None:  # noqa: B027 - a hook that most views have no use for
        """Do what a still picture needs where nothing will fill in later."""

    def begin(self) -> None:  # noqa: B027 - a hook that most views have no use for
        """The first host was attached."""

    def rest(self) -> None:  # noqa: B027 - a hook that most views have no use for
        """The last host was closed."""

    # -- hosts ----------------------------------------------------------------------------------------------------

    def widget(self) -> Any:
        """A live widget for a notebook."""
        host = notebook_host(self.name)(state=self._full_state(), data=self.data())
        answer_where_asked(host)
        host.observe(lambda change: self._on_event(change["new"]), names="event")
        self._attach(host)
        return host

    def panel(self) -> Any:
        """A live component for a Panel page."""
        host = panel_host(self.name)(state=self._full_state(), data=self.data(), sizing_mode="stretch_width")
        host.param.watch(lambda change: self._on_event(change.new), "event")
        self._attach(host)
        import panel as pn

        sent = self._pushes
        # between Panel's reading of the values and its taking note of the model, a push of a thread changes neither
        pn.state.onload(lambda: host.param.trigger("state", "data") if self._pushes != sent else None)
        return host

    def _attach(self, host: Any) -> None:
        with self._lock:
            self._hosts.append(host)
            first = len(self._hosts) == 1
        if first:
            self.begin()

    def detach(self, host: Any) -> None:
        """Take a host away, and close it where it can be closed."""
        with self._lock:
            if host not in self._hosts:
                return
            self._hosts.remove(host)
            last = not self._hosts
        if hasattr(host, "close"):
            with contextlib.suppress(Exception):
                # a widget leaves its layout behind, alive in the kernel and in the page
                if (layout := getattr(host, "layout", None)) is not None and hasattr(layout, "close"):
                    layout.close()
                host.close()
        if last:
            self.rest()

    def close(self) -> None:
        """Close every live form of this view."""
        for host in tuple(self._hosts):
            self.detach(host)

    def push(self, *, data: bool = True) -> None:
        """Send the present state (and data) to every host."""
        with self._lock:
            if not self._hosts:
                return
            self._pushes += 1
            state, block = self._full_state(), self.data() if data else None
            for host in tuple(self._hosts):
                send(host, state, block)

    def _full_state(self) -> dict[str, Any]:
        return {**self.state(), "error": self._error}

    def _on_event(self, event: dict[str, Any]) -> None:
        if not event:
            return
        before, self._error = self._error, ""
        try:
            self.receive(event)
            if before:
                self.push(data=False)
            for listener in self.listeners:
                listener(event)
        except GeonbError as error:
            self._error = str(error)
            self.push(data=False)

    # -- in a notebook --------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        """The live view where a front end can draw it, and always a static picture and a line of text beside it."""
        del include, exclude
        live = displayed.is_live()
        if not live:
            self.prepare()
        static: dict[str, Any] = {"text/plain": repr(self), "text/html": self.static(), **self._record_json()}
        if not live:
            return static
        host = self.widget()
        displayed.remember(lambda: self.detach(host))
        found = host._repr_mimebundle_()
        bundle, metadata = found if isinstance(found, tuple) else (found or {}, {})
        return {**bundle, **static}, metadata

    def _record_json(self) -> dict[str, Any]:
        bundle = getattr(self.record, "_repr_mimebundle_", dict)()
        own = {name: value for name, value in bundle.items() if name.startswith("application/vnd.geonb.")}
        return own if len(json.dumps(own)) <= _JSON_LIMIT else {}


def picture_html(svg: str, *, alt: str) -> str:
    """An SVG as an `<img>`: notebooks that are not trusted yet drop inline SVG, and an image can run nothing.

    It stands on white paper of its own, because an image cannot know whether the page around it is dark.

    >>> picture_html("<svg></svg>", alt="a < b")[:50]
    '<img alt="a &lt; b" style="max-width:100%" src="da'
    """
    opening, rest = svg.split(">", 1)
    # a size of its own: an image of width 100 % has none, and hosts fall back to 300 pixels
    opening = re.sub(
        r'viewBox="0 0 (\S+) (\S+)"(.*) width="100%"', r'viewBox="0 0 \1 \2"\3 width="\1" height="\2"', opening
    )
    svg = f'{opening}><rect width="100%" height="100%" rx="6" fill="#fff"/>{rest}'
    # spaces and most punctuation may stand as they are, which keeps the text a third smaller than base64
    quoted = urllib.parse.quote(svg.replace('"', "'"), safe=" /:;,.=()'!*+?@$~|-_[]{}")
    return f'<img alt="{escape(alt)}" style="max-width:100%" src="data:image/svg+xml,{quoted}">'
