"""The queue: stopped anywhere it goes on where it was, and its file is never left in a state that it cannot read."""

import dataclasses
import json
import subprocess
import sys

import pytest

from geonb.errors import InputError
from geonb.record_lines import append_line
from geonb.workbench.benchmark.arm import OPEN, STRICT, Arm, adamw
from geonb.workbench.benchmark.design import Cell, Stage
from geonb.workbench.benchmark.queue import (
    QueueState,
    of_models_here,
    pending,
    queue_state,
    read_rows,
    run_queue,
)
from tests.tiny import tiny_model
from tests.workbench.benchmark.small import but_for_times, row_of, small_sets

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

CELL = Cell("m", "kjv", 2, 4)
ROWS = [row_of(CELL.job(arm), 2.0) for arm in (OPEN, STRICT, adamw(1e-3))]


@pytest.fixture
def stages(tmp_path_factory, monkeypatch):
    """Three real runs of two steps, the last of which is known only once the first is there."""
    small_sets(monkeypatch)
    monkeypatch.setenv("GEONB_CACHE", str(tmp_path_factory.mktemp("queue-cache")))
    cell = Cell(model=str(tiny_model(tmp_path_factory)), domain="arithmetic", horizon=2, batch=4)

    def afterwards(cell, done):
        return [cell.job(adamw(1e-2, "8"))] if cell.job(OPEN).key in done else []

    return (
        Stage("first", (cell,), (lambda cell, done: [cell.job(OPEN), cell.job(Arm(method="dog", rank="8"))],)),
        Stage("then", (cell,), (afterwards,)),
    )


def compared(path):
    return {key: but_for_times(row) for key, row in read_rows(path).items()}


def test_a_queue_that_was_stopped_and_taken_up_gives_the_rows_of_one_that_was_not(stages, tmp_path):
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "deep" / "parts.jsonl"
    assert run_queue(whole, stages=stages) == 3
    asked = []
    for made in (1, 2):
        rows = []
        done = run_queue(
            parts,
            stages=stages,
            should_stop=lambda rows=rows, made=made: len(rows) >= made,
            starting=lambda stage, job, left: asked.append((stage.name, left)),
            finished=rows.append,
        )
        assert done == made == len(rows)
    assert run_queue(parts, stages=stages) == 0
    assert compared(parts) == compared(whole)
    assert list(read_rows(parts)) == list(read_rows(whole))
    assert asked == [("first", 2), ("first", 1), ("then", 1)]
    assert len(parts.read_text().splitlines()) == 3


def test_a_last_line_that_was_cut_is_made_again(stages, tmp_path):
    path = tmp_path / "rows.jsonl"
    run_queue(path, stages=stages)
    before, text = compared(path), path.read_bytes()
    path.write_bytes(text[:-40])
    assert list(read_rows(path)) == list(before)[:2]
    assert [len(jobs) for _, jobs in pending(read_rows(path), stages)] == [0, 1]
    assert run_queue(path, stages=stages) == 1
    assert compared(path) == before
    # what was whole is left as it was, to the byte
    assert path.read_bytes().startswith(text[: text.rstrip(b"\n").rfind(b"\n") + 1])


@pytest.mark.parametrize("kept", [0, 1, 40, -1])
def test_wherever_the_last_line_was_cut_the_next_row_begins_a_line(kept, tmp_path):
    path = tmp_path / "rows.jsonl"
    for row in ROWS[:2]:
        append_line(path, row)
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:kept])
    assert read_rows(path) == {ROWS[0].key: ROWS[0]}
    append_line(path, ROWS[2])
    assert list(read_rows(path).values()) == [ROWS[0], ROWS[2]]
    assert path.read_bytes().startswith(first)


def test_a_row_is_one_line_of_strict_json_and_comes_back_as_it_was(tmp_path):
    path = tmp_path / "rows.jsonl"
    strange = row_of(CELL.job(OPEN), None, curve=[[0.0, float("inf")]], environment={"machine": "ä\n\u2028"})
    append_line(path, strange)
    (line,) = path.read_bytes().splitlines()
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert line.isascii()
    assert read_rows(path) == {strange.key: strange}


def test_of_two_rows_of_one_run_the_later_one_counts_and_empty_lines_none(tmp_path):
    path = tmp_path / "rows.jsonl"
    for loss in (2.0, 1.5):
        append_line(path, row_of(CELL.job(OPEN), loss))
    path.write_text("\n" + path.read_text() + "\n")
    assert [row.validation for row in read_rows(path).values()] == [1.5]
    assert read_rows(tmp_path / "none.jsonl") == {}


