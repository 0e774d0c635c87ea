"""`model quantize` answers with one document, names what is wrong, and fails where the model is no longer itself."""

import json

import pytest
import typer
from typer.testing import CliRunner

from geonb.cli.output import exit_code_of
from geonb.cli.quantize import quantize
from geonb.errors import InputError
from geonb.workbench.quantised import Quantised
from tests.tiny import tiny_model

pytest.importorskip("torchao")
app = typer.Typer()
app.command("quantize")(quantize)
app.command("other")(lambda: None)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_model(tmp_path_factory))


def run(*arguments):
    return CliRunner().invoke(app, ["quantize", *map(str, arguments)])


def test_it_answers_with_gap_size_seconds_and_geometry(model, tmp_path):
    result = run(model, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    for words in (
        "KL mean",
        "same token",
        "MB the model",
        "a forward:",
        "below sigma_k in",
        "passed: within the tolerance",
    ):
        assert words in result.stdout
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_json_is_one_document_that_reads_back_as_the_record(model, tmp_path):
    result = run(model, "-o", tmp_path / "out", "--no-geometry", "--json")
    record = Quantised.from_dict(json.loads(result.stdout))
    assert record.verdict == "passed" and record.bits == 8 and record.matrices == () and exit_code_of(record) == 0


def test_a_model_that_is_no_longer_itself_is_not_kept_and_exits_with_1(model, tmp_path):
    result = run(model, "-o", tmp_path / "out", "--tolerance", "1e-9", "--no-geometry", "--json")
    record = Quantised.from_dict(json.loads(result.stdout))
    assert record.verdict == "failed" and exit_code_of(record) == 1 and not (tmp_path / "out").exists()


def test_wrong_bits_are_one_sentence(model, tmp_path):
    result = run(model, "-o", tmp_path / "out", "--bits", 3)
    assert isinstance(result.exception, InputError) and "3 bits were given; allowed are 8 and 4." in str(
        result.exception
    )


def test_the_help_says_what_is_measured_and_that_int4_may_be_no_smaller():
    shown = " ".join(run("--help").output.split())
    for words in ("sigma_k", "noise edge", "no smaller", "gguf", "Q4_0", "exit code"):
        assert words in shown
