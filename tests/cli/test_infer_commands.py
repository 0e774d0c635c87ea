"""`infer run` and `infer suite` as a shell calls them: a stream, one JSON document, a file that resumes."""

import json

import pytest
from typer.testing import CliRunner

from geonb.cli import infer
from geonb.cli.output import returning_records
from geonb.errors import InputError
from geonb.workbench.inference import Inference, Suite
from tests.tiny import tiny_model, tiny_run

# transformers warns about itself whenever PEFT loads an adapter
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_model(tmp_path_factory))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return str(tiny_run(tmp_path_factory))


def call(*arguments, **options):
    result = CliRunner().invoke(infer.app, [str(one) for one in arguments], **options)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_run_streams_base_then_adapter_and_tells_the_facts_once(model, adapter):
    common = ("-m", model, "-a", adapter, "--raw", "--prompt", "3 apples and", "--max-tokens", 6)
    shown = call("run", *common).stdout
    found = Inference.from_json(call("run", *common, "--json").stdout)
    base, adapted = (one.text for one in found.continuations)
    assert shown.startswith("--- base\n") and "\n--- adapter\n" in shown
    assert shown.index("--- base") < shown.index("--- adapter") < shown.index("\n---\n")
    assert shown.count("stopped by") == 2 and (base.isprintable() is False or base in shown)
    assert not found.chat and found.prompt == "3 apples and" and adapted != base


def test_json_is_one_document_and_nothing_else(model, adapter):
    result = call("run", "-m", model, "-a", adapter, "--prompt", "Hi", "--max-tokens", 3, "--scan", "--json")
    assert result.stdout.count("\n") == 1 and result.stderr == ""
    found = Inference.from_json(result.stdout)
    assert found.chat and found.drift is not None and found.drift.measured["mean KL"].null is not None


def test_the_three_sources_of_a_prompt_are_one(model, tmp_path):
    (tmp_path / "p.txt").write_text("äpfel\nund\n")
    told = [
        call("run", "-m", model, "--max-tokens", 2, "--json", *source, input=given)
        for source, given in (
            (("--prompt", "äpfel\nund"), None),
            (("--prompt-file", tmp_path / "p.txt"), None),
            (("--prompt-stdin",), "äpfel\nund\n"),
        )
    ]
    found = [Inference.from_json(one.stdout) for one in told]
    assert {one.prompt for one in found} == {"äpfel\nund"} and len({one.continuations[0].tokens for one in found}) == 1


def test_in_a_notebook_the_record_comes_back_and_nothing_is_printed(model, capsys):
    with returning_records():
        found = infer.run(
            model=model,
            adapter=None,
            prompt="Hi",
            prompt_file=None,
            prompt_stdin=False,
            chat=None,
            max_tokens=2,
            scan=False,
            device="cpu",
            json=False,
        )
    assert isinstance(found, Inference) and capsys.readouterr().out == ""


def test_suite_writes_resumes_and_sums_up(model, adapter, tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "3 apples and", "answer": "3"}\n{"prompt": "Hi"}\n')
    common = ("suite", tmp_path / "p.jsonl", "-m", model, "-a", adapter, "--max-tokens", 4, "-o", tmp_path / "o.jsonl")
    first = call(*common)
    assert "prompts" in first.stderr and "2 prompts of" in first.stdout and "adapter differs from base" in first.stdout
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 2
    again = call(*common, "--resume", "--json")
    found = Suite.from_json(again.stdout)
    assert found.n_resumed == 2 and again.stderr == "" and again.stdout.count("\n") == 1
    assert found.measured["base: answer found"].n == 1
    with pytest.raises(InputError, match="exists; allowed is a new file"):
        call(*common)
    assert json.loads(call(*common, "--overwrite", "--json").stdout)["n_resumed"] == 0


def test_mistakes_are_one_sentence(model, tmp_path):
    for given, count in ((("--prompt", "a", "--prompt-stdin"), 2), ((), 0)):
        with pytest.raises(InputError, match=f"{count} prompts were given; allowed is exactly one of --prompt"):
            call("run", "-m", model, *given)
    with pytest.raises(InputError, match="which is not a file: check the path"):
        call("run", "-m", model, "--prompt-file", tmp_path / "none")
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"is not UTF-8 text \(byte 3\)"):
        call("run", "-m", model, "--prompt-file", tmp_path / "latin")
    with pytest.raises(InputError, match="none was given: give one with -a"):
        call("run", "-m", model, "--prompt", "Hi", "--scan")


def test_help_says_why_there_is_no_temperature():
    for arguments in (["--help"], ["run", "--help"]):
        assert "temperature" in call(*arguments).stdout
    assert "--resume" in call("suite", "--help").stdout