@pytest.mark.parametrize("broken", [b'{"key": "x"', b"[]", b'{"key": "x"}', b"\xff\xfe", b"null", b'{"key": NaN}'])
def test_a_broken_line_in_the_middle_is_one_sentence_with_its_number(broken, tmp_path):
    path = tmp_path / "rows.jsonl"
    for row in ROWS:
        append_line(path, row)
    lines = path.read_bytes().splitlines()
    lines[1] = broken
    path.write_bytes(b"\n".join(lines) + b"\n")
    before = path.read_bytes()
    with pytest.raises(InputError) as caught:
        read_rows(path)
    assert str(caught.value).startswith(f"{path} line 2 is no row of the benchmark (")
    assert str(caught.value).endswith("): mend or remove the line.") and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="line 2 is no row"):
        run_queue(path, stages=())
    assert path.read_bytes() == before


def test_the_second_queue_on_a_file_is_refused_while_the_first_runs_and_welcome_after_it(stages, tmp_path):
    path = tmp_path / "rows.jsonl"
    code = (
        "import sys; from pathlib import Path; from geonb.workbench.benchmark.queue import run_queue\n"
        "from geonb.errors import InputError\n"
        "try: run_queue(Path(sys.argv[1]), stages=())\n"
        "except InputError as error: print(error)\n"
    )

    def other_process():
        return subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        ).stdout

    sentence = f"{path} is being filled by another process: wait for it, or give another file."
    seen = []

    def try_it(row):
        with pytest.raises(InputError) as caught:
            run_queue(path, stages=stages)
        seen.append(str(caught.value))
        if len(seen) == 1:
            seen.append(other_process().strip())

    assert run_queue(path, stages=stages[:1], finished=try_it) == 2
    assert seen == [sentence] * 3
    assert run_queue(path, stages=stages) == 1


def test_a_queue_that_fails_lets_go_of_its_file_and_keeps_what_was_made(stages, tmp_path):
    path = tmp_path / "rows.jsonl"

    def interrupted(step, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_queue(path, stages=stages, starting=lambda stage, job, left: interrupted if left == 1 else None)
    assert len(read_rows(path)) == 1
    assert run_queue(path, stages=stages) == 2


def test_rows_of_a_model_that_was_trained_anew_are_made_again(stages, tmp_path):
    path = tmp_path / "rows.jsonl"
    run_queue(path, stages=stages)
    rows = read_rows(path)
    old = dataclasses.replace(next(iter(rows.values())), model_digest="before")
    append_line(path, old)
    assert queue_state(path, stages=stages).found == len(rows) - 1
    assert run_queue(path, stages=stages) == 1
    assert compared(path) == {key: but_for_times(row) for key, row in rows.items()}
    elsewhere = dataclasses.replace(old, job=dataclasses.replace(old.job, model=str(tmp_path / "gone")))
    assert of_models_here({"it": elsewhere}) == {"it": elsewhere}


def test_only_accepted_runs_are_made_and_counted(stages, tmp_path):
    path = tmp_path / "rows.jsonl"
    assert run_queue(path, stages=stages, accept=lambda job: job.arm == OPEN) == 1
    (row,) = read_rows(path).values()
    assert row.job.arm == OPEN
    state = queue_state(path, stages=stages)
    assert [(one.name, one.missing) for one in state.stages] == [("first", 1), ("then", 1)]
    tuned = queue_state(path, stages=stages, accept=lambda job: job.arm.is_tuned, made=1)
    assert (tuned.found, tuned.made, [one.missing for one in tuned.stages]) == (1, 1, [0, 1])


def test_the_state_shows_itself_and_comes_back_from_json(tmp_path):
    stage = Stage("<b>what & how</b>", (CELL,), (lambda cell, done: [cell.job(OPEN)],))
    state = queue_state(tmp_path / "none.jsonl", stages=(stage,))
    assert QueueState.from_json(state.to_json()) == state
    assert "0 runs in" in state.to_text() and "   1  <b>what & how</b>" in state.to_text()
    assert "&lt;b&gt;what &amp; how" in state.to_html() and "<b>" not in state.to_html()
    assert state.summary().endswith("1 known to be missing)")
