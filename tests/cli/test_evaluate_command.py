"""`train evaluate` and the adapters' `train compare`: one JSON document, a kept file, and refusals before any work."""

import json

import pytest
import typer
from typer.testing import CliRunner

from geonb.cli.evaluate import compare, evaluate
from geonb.cli.output import exit_code_of, returning_records
from geonb.errors import InputError
from geonb.workbench.compare_adapters import AdaptersCompared
from geonb.workbench.evaluate import AdapterEvaluation
from tests.tiny import tiny_model, tiny_run

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

app = typer.Typer()
app.command("evaluate")(evaluate)
app.command("compare")(compare)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_model(tmp_path_factory))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return str(tiny_run(tmp_path_factory))


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    path = tmp_path_factory.mktemp("held") / "plums.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i} plums and {i % 7} pears."}) + "\n" for i in range(20)))
    return str(path)


def call(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_an_evaluation_is_printed_and_kept(model, run, held_out, tmp_path):
    kept = tmp_path / "kept.json"
    said = call("evaluate", "-m", model, "-a", run, "-d", held_out, "--device", "cpu", "-o", kept)
    assert said.exit_code == 0, said.output
    assert "nats per token" in said.stdout and "improved" in said.stdout and "kept.json" in said.stderr
    assert AdapterEvaluation.load(kept).loss.n == 20


def test_json_is_one_document_with_nothing_beside_it(model, run, held_out):
    said = call("evaluate", "-m", model, "-a", run, "-d", held_out, "--limit", 5, "--device", "cpu", "--json")
    assert said.exit_code == 0 and said.stdout.count("\n") == 1 and not said.stderr
    assert AdapterEvaluation.from_json(said.stdout).limit == 5


def test_an_outcome_is_no_gate_so_a_worse_adapter_still_exits_with_0(model, run, held_out):
    with returning_records():
        made = evaluate(
            *(model, run, None, held_out, None, None, 5, 0, None, False, "cpu", False),
        )
    assert exit_code_of(AdapterEvaluation.from_dict({**made.to_dict(), "outcome": "degraded"})) == 0


def test_prompts_are_generated_with_the_given_limit(model, run, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "one apple and"}\n{"prompt": "two"}\n')
    said = call("evaluate", "-m", model, "-a", run, "--prompts", path, "--max-tokens", 4, "--device", "cpu", "--json")
    found = AdapterEvaluation.from_json(said.stdout).prompts
    assert len(found.results) == 2 and all(one.base.tokens <= 4 for one in found.results)


def test_adapters_and_saved_results_are_compared(model, run, held_out, tmp_path):
    live = call(
        *("compare", "-m", model, "--adapter-a", run, "--adapter-b", run, "-d", held_out, "--device", "cpu", "--json"),
    )
    assert AdaptersCompared.from_json(live.stdout).outcome == "no significant difference"
    kept = tmp_path / "kept.json"
    call("evaluate", "-m", model, "-a", run, "-d", held_out, "--device", "cpu", "-o", kept)
    out = tmp_path / "compared.json"
    saved = call("compare", "--result-a", kept, "--result-b", kept, "-o", out)
    assert saved.exit_code == 0 and "no significant difference" in saved.stdout
    assert AdaptersCompared.load(out).winner is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("evaluate -m M -a A", "nothing to evaluate on; allowed is exactly one of --prompts, --data and --benchmark"),
        ("evaluate -m M -a A -d D --prompts D", "--prompts and --data; allowed is exactly one"),
        ("evaluate -m M -a A --benchmark speedy", "--benchmark was given speedy; allowed are quick"),
        ("evaluate -m M -a A -d D --max-tokens 3", "--max-tokens was given 3"),
        ("evaluate -m M -a A -d D -o /no/such/folder/x.json", "whose folder does not exist"),
        ("evaluate -m M -a A -d D -o D", "which exists: give another file, or add --overwrite"),
        ("compare -m M --adapter-a A -d D", "--adapter-b is missing; `train compare` takes two or more runs, or -m"),
        ("compare --result-a D", "--result-b is missing"),
        ("compare RUN RUN -d D", "-d was given beside runs, which are compared by what they measured"),
        ("compare --result-a D --result-b D -m M", "-m was given with --result-a and --result-b"),
        ("compare --result-a D --result-b D", "holds no saved evaluation"),
    ],
)
def test_misuse_is_told_before_any_work(model, run, held_out, arguments, sentence):
    stands = {"M": model, "A": run, "D": held_out}
    said = call(*(stands.get(one, one) for one in arguments.split()))
    assert isinstance(said.exception, InputError) and sentence in str(said.exception)
    assert said.exception.exit_code == 2 and not said.stdout
