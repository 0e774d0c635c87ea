"""A view is a record's picture in many hosts: what reaches them, what comes back, what stays when they are gone."""

import html
import urllib.parse
import xml.etree.ElementTree as tree
from pathlib import Path
from types import SimpleNamespace

import pytest

from geonb.errors import InputError
from geonb.widgets import displayed, hosts
from geonb.widgets.hosts import module_text, style_text
from geonb.widgets.spectrum_explorer import SpectrumExplorer
from geonb.widgets.view import View, picture_html

MODULES = sorted(path.stem for path in Path(hosts.__file__).with_name("esm").glob("*.js") if path.stem != "common")


class Counter(View):
    """The smallest view: one number that the page may set, and refuses above nine."""

    name = "mass_trace"  # any ES module will do: nothing draws it here

    def __init__(self):
        super().__init__()
        self.number, self.calls = 0, []

    def state(self):
        return {"number": self.number}

    def data(self):
        return bytes([self.number])

    def receive(self, event):
        if event["number"] > 9:
            raise InputError(f"{event['number']} is above 9: give less.")
        self.number = event["number"]
        self.push()

    def static(self):
        return picture_html(f"<svg><text>{self.number}</text></svg>", alt="a number")

    def figure(self):
        return None

    def prepare(self):
        self.calls.append("prepare")

    def begin(self):
        self.calls.append("begin")

    def rest(self):
        self.calls.append("rest")


@pytest.fixture
def view():
    counter = Counter()
    yield counter
    counter.close()


@pytest.fixture(params=["widget", "panel"])
def host(view, request):
    return getattr(view, request.param)()


