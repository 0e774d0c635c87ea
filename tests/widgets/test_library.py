"""What a dashboard shows is looked up anew each time: runs come and go, and nothing on disk is an exception."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from geonb.errors import InputError
from geonb.train.run_folder import RunFolder
from geonb.widgets.dashboards.library import Library, one_of, read_plan
from geonb.widgets.dashboards.run_list import RunList
from tests import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny.tiny_run(tmp_path_factory)


@pytest.fixture
def shelf(run, tmp_path):
    """A folder with one finished run in it, called `first`."""
    shutil.copytree(run, tmp_path / "shelf" / "first")
    # as on a file system without locks: whether a run lives is then told by its process and its clock
    (tmp_path / "shelf" / "first" / ".lock").unlink()
    return tmp_path / "shelf"


def traced(folder, seconds):
    """Let a run have been traced last at `seconds`."""
    os.utime(folder / "trace.jsonl", (seconds, seconds))


def rewrite(path, **change):
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def rows(*sources):
    return RunList(Library([str(source) for source in sources]), chosen=[]).rows()


def test_a_folder_stands_for_its_runs_also_those_that_come_later(shelf, run):
    library = Library([str(shelf)])
    assert list(library.runs()) == ["first"]
    shutil.copytree(run, shelf / "second")
    traced(shelf / "first", 1000)
    traced(shelf / "second", 2000)
    assert list(library.runs()) == ["second", "first"], "the latest comes first"


def test_a_run_that_was_deleted_is_left_out(shelf, run, tmp_path):
    alone = shutil.copytree(run, tmp_path / "alone")
    library = Library([str(shelf), str(alone)])
    assert set(library.runs()) == {"first", "alone"}
    shutil.rmtree(alone)
    shutil.rmtree(shelf / "first")
    assert library.runs() == {} and library.model_sources() == {}


def test_a_run_that_is_given_twice_is_one_run(shelf):
    assert list(Library([str(shelf), str(shelf / "first"), str(shelf)]).runs()) == ["first"]


def test_runs_of_one_name_are_told_apart(shelf, tmp_path):
    other = shutil.copytree(shelf, tmp_path / "other")
    runs = Library([str(shelf), str(other)]).runs()
    assert len(runs) == 2 and set(runs.values()) == {shelf / "first", other / "first"}


def test_a_name_stays_with_its_run_when_another_becomes_the_latest(shelf, tmp_path):
    other = Path(shutil.copytree(shelf, tmp_path / "other"))
    traced(shelf / "first", 1000)
    traced(other / "first", 2000)
    library = Library([str(shelf), str(other)])
    before = library.runs()
    traced(shelf / "first", 3000)
    assert library.runs() == before


def test_a_run_in_the_working_folder_has_a_name(run, monkeypatch):
    monkeypatch.chdir(run)
    assert list(Library(["."]).runs()) == [run.name]


def test_models_are_those_given_and_those_that_runs_were_made_from(shelf, tmp_path_factory):
    model = tiny.tiny_model(tmp_path_factory)
    library = Library(["embedded", str(shelf)])
    assert library.models == {"embedded": "embedded"}
    assert library.model_sources() == {"embedded": "embedded", model.name: str(model)}
    with_plan = Library(["embedded"], plan=tiny.tiny_plan(tmp_path_factory))
    assert with_plan.model_sources() == library.model_sources()


def test_models_of_one_name_are_told_apart(tmp_path, tmp_path_factory):
    copies = [shutil.copytree(tiny.tiny_model(tmp_path_factory), tmp_path / one / "model") for one in "ab"]
    assert set(Library([str(copy) for copy in copies]).models.values()) == {str(copy) for copy in copies}


def test_nonsense_is_refused(tmp_path, shelf):
    (tmp_path / "file").write_text("no model")
    (tmp_path / "empty").mkdir()
    for source, message in (("/no/such/model", "does not exist"), (str(tmp_path / "file"), "file")):
        with pytest.raises(InputError, match=message):
            Library([source])
    with pytest.raises(InputError, match=r"neither a run \(plan.json\) nor a model \(config.json\)"):
        Library([str(tmp_path / "empty")])


def test_an_empty_folder_is_refused_beside_a_good_one_too(tmp_path, shelf):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="neither a run"):
        Library([str(shelf), str(tmp_path / "empty")])


def test_what_is_wanted_is_taken_where_it_is_allowed():
    allowed = ["a", "b"]
    assert [one_of(wanted, allowed) for wanted in ("b", "x", None)] == ["b", "a", "a"] and one_of("b", []) is None


# -- the list of the runs ------------------------------------------------------------------------------------------


def test_a_finished_run_says_what_it_trained_and_how_it_ended(shelf):
    (row,) = rows(shelf)
    data = json.loads((shelf / "first" / "plan.json").read_text())["data"]["path"]
    assert row == {
        "name": "first", "state": "done", "step": 4, "horizon": 4, "what": f"tiny on {data}", "message": "passed",
    }  # fmt: skip


def test_a_run_whose_process_has_gone_is_dead(shelf):
    rewrite(shelf / "first" / "status.json", state="training", step=2, process=2**22 + 1, updated=time.time())
    assert (rows(shelf)[0]["state"], rows(shelf)[0]["step"]) == ("dead", 2)


def test_a_run_that_is_silent_for_minutes_is_dead_and_one_of_this_process_trains(shelf):
    status = shelf / "first" / "status.json"
    rewrite(status, state="training", process=os.getpid(), updated=time.time())
    assert rows(shelf)[0]["state"] == "training"
    rewrite(status, updated=time.time() - 120)
    assert rows(shelf)[0]["state"] == "dead"


def test_a_run_lives_as_long_as_its_lock_is_held_whatever_the_clock_says(shelf):
    status = shelf / "first" / "status.json"
    rewrite(status, state="training", process=os.getpid(), updated=time.time() - 86_400)
    with RunFolder(shelf / "first").held():
        assert rows(shelf)[0]["state"] == "training"
    rewrite(status, updated=time.time() + 86_400)
    assert rows(shelf)[0]["state"] == "dead"


def test_a_run_before_its_first_status_is_planned(shelf):
    (shelf / "first" / "status.json").unlink()
    assert (rows(shelf)[0]["state"], rows(shelf)[0]["horizon"]) == ("planned", 4)


@pytest.mark.parametrize("name", ["plan.json", "status.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"null", b'{"state": 1}', b"\xff\xfe"])
def test_a_half_written_run_is_a_row_that_says_so(shelf, name, content):
    (shelf / "first" / name).write_bytes(content)
    (row,) = rows(shelf)
    assert row["state"] == "unreadable" and "half-written" in row["message"] and json.dumps(row, allow_nan=False)
    assert read_plan(shelf / "first") is None or name == "status.json"


@pytest.mark.parametrize(
    ("name", "change"),
    [("plan.json", {"model": None}), ("plan.json", {"horizon": 3}), ("status.json", {"process": 10**30})],
)
def test_a_file_of_other_types_is_a_row_that_says_so(shelf, name, change):
    rewrite(shelf / "first" / name, **({"state": "training", "updated": time.time()} if "status" in name else {}))
    rewrite(shelf / "first" / name, **change)
    (row,) = rows(shelf)
    assert row["state"] == "unreadable"


def test_a_name_from_a_folder_stays_data(shelf):
    evil = "<script>alert(1)<"
    shutil.move(shelf / "first", shelf / evil)
    assert rows(shelf)[0]["name"] == evil and "<script" not in repr(RunList(Library([str(shelf)]), chosen=[]))


def test_the_page_is_told_of_runs_that_come_and_go_while_it_is_open(shelf, run):
    view = RunList(Library([str(shelf)]), chosen=["first"])
    assert len(json.dumps(view.state(), allow_nan=False)) < 500 and repr(view) == "RunList(1 runs)"
    host = view.widget()
    shutil.copytree(run, shelf / "second")
    until = time.monotonic() + 10
    while len(host.state["rows"]) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    assert {row["name"] for row in host.state["rows"]} == {"first", "second"} and host.state["chosen"] == ["first"]
    view.close()
    until = time.monotonic() + 5
    while any(one.name == "geonb-runs" for one in threading.enumerate()) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [one for one in threading.enumerate() if one.name == "geonb-runs"], "closed, nothing looks any more"


def test_the_list_has_still_forms_in_which_strangers_names_stay_text(shelf):
    (shelf / "first").rename(shelf / "<b>first")
    view = RunList(Library([str(shelf)]), chosen=[])
    assert "&lt;b&gt;first" in view.static() and "<b>" not in view.static()
    assert [list(bar.x) for bar in view.figure().data] == [[4], [4]] and view.figure().data[0].y[0] == "&lt;b&gt;first"
