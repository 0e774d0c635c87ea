"""Runs side by side: what the page draws is what the folders hold, and a difference never stands without its interval."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from geonb.errors import InputError
from geonb.train import compare_runs
from geonb.widgets.run_comparison import RunComparison
from tests import tiny

EVIL = "<script>alert(1)</script><img src=x>\x1b[31m"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return [tiny.tiny_run(tmp_path_factory, 4), tiny.tiny_run(tmp_path_factory, 2)]


@pytest.fixture(scope="module")
def view(folders):
    return RunComparison(folders)


@pytest.fixture
def own(folders, tmp_path):
    """A copy of the first run, which a test may damage."""
    return Path(shutil.copytree(folders[0], tmp_path / "own"))


def rewrite(folder, change):
    """Change every event of a trace."""
    lines = (folder / "trace.jsonl").read_text().splitlines()
    (folder / "trace.jsonl").write_text("".join(json.dumps(change(json.loads(line))) + "\n" for line in lines))


def without_numbers(*names, from_step=0):
    """A change that makes these losses of the evaluations nan, as a run that diverges leaves them."""

    def change(event):
        if event["kind"] == "eval" and event["step"] >= from_step:
            event.update(dict.fromkeys(names, "nan"))
        return event

    return change


def test_what_is_sent_is_strict_json_and_small(view):
    assert len(json.dumps(view.state(), allow_nan=False)) < 8000 and view.data() == b""


def test_the_curves_are_the_evaluations_of_the_traces(view, folders):
    for folder, run in zip(folders, view.state()["runs"], strict=True):
        events = [json.loads(line) for line in (folder / "trace.jsonl").read_text().splitlines()]
        found = [event for event in events if event["kind"] == "eval"]
        assert run["validation"] == [[event["step"], event["loss"]] for event in found]
        assert run["retention"] == [[event["step"], event["retention_loss"]] for event in found]
        assert run["label"] == folder.name and run["state"] == "done" and run["problem"] == ""


def test_the_changes_are_those_that_were_verified(view, folders):
    for folder, run in zip(folders, view.state()["runs"], strict=True):
        verified = json.loads((folder / "verification.json").read_text())
        for name, key in (("task", "task"), ("retained", "retention")):
            assert run[name] == [verified[key]["value"], *verified[key]["interval"]]
            assert run[name][1] <= run[name][0] <= run[name][2]
        assert run["verdict"] == verified["verdict"]
        assert run["over_sigma_k"] == max(layer["over_sigma_k"] for layer in verified["layers"])


def test_a_pair_is_the_mean_difference_of_the_same_examples(view, folders):
    losses = [json.loads((folder / "losses.json").read_text()) for folder in folders]
    for pair, name in zip(view.state()["pairs"], ("adapted", "adapted_retention"), strict=True):
        gap = np.mean(np.array(losses[1][name]) - np.array(losses[0][name]))
        assert (pair["first"], pair["second"]) == ("steps-4", "steps-2")
        assert pair["difference"][0] == pytest.approx(gap, abs=1e-6)
        assert pair["difference"][1] <= pair["difference"][0] <= pair["difference"][2] and pair["because"]


def test_the_differences_are_words(view):
    assert view.state()["differences"]["steps"] == ["4", "2"]
    assert all(isinstance(value, str) for row in view.state()["differences"].values() for value in row)


def test_it_is_the_view_of_the_comparison_that_it_was_given(view, folders):
    compared = compare_runs(folders)
    given = RunComparison(compared)
    assert given.record is compared and given.state() == view.state()
    assert repr(given) == "RunComparison('steps-4', 'steps-2')"
    named = RunComparison(folders, labels=["long", "short"])
    assert [run["label"] for run in named.state()["runs"]] == ["long", "short"]


def test_one_run_is_no_comparison(folders):
    with pytest.raises(InputError, match="allowed are two or more"):
        RunComparison(folders[:1])


def test_the_still_picture_names_the_runs_and_holds_each_difference(view):
    (text,) = tiny.pictures(view.static())
    assert "steps-4" in text and "steps-2" in text and "held-out base text" in text
    assert "steps-2 − steps-4" in view.static() and "Paired differences" in view.static()
    for pair in view.state()["pairs"]:
        assert f"{pair['difference'][0]:+.4f} [{pair['difference'][1]:+.4f}" in view.static()


def test_the_figure_has_two_curves_and_one_interval_for_each_run(view, folders):
    traces = view.figure().data
    named = [trace for trace in traces if trace.showlegend is not False]
    assert [trace.name for trace in named] == ["steps-4", "steps-4, base text", "steps-2", "steps-2, base text"]
    intervals = [trace for trace in traces if trace.showlegend is False]
    for trace, run in zip(intervals, view.state()["runs"], strict=True):
        value, low, high = run["task"]
        assert trace.x == (value,) and trace.error_x.array[0] == pytest.approx(high - value)
        assert trace.error_x.arrayminus[0] == pytest.approx(value - low)


def test_runs_that_share_no_examples_stand_beside_each_other_without_a_difference(folders, own):
    (own / "losses.json").unlink()
    shown = RunComparison([own, folders[1]])
    assert {pair["verdict"] for pair in shown.state()["pairs"]} == {"not comparable"}
    assert {pair["difference"] for pair in shown.state()["pairs"]} == {None}
    assert "not comparable" in shown.static() and tiny.pictures(shown.static())


def test_a_run_that_is_gone_says_so_in_its_place(folders, tmp_path):
    shown = RunComparison([folders[0], tmp_path / "gone"])
    gone = shown.state()["runs"][1]
    assert gone["state"] == "no run" and "is not there" in gone["problem"] and gone["validation"] == []
    assert (gone["task"], gone["over_sigma_k"], gone["verdict"]) == (None, None, "not verified")
    json.dumps(shown.state(), allow_nan=False)
    assert tiny.pictures(shown.static()) and len(shown.figure().data) == 5


def test_the_still_picture_says_what_is_wrong_with_a_run(folders, tmp_path):
    shown = RunComparison([folders[0], tmp_path / "gone"])
    assert "is not there" in shown.static() or "no run" in shown.static()


def test_nothing_but_missing_runs_still_has_its_pictures(tmp_path):
    shown = RunComparison([tmp_path / "a", tmp_path / "b"])
    assert "not measured" in tiny.pictures(shown.static())[0] and len(shown.figure().data) == 4


def test_losses_that_are_no_numbers_are_left_out_of_the_page(own, folders):
    rewrite(own, without_numbers("loss", "retention_loss", from_step=1))
    json.dumps(RunComparison([own, folders[1]]).state(), allow_nan=False)


def test_losses_that_are_no_numbers_leave_the_pictures_whole(own, folders):
    rewrite(own, without_numbers("loss", "retention_loss"))
    shown = RunComparison([own, folders[1]])
    assert len(shown.figure().data) == 6
    (text,) = tiny.pictures(shown.static())
    assert "nan" not in text.lower()


def test_names_of_strangers_stay_text(folders):
    shown = RunComparison(folders, labels=[EVIL, "b"])
    tiny.pictures(shown.static())
    assert "<script" not in shown.static() and "&lt;script&gt;" in shown.static()
    assert "<script" not in json.dumps(shown.figure().to_dict(), default=str)
    assert shown.state()["runs"][0]["label"] == EVIL, "the page makes text of it, never markup"


def test_more_runs_than_colours_are_all_there(folders):
    shown = RunComparison([folders[0]] * 9)
    assert [run["label"] for run in shown.state()["runs"]] == ["steps-4", *(f"steps-4 ({n})" for n in range(2, 10))]
    assert len(shown.figure().data) == 27 and tiny.pictures(shown.static())
