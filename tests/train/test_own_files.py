"""A run writes into its own folder and nowhere else: what leads out of it is refused before any work."""

import os

import pytest

from geonb.errors import InputError
from geonb.train.events import NoteEvent
from geonb.train.execute import run_training
from geonb.train.own_files import open_own
from geonb.train.run_folder import RunFolder
from geonb.train.training import Training


@pytest.fixture
def run(tiny_plan, tmp_path):
    return RunFolder.create(tmp_path / "run", tiny_plan)


NAMES = ["trace.jsonl", ".lock", "stop", "checkpoint", "adapter", "adapter-last"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("there", [True, False], ids=["to something", "to nothing"])
def test_no_run_starts_or_goes_on_in_a_folder_with_a_link(run, tmp_path, name, there):
    target = tmp_path / "elsewhere"
    if there:
        target.mkdir()
    (run.path / name).symlink_to(target)
    with pytest.raises(InputError, match=rf"{name} is a link to elsewhere, so .*: (remove|copy) it"):
        run_training(run.plan(), output=run.path, resume=True)
    with pytest.raises(InputError, match="is a link to elsewhere"):
        Training(run.plan(), run=run)
    assert target.is_dir() == there and (not there or not list(target.iterdir()))
    assert sorted(path.name for path in run.path.iterdir()) == sorted(["plan.json", name])


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_an_event_is_appended_to_a_file_and_to_nothing_else(run, kind):
    path = run.trace_path
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    for write in (lambda: run.append(NoteEvent(step=1, because="a")), lambda: run.cut_trace(0)):
        with pytest.raises(InputError, match=r"trace\.jsonl is no file, so this run does not go on: copy it"):
            write()


def test_a_link_that_appears_after_the_look_is_not_followed(run, tmp_path, monkeypatch):
    (run.path / "stop").symlink_to(tmp_path / "made")
    monkeypatch.setattr(type(run.path), "is_symlink", lambda self: False)
    with pytest.raises(OSError, match="symbolic links"):
        open_own(run.path / "stop", "ab", "nothing is asked for: remove it")
    assert not (tmp_path / "made").exists()


def test_a_folder_named_stop_asks_for_nothing(run):
    (run.path / "stop").mkdir()
    assert not run.take_stop_request()
    with pytest.raises(InputError, match="stop is no file, so no stop is asked for: remove it"):
        run.request_stop()


def test_a_run_folder_behind_a_link_is_read_and_trained_in_and_not_replaced(run, tmp_path, tiny_plan):
    (tmp_path / "link").symlink_to(run.path)
    behind = RunFolder.open(tmp_path / "link")
    behind.append(NoteEvent(step=1, because="a"))
    assert [event.because for event in run.events()] == ["a"]
    with pytest.raises(InputError, match="is a link, so --overwrite leaves it alone: give the folder itself"):
        RunFolder.create(tmp_path / "link", tiny_plan, overwrite=True)
    assert run.is_run()


def test_an_output_that_no_folder_can_have_is_refused_in_a_sentence(tiny_plan):
    with pytest.raises(InputError, match=r"cannot be used \(File name too long\): choose another with -o"):
        RunFolder.create("a" * 5000, tiny_plan)
