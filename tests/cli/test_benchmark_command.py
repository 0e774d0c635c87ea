"""`geonb benchmark`: what is left is shown, runs are made and resumed, and wrong names are said before work begins."""

import json

import pytest
from typer.testing import CliRunner

from geonb.cli.app import app, main
from geonb.models.checkpoint import Checkpoint
from geonb.plan import options
from geonb.record_lines import append_line
from geonb.workbench.benchmark import design
from geonb.workbench.benchmark.arm import BUDGETS, DEFAULT, OPEN, adamw
from geonb.workbench.benchmark.design import STAGES, Cell, Stage
from geonb.workbench.benchmark.models import RECIPES
from geonb.workbench.benchmark.queue import QueueState, read_rows
from tests.tiny import tiny_model
from tests.workbench.benchmark.small import row_of, small_sets

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def call(*arguments):
    result = CliRunner().invoke(app, ["benchmark", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def tiny_stages(tmp_path_factory, monkeypatch):
    """Two runs of a second in the place of the design."""
    small_sets(monkeypatch)
    monkeypatch.setenv("GEONB_CACHE", str(tmp_path_factory.mktemp("command-cache")))
    cell = Cell(model=str(tiny_model(tmp_path_factory)), domain="arithmetic", horizon=2, batch=4)
    stage = Stage("tiny", (cell,), (lambda cell, done: [cell.job(OPEN), cell.job(adamw(1e30, "8"))],))
    monkeypatch.setattr(design, "STAGES", (stage,))
    return (stage,)


def test_the_list_counts_what_each_stage_lacks_and_writes_nothing(tmp_path):
    path = tmp_path / "rows.jsonl"
    document = json.loads(call("zero-knob", "--list", "--rows", path, "--json").stdout)
    state = QueueState.from_dict(document)
    assert [one.name for one in state.stages] == [stage.name for stage in STAGES]
    # geonb's three arms and three rates of AdamW in four domains on the main model; the small one cannot be made again
    assert state.stages[0].missing == 4 * (3 + 3)
    assert (state.found, state.made, state.rows) == (0, 0, str(path))
    text = call("zero-knob", "--list", "--rows", path).stdout
    assert text.splitlines()[0].startswith(f"0 runs in {path}; known to be missing")
    assert f"    24  {STAGES[0].name}" in text
    assert list(tmp_path.iterdir()) == []


def test_the_list_can_be_narrowed_and_counts_a_row_as_done(tmp_path):
    path = tmp_path / "rows.jsonl"
    narrow = (
        "zero-knob",
        "--list",
        "--rows",
        path,
        "--json",
        "--model",
        "embedded",
        "--domain",
        "kjv",
        "--horizon",
        200,
    )
    assert json.loads(call(*narrow).stdout)["stages"][0]["missing"] == 6
    append_line(path, row_of(Cell("embedded", "kjv").job(OPEN), 2.0, model_digest=Checkpoint.open("embedded").digest))
    document = json.loads(call(*narrow).stdout)
    assert (document["found"], document["stages"][0]["missing"]) == (1, 5)


def test_a_folder_is_a_model_of_ones_own_and_is_asked_the_comparison_at_200_steps(tmp_path_factory, tmp_path):
    model, path = tiny_model(tmp_path_factory), tmp_path / "rows.jsonl"
    document = json.loads(call("zero-knob", "--list", "--rows", path, "--json", "--model", model).stdout)
    # geonb's three arms, and three rates of AdamW at three ranks, in six domains; its seeds wait for these
    assert [one["missing"] for one in document["stages"] if one["missing"]] == [6 * (3 + 3), 6 * 2 * 3]
    narrow = ("--model", model, "--domain", "chat", "--stage", "three")
    append_line(
        path, row_of(Cell(str(model), "chat").job(adamw(1e-3)), 2.0, model_digest=Checkpoint.open(model).digest)
    )
    document = json.loads(call("zero-knob", "--list", "--rows", path, "--json", *narrow).stdout)
    assert [one["missing"] for one in document["stages"] if one["missing"]] == [4]


def test_a_folder_that_is_not_there_is_said_before_any_run(capsys, tmp_path):
    error = refused(capsys, "zero-knob", "--rows", tmp_path / "rows.jsonl", "--model", tmp_path / "none")
    assert str(tmp_path / "none") in error and not (tmp_path / "rows.jsonl").exists()


def test_runs_are_made_and_a_second_call_has_nothing_left(tiny_stages, tmp_path):
    path = tmp_path / "rows.jsonl"
    result = call("zero-knob", "--rows", path, "--json")
    document = json.loads(result.stdout)
    assert (document["found"], document["made"], document["stages"]) == (
        2,
        2,
        [{"name": "tiny", "missing": 0, "seconds": 0.0, "untimed": 0}],
    )
    assert "tiny (2 left)" in result.stderr and "tiny (1 left)" in result.stderr and "diverged" in result.stderr
    kept = path.read_bytes()
    again = call("zero-knob", "--rows", path)
    assert again.stdout.startswith(f"2 runs in {path}; known to be missing") and again.stderr == ""
    assert path.read_bytes() == kept
    assert [row.validation is None for row in read_rows(path).values()] == [False, True]


def test_after_its_minutes_it_begins_no_other_run(tiny_stages, tmp_path):
    path = tmp_path / "rows.jsonl"
    # sixty microseconds: over before the first run would begin or while it runs
    document = json.loads(call("zero-knob", "--rows", path, "--minutes", 1e-6, "--json").stdout)
    assert document["made"] == document["found"] <= 1 and document["stages"][0]["missing"] >= 1


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as leave:
        main(["benchmark", *map(str, arguments)])
    out, error = capsys.readouterr()
    assert leave.value.code == 2 and out == "" and error.strip().count("\n") == 0
    return error


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--domain", "law"), "--domain was given law; the design has kjv, code, arithmetic, chat, modules, names."),
        (("--model", "gpt4"), "--model was given gpt4; the design has embedded, llama-1m-3k, gpt2-4m-2k"),
        (("--horizon", 7), "--horizon was given 7; the design has 200, 60, 800, 2000."),
        (("--minutes", 0), "--minutes was given 0; allowed is any number above 0."),
        (
            ("--model", "llama-9m-2k"),
            "llama-9m-2k is not trained on this machine yet: run `geonb benchmark models llama-9m-2k`",
        ),
        (
            ("--model", "llama-1m"),
            "llama-1m was given; it was trained for a time and cannot be made again, so its rows are",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_before_anything_runs(arguments, sentence, capsys, tmp_path):
    assert sentence in refused(capsys, "zero-knob", "--rows", tmp_path / "rows.jsonl", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_results_file_is_one_sentence(capsys, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n")
    for more in (("--list",), ()):
        assert f"{path} line 1 is no row of the benchmark" in refused(capsys, "zero-knob", "--rows", path, *more)


def test_an_unknown_model_is_refused_before_the_first_is_trained(capsys, tmp_path):
    error = refused(capsys, "models", next(iter(RECIPES)), "gpt4", "--folder", tmp_path / "build")
    assert f"the model 'gpt4' was given; the benchmark trains {', '.join(RECIPES)}." in error
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_there_is_not_trained_again(tmp_path, monkeypatch):
    monkeypatch.setenv("GEONB_CACHE", str(tmp_path / "cache"))
    name = next(iter(RECIPES))
    folder = tmp_path / "cache" / "benchmark-models" / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    result = call("models", name, "--folder", tmp_path / "build")
    assert result.stderr.strip() == f"{name}: {folder}"
    assert not (tmp_path / "build").exists()


def test_the_table_fills_the_marked_blocks_of_a_page_and_says_which(tmp_path, capsys):
    path, page = tmp_path / "rows.jsonl", tmp_path / "page.md"
    for arm, loss in ((DEFAULT, 2.0), (adamw(1e-3), 3.0)):
        append_line(path, row_of(Cell("embedded", "kjv").job(arm), loss))
    page.write_text("# Mine\n<!-- zero-knob: cells -->\n<!-- zero-knob: end -->\n")
    result = call("table", "--rows", path, "--write", page)
    assert "0.667" in result.stdout and result.stderr.strip() == f"{page}: its figures are those of {path}"
    assert (
        page.read_text().startswith("# Mine\n<!-- zero-knob: cells -->\n| cell |") and "| 0.667 |" in page.read_text()
    )
    page.write_text("nothing is marked")
    assert f"{page}: the page has 0 marks" in refused(capsys, "table", "--rows", path, "--write", page)
    assert page.read_text() == "nothing is marked"


def test_the_table_is_of_the_products_default_unless_another_arm_is_named(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    losses = {"balanced": 1.0, "open": 2.0, "strict": 3.0}
    for arm, loss in (*((BUDGETS[name], loss) for name, loss in losses.items()), (adamw(1e-3), 4.0)):
        append_line(path, row_of(Cell("embedded", "kjv").job(arm), loss))

    def ratio(*more):
        return json.loads(call("table", "--rows", path, "--json", *more).stdout)["geometric_mean"]

    assert set(BUDGETS) == set(losses) == set(options.BUDGETS)  # the words of `--budget`
    assert ratio() == ratio("--arm", "balanced") == pytest.approx(0.25)
    assert [ratio("--arm", name) for name in ("open", "strict", OPEN.key)] == pytest.approx([0.5, 0.75, 0.5])
    error = refused(capsys, "table", "--rows", path, "--arm", "wide")
    assert "the arm 'wide' was given; the rows have" in error


@pytest.mark.parametrize("words", [("--help",), ("zero-knob", "--help"), ("models", "--help")])
def test_the_help_says_what_it_costs_and_how_to_go_on(words):
    shown = " ".join(call(*words).stdout.split())
    assert "Usage" in shown
    if words[0] == "zero-knob":
        assert "go on with the same command" in shown
    if words[0] == "models":
        assert "core minutes" in shown
