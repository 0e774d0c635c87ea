"""The table resumes, tells every arm with its interval, and refuses what it cannot run before it runs anything."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from geonb.cli.coordinates_continual import forgetting
from geonb.coordinates.continual import table as module
from geonb.coordinates.continual.results import ForgettingTable, decide, tabulate
from geonb.coordinates.continual.rows import ForgettingRow, read_rows
from geonb.coordinates.continual.table import forgetting_table
from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.record_lines import append_line

QUICK = {"stage": "teachers", "seeds": (0,), "arms": ("fine-tuning", "lora-per-task", "frozen"), "steps": 4}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("forgetting") / "rows.jsonl"
    forgetting_table(2, path=path, **QUICK)
    return path


def test_a_row_for_each_arm_is_written_and_read_back(rows):
    found = read_rows(rows)
    assert [one.arm for one in found.values()] == ["fine-tuning", "lora-per-task", "frozen"]
    for one in found.values():
        assert [len(line) for line in one.matrix] == [1, 2] and ForgettingRow.from_json(one.to_json()) == one


def test_a_stopped_call_goes_on_with_the_next_run(rows, tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    lines = rows.read_text().splitlines(keepends=True)
    # two whole rows, and one that a kill left half
    path.write_text(lines[0] + lines[1] + lines[2][:40])
    made = []
    own = module._Stage.run
    monkeypatch.setattr(module._Stage, "run", lambda self, name, *rest: made.append(name) or own(self, name, *rest))
    again = forgetting_table(2, path=path, **QUICK)
    assert made == ["frozen"] and len(path.read_text().splitlines()) == 3
    made.clear()
    assert forgetting_table(2, path=path, **QUICK) == again and not made


def test_runs_are_the_same_every_time(rows):
    fresh = forgetting_table(2, **QUICK)
    stored = tabulate(list(read_rows(rows).values()))
    assert [one.accuracy for one in fresh.results] == [one.accuracy for one in stored.results]


def test_the_figures_of_the_table_are_those_of_the_rows(rows):
    found, raw = tabulate(list(read_rows(rows).values())), read_rows(rows)
    for one, row in zip(found.results, raw.values(), strict=True):
        assert one.accuracy.value == pytest.approx(sum(row.matrix[-1]) / 2)
        assert one.forgetting.value == pytest.approx(row.matrix[0][0] - row.matrix[1][0])
    ahead = found.of("fine-tuning").behind_control
    assert ahead is not None
    assert ahead.value == pytest.approx(
        found.of("fine-tuning").accuracy.value - found.of("lora-per-task").accuracy.value
    )
    assert found.of("lora-per-task").forgetting.value == 0 and found.of("lora-per-task").behind_control is None
    assert found.of("frozen").parameters == 0 and found.of("frozen").intransigence is None
    assert found.of("fine-tuning").ratio == pytest.approx(2304 / 328)
    ahead = found.of("fine-tuning").forward_transfer
    row = next(iter(raw.values()))
    assert ahead is not None and ahead.value == pytest.approx(row.before[1] - row.start[1])
    assert found.of("lora-per-task").forward_transfer.value == 0


def test_the_table_shows_itself_with_the_capacity_and_what_was_left_out(rows):
    found = tabulate(list(read_rows(rows).values()))
    assert ForgettingTable.from_json(found.to_json()) == found
    for shown in (found.to_text(), found.to_html()):
        assert "2m = 2 " in shown and "lora-per-task" in shown and "ewc" in shown and "too narrow" in shown
        assert "a reference, not a bound" in shown and "upper bound" not in shown
    assert found.to_html().count("<tr>") == 4


def test_the_operations_stage_runs_and_guesses_ids(tmp_path):
    asked = {"seeds": (1,), "arms": ("lora-per-task", "coordinates-orthogonal"), "steps": 1, "pretraining": 1}
    told = []
    found = forgetting_table(2, **asked, bases=tmp_path, progress=lambda *one: told.append(one))
    assert found.of("lora-per-task").inferred_by == "bag of words"
    assert found.of("coordinates-orthogonal").inferred_by == "kernel"
    assert found.of("coordinates-orthogonal").forgetting.value == 0
    # rank 4 on four matrices of two layers, and 24 x 24 cores on the same: equal to the number
    each = 4 * 2 * (3 * (64 + 64) + 64 + 128)
    assert found.of("lora-per-task").parameters == 2 * each == found.of("coordinates-orthogonal").parameters
    assert told[0] == ("base, seed 1", 1, 1) and len(list(tmp_path.iterdir())) == 1
    told.clear()
    assert forgetting_table(2, **asked, bases=tmp_path, progress=lambda *one: told.append(one)).results[0].accuracy
    assert all(not one[0].startswith("base") for one in told)


def test_the_pairs_and_the_rank_that_were_asked_for_are_used(rows):
    found = forgetting_table(2, **{**QUICK, "arms": ("lora-per-task", "coordinates-orthogonal")}, pairs=4, lora=3)
    assert found.capacity.limit == 8 and found.lora == 3
    assert found.of("coordinates-orthogonal").parameters == 8 * 160
    assert found.of("lora-per-task").parameters == 2 * (3 * (32 + 64) + 3 * (64 + 4))
    assert found.of("coordinates-orthogonal").ratio == pytest.approx(1280 / 984)


def test_the_older_name_of_the_stage_means_the_same(rows):
    assert forgetting_table(2, **{**QUICK, "stage": "pilot"}, path=rows).stage == "teachers"


def measured(value, low, high):
    return Measurement(value=value, interval=(low, high), n=9, null=0.0, unit="share", operator="")


@pytest.mark.parametrize(
    ("forgetting", "behind", "verdict"),
    [
        (measured(0.0, 0.0, 0.0), measured(0.0, -0.01, 0.01), "succeeds"),
        (measured(0.0, 0.0, 0.0), None, "succeeds"),
        (measured(0.0, -0.01, 0.0049), measured(0.1, 0.05, 0.2), "succeeds"),
        (measured(0.0, 0.0, 0.005), measured(0.0, -0.01, 0.01), "open"),
        (measured(0.0, 0.0, 0.0), measured(-0.02, -0.03, 0.0), "open"),
        (measured(0.0, 0.0, 0.0), measured(-0.1, -0.2, -0.03), "fails"),
        (measured(0.3, 0.2, 0.4), measured(0.1, 0.05, 0.2), "fails"),
        (measured(0.01, 0.005, 0.02), measured(0.0, -0.01, 0.01), "fails"),
    ],
)
def test_zero_forgetting_needs_both_a_small_f_and_an_accuracy_near_the_control(forgetting, behind, verdict):
    assert decide(forgetting, behind) == verdict


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"operations": 1}, "1 operations were asked for; allowed are 2 to 184"),
        ({"stage": "dream"}, "stage 'dream' was given; allowed are teachers and operations"),
        ({"seeds": ()}, r"seeds \[\] were given; allowed is one or more"),
        ({"seeds": (1, 1)}, r"seeds \[1, 1\] were given"),
        ({"arms": ("ewk",)}, "arm 'ewk' was given; allowed are fine-tuning, ewc"),
        ({"steps": 0}, "0 steps and 1500 of pre-training were given"),
        ({"pairs": 12}, "12 pairs were given; allowed is a power of two"),
        ({"lora": 0}, "a LoRA of rank 0 was asked for; allowed are 1 to 32"),
        ({"optimiser": "lion"}, "optimiser 'lion' was given; allowed are sgd and adam"),
    ],
)
def test_bad_requests_are_refused_before_anything_runs(arguments, sentence, monkeypatch):
    monkeypatch.setattr(module, "_Stage", None)
    with pytest.raises(InputError, match=sentence):
        forgetting_table(**{"operations": 4, **arguments})


def test_where_the_control_learned_nothing_the_rule_says_so(rows):
    found = list(read_rows(rows).values())
    for accuracy, verdict in ((0.0, "unlearned"), (1.0, "succeeds")):
        exact = tuple(tuple(accuracy for _ in line) for line in found[0].matrix)
        changed = [ForgettingRow.from_dict({**one.to_dict(), "matrix": exact}) for one in found]
        assert {one.zero_forgetting for one in tabulate(changed).results} == {verdict}
    assert {one.zero_forgetting for one in tabulate(found[:1]).results} == {""}


def test_rows_of_two_kinds_make_no_table_and_a_foreign_line_is_named(rows, tmp_path):
    found = list(read_rows(rows).values())
    other = ForgettingRow.from_dict({**found[0].to_dict(), "steps": 99})
    with pytest.raises(InputError, match="rows of 2 kinds of runs were given"):
        tabulate([*found, other])
    path = tmp_path / "rows.jsonl"
    path.write_text('{"no": "row"}\n')
    with pytest.raises(InputError, match="line 1 is no row of a forgetting table"):
        read_rows(path)
    path.write_text("half a line")
    append_line(path, other)
    assert list(read_rows(path).values()) == [other]
    with pytest.raises(InputError, match="arm 'ewc' is not in this table"):
        tabulate(found).of("ewc")


def test_the_command_prints_the_table_or_one_json_document(rows):
    app = typer.Typer()
    app.command()(forgetting)
    asked = ["--stage", "teachers", "--tasks", "2", "--seeds", "1", "--steps", "4", "--rows", str(rows)]
    asked += ["--arms", "fine-tuning,lora-per-task,frozen"]
    told = CliRunner().invoke(app, asked)
    assert told.exit_code == 0 and "lora-per-task" in told.stdout
    found = CliRunner().invoke(app, [*asked, "--json"])
    assert ForgettingTable.from_json(found.stdout).tasks == 2
