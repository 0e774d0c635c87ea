"""`data prepare` as a shell calls it: one answer, one JSON document, one sentence for what is wrong."""

import csv
import json

import pytest
import typer
from typer.testing import CliRunner

from geonb.cli import data as group
from geonb.data import read_records
from geonb.data.prepare import Prepared
from geonb.errors import InputError
from geonb.plan import build_plan
from tests import tiny

app = typer.Typer()
app.add_typer(group.app, name="data")


def call(*arguments):
    return CliRunner().invoke(app, ["data", "prepare", *map(str, arguments)])


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "pairs.csv"
    with path.open("w", newline="") as stream:
        rows = [[i, f"How many are {i} and {i % 7}?", f"{i + i % 7} pieces"] for i in range(200)]
        csv.writer(stream).writerows([["id", "question", "answer"], *rows, rows[3], [1000, "", "x"]])
    return path


def test_a_table_becomes_data_that_a_plan_takes(tmp_path_factory, source):
    done = call(source)
    assert done.exit_code == 0, done.output
    output = source.with_name("pairs.prepared.jsonl")
    assert len(read_records(output)) == 200
    assert done.stdout.startswith("200 of 202 records of ")
    assert "'question' + 'answer': 200 records" in done.stdout
    assert "1  duplicate" in done.stdout and "1  empty" in done.stdout
    assert done.stdout.rstrip().endswith(f"geonb plan -m embedded -d {output}")
    plan = build_plan(tiny.tiny_model(tmp_path_factory), output, max_steps=2, calibrate=False)
    assert plan.data["n_examples"] == 200


def test_json_is_one_document_and_the_record(source):
    done = call(source, "--json", "--show-dropped", "-m", "embedded", "-o", source.with_name("out.jsonl"))
    record = Prepared.from_dict(json.loads(done.stdout))
    assert (record.n_read, record.n_kept, record.n_removed) == (202, 200, 2)
    assert [(one.line, one.reason) for one in record.dropped] == [(202, "duplicate"), (203, "empty")]
    assert record.tokens is not None and record.context_length is not None and record.n_beyond_context == 0
    assert record.output == str(source.with_name("out.jsonl"))


def test_columns_can_be_named(source):
    done = call(source, "--text-column", "answer", "--json")
    assert json.loads(done.stdout)["kinds"] == {"text": len({i + i % 7 for i in range(200)}) + 1}


def test_plain_text_by_line_and_the_split_of_a_folder(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "train.txt").write_text("a\nb\n\nc\n")
    (tmp_path / "in" / "test.txt").write_text("d\n")
    assert json.loads(call(tmp_path / "in", "--json").stdout)["n_kept"] == 2
    assert json.loads(call(tmp_path / "in", "--json", "--by-line", "--overwrite").stdout)["n_kept"] == 3
    found = json.loads(call(tmp_path / "in", "--json", "--split", "test", "-o", tmp_path / "t.jsonl").stdout)
    assert found["files"] == ["test.txt"] and found["n_kept"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--text-column", "absent"],
            "has no column 'absent'; there are 'id', 'question', 'answer': name one of these",
        ),
        (["--prompt-column", "question"], "allowed are --text-column alone, or --prompt-column and --answer-column"),
        (["--split", "test"], "--split was given 'test', but the single file"),
        (["-m", "absent/folder/of/a/model"], "does not exist; allowed are a model's folder"),
        (["-o", "absent/folder/out.jsonl"], "lies in a folder that does not exist"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing_behind(source, arguments, message):
    done = call(source, *arguments)
    assert isinstance(done.exception, InputError) and message in str(done.exception)
    assert "\n" not in str(done.exception) and done.stdout == ""
    assert [path.name for path in source.parent.iterdir()] == ["pairs.csv"]