@pytest.fixture
def cell(monkeypatch):
    """A real IPython shell with the least of a kernel, in whose cell `cell.id` the test stands."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    found = SimpleNamespace(id="cell-1", shell=shell)
    shell.kernel = SimpleNamespace(get_parent=lambda channel: {"metadata": {"cellId": found.id}})
    monkeypatch.setattr(displayed, "_shell", lambda: shell)
    monkeypatch.setattr(displayed, "_open", {})
    monkeypatch.delenv("GEONB_VIEWS", raising=False)
    return found


def test_a_host_begins_with_the_state_and_the_data(host):
    assert host.state == {"number": 0, "error": ""} and host.data == b"\0"


def test_an_event_from_the_page_changes_the_view_and_comes_back_as_state(view, host):
    host.event = {"number": 7}
    host.event = {}
    assert view.number == 7 and host.state == {"number": 7, "error": ""} and host.data == b"\7"


def test_an_error_is_shown_under_the_view_and_goes_with_the_next_good_event(view, host):
    host.event = {"number": 70}
    assert host.state == {"number": 0, "error": "70 is above 9: give less."} and host.data == b"\0"
    host.event = {"number": 3}
    assert host.state == {"number": 3, "error": ""}


def test_an_error_goes_even_where_the_good_event_sends_nothing_else():
    explorer = SpectrumExplorer("embedded")
    host = explorer.widget()
    host.event = {"kind": "select", "name": "no such"}
    assert "no matrix is called" in host.state["error"]
    host.event = {"kind": "scalar", "key": "sigma_k"}
    assert host.state["error"] == ""
    explorer.close()


def test_a_push_reaches_every_host_and_may_leave_the_data_as_they_are(view):
    everywhere = [view.widget(), view.panel(), view.widget()]
    view.number = 5
    view.push()
    assert [(one.state["number"], one.data) for one in everywhere] == [(5, b"\5")] * 3
    view.number = 6
    view.push(data=False)
    assert [(one.state["number"], one.data) for one in everywhere] == [(6, b"\5")] * 3


def test_state_and_data_reach_a_notebook_in_one_message(view):
    host, sent = view.widget(), []
    host.comm.send = lambda data=None, **rest: sent.append(data)
    view.number = 8
    view.push()
    updates = [message for message in sent if message["method"] == "update"]
    assert len(updates) == 1 and updates[0]["state"]["state"]["number"] == 8
    assert updates[0]["buffer_paths"] == [["data"]], "the bytes travel beside the JSON, not inside it"


def test_the_first_host_begins_the_view_and_the_last_one_lets_it_rest(view):
    first, second = view.widget(), view.panel()
    assert view.calls == ["begin"]
    view.detach(first)
    view.number = 2
    view.push()
    assert view.calls == ["begin"] and first.state["number"] == 0 and second.state["number"] == 2
    view.detach(second)
    view.detach(second)
    assert view.calls == ["begin", "rest"]
    view.close()
    view.push()
    assert view.calls == ["begin", "rest"] and second.state["number"] == 2


def test_closing_a_view_closes_its_widgets(view):
    host = view.widget()
    view.panel()
    view.close()
    assert host.comm is None and view.calls == ["begin", "rest"]


def test_views_and_hosts_are_the_same_line_of_text_every_time(view):
    assert repr(view) == "Counter()" and repr(view.widget()) == "MassTraceWidget()"
    first, second = (repr(Counter().panel()) for _ in range(2))
    assert first == second and first.startswith("MassTraceComponent(") and " at 0x" not in first


# -- in a notebook ------------------------------------------------------------------------------------------------


def test_outside_a_kernel_a_view_is_a_prepared_still_picture(view):
    bundle = view._repr_mimebundle_()
    assert bundle == {"text/plain": "Counter()", "text/html": view.static()} and view.calls == ["prepare"]


def test_in_a_kernel_it_is_a_widget_with_the_still_picture_beside_it(view, cell):
    bundle, _ = view._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/plain"] == "Counter()" and bundle["text/html"] == view.static()
    assert view.calls == ["begin"]


def test_geonb_views_static_asks_for_still_pictures_in_a_kernel_too(view, cell, monkeypatch):
    monkeypatch.setenv("GEONB_VIEWS", "static")
    assert set(view._repr_mimebundle_()) == {"text/plain", "text/html"} and view.calls == ["prepare"]


def test_running_a_cell_again_closes_what_it_showed_and_nothing_else(cell):
    shown, other = Counter(), Counter()
    shown._repr_mimebundle_()
    shown._repr_mimebundle_()
    cell.id = "cell-2"
    other._repr_mimebundle_()
    cell.shell.events.trigger("pre_run_cell", SimpleNamespace(cell_id="cell-1"))
    assert shown.calls == ["begin", "rest"] and other.calls == ["begin"]
    cell.shell.events.trigger("pre_run_cell", SimpleNamespace(cell_id="cell-1"))
    assert displayed.close_cell("cell-2") == 1 and other.calls == ["begin", "rest"]
    assert displayed.close_cell("cell-2") == 0


def test_where_no_cell_is_known_nothing_is_remembered(monkeypatch):
    monkeypatch.setattr(displayed, "_open", {})
    displayed.remember(lambda: None)
    assert displayed._open == {}


def test_a_record_is_carried_beside_its_picture_while_it_is_small(monkeypatch):
    from geonb.models import ModelSpectra
    from geonb.widgets import view as module

    record = ModelSpectra(source="x", digest="0", matrices=())
    assert SpectrumExplorer(record)._repr_mimebundle_()["application/vnd.geonb.modelspectra.v1+json"]["source"] == "x"
    monkeypatch.setattr(module, "_JSON_LIMIT", 10)
    assert set(SpectrumExplorer(record)._repr_mimebundle_()) == {"text/plain", "text/html"}


# -- what is served ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_a_module_loads_nothing_and_makes_no_markup_of_text(name):
    text = module_text(name)
    assert not [line for line in text.splitlines() if line.lstrip().startswith("import ")]
    assert "import(" not in text
    assert text.replace("http://www.w3.org/2000/svg", "").count("http") == 0
    for word in (
        "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "fetch(",
        "XMLHttpRequest", "WebSocket", "localStorage",
    ):  # fmt: skip
        assert word not in text, word
    assert "export default" in text


def test_the_style_sheet_loads_nothing():
    assert not [word for word in ("@import", "url(", "http") if word in style_text()]


def decoded(picture):
    return urllib.parse.unquote(picture.split('src="data:image/svg+xml,', 1)[1].removesuffix('">'))


def test_a_picture_is_one_image_whose_text_cannot_leave_its_attribute():
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><text id="a#b">50% &amp; &lt;ü&gt; " \'</text></svg>'
    picture = picture_html(svg, alt='"><script>alert(1)</script>')
    assert picture.count("<") == 1 and picture.count(">") == 1
    assert html.escape('"><script>') in picture
    root = tree.fromstring(decoded(picture))
    assert root[0].tag.endswith("rect") and root[1].attrib == {"id": "a#b"} and root[1].text == "50% & <ü> ' '"


@pytest.mark.parametrize("name", ["\x00", "\x1b[31m", "\ud800", "\ufffe"], ids=ascii)
def test_a_name_that_no_xml_may_hold_leaves_the_picture_well_formed(name):
    from geonb.widgets.svg import Picture

    picture = Picture(10, 10, title=name)
    picture.text(1, 1, name)
    tree.fromstring(decoded(picture_html(picture.svg(), alt=name)))
