"""The table resumes, tells every arm with its interval, and refuses what it cannot run before it runs anything."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from geonb.cli.coordinates_continual import forgetting
from geonb.coordinates.continual import table as module
from geonb.coordinates.continual.rows import ForgettingRow, append_row, read_rows
from geonb.coordinates.continual.table import ForgettingTable, forgetting_table, tabulate
from geonb.errors import InputError

QUICK = {"stage": "pilot", "seeds": (0,), "arms": ("fine-tuning", "lora-per-task", "frozen"), "steps": 4}


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


def test_the_table_shows_itself_with_the_capacity_and_what_was_left_out(rows):
    found = tabulate(list(read_rows(rows).values()))
    assert ForgettingTable.from_json(found.to_json()) == found
    for shown in (found.to_text(), found.to_html()):
        assert "2m = 128" in shown and "lora-per-task" in shown and "EWC" in shown
    assert found.to_html().count("<tr>") == 4


def test_the_operations_stage_runs_and_guesses_ids():
    found = forgetting_table(
        2,
        seeds=(1,),
        arms=("lora-per-task", "coordinates-orthogonal"),
        steps=1,
        pretraining=1,
        progress=lambda *told: None,
    )
    assert found.of("lora-per-task").inferred_by == "bag of words"
    assert found.of("coordinates-orthogonal").inferred_by == "kernel"
    assert found.of("coordinates-orthogonal").forgetting.value == 0
    assert found.of("lora-per-task").parameters == 2 * 2 * 2 * (4 * 32 + 32 + 32 + 32 + 64)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"operations": 1}, "1 operations were asked for; allowed are 2 to 184"),
        ({"stage": "dream"}, "stage 'dream' was given; allowed are pilot and operations"),
        ({"seeds": ()}, r"seeds \[\] were given; allowed is one or more"),
        ({"seeds": (1, 1)}, r"seeds \[1, 1\] were given"),
        ({"arms": ("ewc",)}, "arm 'ewc' was given; allowed are fine-tuning, shared-lora"),
        ({"steps": 0}, "0 steps and 200 of pre-training were given"),
        ({"optimiser": "lion"}, "optimiser 'lion' was given; allowed are sgd and adam"),
    ],
)
def test_bad_requests_are_refused_before_anything_runs(arguments, sentence, monkeypatch):
    monkeypatch.setattr(module, "_Stage", None)
    with pytest.raises(InputError, match=sentence):
        forgetting_table(**{"operations": 4, **arguments})


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
    append_row(path, other)
    assert list(read_rows(path).values()) == [other]
    with pytest.raises(InputError, match="arm 'ewc' is not in this table"):
        tabulate(found).of("ewc")


def test_the_command_prints_the_table_or_one_json_document(rows):
    app = typer.Typer()
    app.command()(forgetting)
    asked = ["--stage", "pilot", "--tasks", "2", "--seeds", "1", "--steps", "4", "--rows", str(rows)]
    asked += ["--arms", "fine-tuning,lora-per-task,frozen"]
    told = CliRunner().invoke(app, asked)
    assert told.exit_code == 0 and "lora-per-task" in told.stdout
    found = CliRunner().invoke(app, [*asked, "--json"])
    assert ForgettingTable.from_json(found.stdout).tasks == 2
