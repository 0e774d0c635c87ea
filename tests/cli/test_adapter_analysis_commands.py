"""`adapter analyze` and `adapter calibrate-baseline` as a shell calls them."""

import json

import pytest
import typer
from typer.testing import CliRunner

from geonb.adapters.baseline import Baseline
from geonb.adapters.lora_geometry import AdapterGeometry
from geonb.cli import adapter_analysis
from geonb.errors import InputError
from tests.tiny import tiny_model, tiny_run

app = typer.Typer()
app.command(name="analyze")(adapter_analysis.analyze)
app.command(name="calibrate-baseline")(adapter_analysis.calibrate_baseline)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_model(tmp_path_factory))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return str(tiny_run(tmp_path_factory))


def call(*arguments):
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_analyze_prints_one_json_document_for_a_run(model, run):
    result = call("analyze", run, "--base", model, "--top-k", 8, "--json")
    found = AdapterGeometry.from_json(result.stdout)
    assert result.exit_code == 0 and result.stdout.count("\n") == 1 and result.stderr == ""
    assert len(found.rows) == 14 and {row.top_k for row in found.rows} == {8}


def test_analyze_finds_the_base_of_the_config_and_sorts_as_asked(run):
    result = call("analyze", run, "--sort-by", "weyl-utilisation")
    assert (
        "by weyl_utilisation; in brackets a random adapter" in result.stdout and "median over random" in result.stdout
    )


def test_a_baseline_file_serves_the_analysis(model, run, tmp_path):
    rank = AdapterGeometry.from_json(call("analyze", run, "--json").stdout).rows[0].rank
    rank = min(rank, 16)
    written = call("calibrate-baseline", "-m", model, "--rank", rank, "-o", tmp_path / "b.json", "--draws", 2, "--json")
    assert json.loads(written.stdout) == Baseline.load(tmp_path / "b.json").to_dict()
    found = AdapterGeometry.from_json(call("analyze", run, "--baseline", tmp_path / "b.json", "--json").stdout)
    assert {row.null_source for row in found.rows if row.rank == rank} == {"baseline"}
    # a document redirected from stdout reads as well
    (tmp_path / "c.json").write_text(written.stdout)
    again = AdapterGeometry.from_json(call("analyze", run, "--baseline", tmp_path / "c.json", "--json").stdout)
    assert again == found


def test_mistakes_are_one_sentence(model, run, tmp_path):
    with pytest.raises(InputError, match="'size' is no column to sort by"):
        call("analyze", run, "--sort-by", "size")
    with pytest.raises(InputError, match="is not a file: give the path of a saved Baseline"):
        call("analyze", run, "--baseline", tmp_path / "none.json")
    with pytest.raises(InputError, match="the rank 99 was given; allowed are 1 to"):
        call("calibrate-baseline", "-m", model, "--rank", 99)
    with pytest.raises(InputError, match=r"holds no adapter_config\.json"):
        call("analyze", tmp_path)


def test_help_teaches():
    said = " ".join(call("analyze", "--help").stdout.split())
    assert "There is no verdict" in said and "calibrate-baseline" in said
    assert "drawn only once" in " ".join(call("calibrate-baseline", "--help").stdout.split())
