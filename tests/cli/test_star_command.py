"""`train star`: text for people, one JSON document for programs, and refusals in one sentence."""

import pytest
import typer
from typer.testing import CliRunner

from geonb.cli.output import exit_code_of, returning_records
from geonb.cli.star import star
from geonb.errors import InputError
from geonb.workbench.star import StarRun
from tests.tiny import tiny_model
from tests.workbench.star import colours

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

app = typer.Typer()
app.command("star")(star)


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("problems")
    pool = colours.write(folder / "pool.jsonl", colours.problems(30))
    held = colours.write(folder / "held.jsonl", colours.problems(12, first=1000))
    return ["-m", tiny_model(tmp_path_factory), "-d", pool, "--eval-data", held, "--device", "cpu", "--samples", 2]


def call(*given):
    return CliRunner().invoke(app, [str(one) for one in given])


def test_a_run_is_told_with_its_reason_and_shows_a_bar(arguments, tmp_path):
    said = call(*arguments, "-o", tmp_path / "out", "--max-generation-tokens", 6)
    assert said.exit_code == 0, said.output
    assert "nothing kept" in said.stdout and "start: held-out problems" in said.stderr
    assert StarRun.load(tmp_path / "out/star.json").stop == "nothing kept"


def test_json_is_one_document_with_nothing_beside_it(arguments, tmp_path):
    said = call(*arguments, "-o", tmp_path / "out", "--max-generation-tokens", 6, "--json", "--strategy", "cumulative")
    assert said.exit_code == 0 and said.stdout.count("\n") == 1 and not said.stderr
    run = StarRun.from_json(said.stdout)
    assert run.options.strategy == "cumulative" and run.options.max_generation_tokens == 6
    # an outcome is no gate: a model that learns nothing is an answer, not a failure
    assert exit_code_of(run) == 0


def test_a_finished_run_is_answered_again_with_resume_and_replaced_with_overwrite(arguments, tmp_path):
    given = [*arguments, "-o", tmp_path / "out", "--max-generation-tokens", 6, "--json"]
    first = call(*given).stdout
    assert call(*given, "--resume").stdout == first
    refused = call(*given)
    assert isinstance(refused.exception, InputError) and "exists" in str(refused.exception)
    assert call(*given, "--overwrite").stdout == first


@pytest.mark.parametrize(
    ("more", "told"),
    [(["--few-shot", 5], "--few-shot was given 5"), (["--strategy", "both"], "allowed are fresh_base")],
)
def test_a_bad_option_is_refused_before_anything_is_written(more, told, arguments, tmp_path):
    refused = call(*arguments, "-o", tmp_path / "out", *more)
    assert isinstance(refused.exception, InputError) and told in str(refused.exception)
    assert not (tmp_path / "out").exists()


def test_in_a_notebook_the_record_is_returned_and_nothing_printed(arguments, tmp_path, capsys):
    with returning_records():
        said = CliRunner().invoke(
            app, [str(one) for one in [*arguments, "-o", tmp_path / "o", "--json"]], standalone_mode=False
        )
    assert isinstance(said.return_value, StarRun) and not capsys.readouterr().out
