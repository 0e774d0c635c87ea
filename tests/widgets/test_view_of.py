"""A record shows itself as its view, in a real IPython shell; and as itself again when the views are taken out."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from geonb.adapters.audit import audit_adapter
from geonb.coordinates.clusters import clusters
from geonb.errors import InputError
from geonb.models import ModelSpectra, model_spectra
from geonb.models.info import model_info
from geonb.train import Run, compare_runs
from geonb.train.events import StopEvent
from geonb.train.status import run_status
from geonb.widgets import displayed, show, view_of
from tests import tiny
from tests.ledgers import small_ledger

STOP = StopEvent(step=4, reason="horizon", horizon=4, because="all were made", best_step=4, best_loss=1.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny.tiny_run(tmp_path_factory)


@pytest.fixture(scope="module")
def records(run, tmp_path_factory):
    """One record of every kind that has a view, by the name of that view."""
    model = tiny.tiny_model(tmp_path_factory)
    return [
        ("SpectrumExplorer", model_spectra(model)),
        ("TargetTable", tiny.tiny_plan(tmp_path_factory)),
        ("MassTrace", Run(folder=str(run), adapter=str(run / "adapter"), stop=STOP, verification=None)),
        ("MassTrace", run_status(run)),
        ("RunComparison", compare_runs([run, run])),
        ("AdapterCard", audit_adapter(run / "adapter", base=model)),
        ("LedgerView", small_ledger()),
        ("CoordinateMap", clusters(np.eye(4), list("abcd"), list("xxyy"), permutations=19)),
    ]


@pytest.fixture
def shell():
    """A shell of its own with the views registered."""
    found = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    view_of.register(found)
    return found


@pytest.fixture
def kernel(shell, monkeypatch):
    """The same shell with the least of a kernel around it."""
    shell.kernel = SimpleNamespace(get_parent=lambda channel: {"metadata": {"cellId": "cell-1"}})
    monkeypatch.setattr(displayed, "_shell", lambda: shell)
    monkeypatch.setattr(displayed, "_open", {})
    monkeypatch.delenv("GEONB_VIEWS", raising=False)
    return shell


def shown(shell, record):
    return shell.display_formatter.format(record)[0]


def test_every_record_that_has_a_view_is_given_it(records):
    for name, record in records:
        view = show(record)
        assert type(view).__name__ == name and view.record is record


def test_the_table_names_records_and_views_that_exist(records):
    named = {(type(record).__module__, type(record).__name__) for _, record in records}
    assert named == set(view_of._VIEWS), "every row of the table is tried here"


def test_what_has_no_view_is_refused_with_what_has_one(records):
    for other in (model_info("embedded"), {"a": 1}, None):
        with pytest.raises(InputError, match="allowed are ModelSpectra, Plan, Run, RunStatus, RunsCompared, AdapterA"):
            show(other)


def test_a_record_is_displayed_as_its_picture_and_its_own_text(shell, records):
    for _, record in records:
        bundle = shown(shell, record)
        assert bundle["text/plain"] == record.to_text()
        assert len(tiny.pictures(bundle["text/html"])) == 1
        assert bundle["text/html"] == show(record).static()
        assert "application/vnd.jupyter.widget-view+json" not in bundle


def test_in_a_kernel_it_is_live_with_the_picture_beside_it(kernel, records):
    for _, record in records:
        bundle = shown(kernel, record)
        assert "application/vnd.jupyter.widget-view+json" in bundle
        assert bundle["text/plain"] == record.to_text() and "<img" in bundle["text/html"]
    assert displayed.close_cell("cell-1") == len(records)


def test_a_record_without_a_view_shows_itself(shell):
    info = model_info("embedded")
    bundle = shown(shell, info)
    assert bundle["text/plain"] == info.to_text() and "<img" not in bundle["text/html"]


def test_a_run_that_left_no_folder_shows_itself(shell, tmp_path):
    unsaved = Run(folder=None, adapter=None, stop=STOP, verification=None)
    gone = Run(folder=str(tmp_path / "gone"), adapter=None, stop=STOP, verification=None)
    for record in (unsaved, gone):
        assert shown(shell, record) == record._repr_mimebundle_()
        with pytest.raises(InputError):
            show(record)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"schema": 1}',
        b"\xff\xfe",
    ],
)
def test_a_run_whose_plan_cannot_be_read_shows_itself(shell, run, tmp_path, content, capsys):
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "plan.json").write_bytes(content)
    record = Run(folder=str(folder), adapter=None, stop=STOP, verification=None)
    assert shown(shell, record) == record._repr_mimebundle_()
    assert "Traceback" not in "".join(capsys.readouterr())


def test_spectra_of_no_matrix_are_still_displayed(shell):
    empty = ModelSpectra(source="nothing", digest="0", matrices=())
    assert shown(shell, empty)["text/plain"] == empty.to_text()


def test_taken_out_records_show_themselves_again(shell, records):
    for _, record in records[:3]:
        shown(shell, record)
    view_of.unregister(shell)
    for _, record in records:
        assert shown(shell, record) == record._repr_mimebundle_()
    view_of.unregister(shell)
    view_of.register(shell)
    assert "<img" in shown(shell, records[0][1])["text/html"]
