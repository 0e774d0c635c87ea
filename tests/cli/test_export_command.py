"""`train export` and `train merge` answer with one document, name what is wrong, and fail where the export does."""

import json

import pytest
import torch
import typer
from typer.testing import CliRunner

from geonb.adapters.peft_files import save_adapter
from geonb.cli import export as commands
from geonb.cli.output import exit_code_of
from geonb.errors import InputError
from geonb.workbench.export import Export
from tests.tiny import tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

app = typer.Typer()
app.command()(commands.export)
app.command()(commands.merge)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_model(tmp_path_factory))


@pytest.fixture(scope="module")
def adapter(model, tmp_path_factory):
    generator = torch.Generator().manual_seed(5)
    left, right = torch.randn(32, 2, generator=generator) * 0.1, torch.randn(2, 32, generator=generator) * 0.1
    folder = tmp_path_factory.mktemp("adapters") / "one"
    return str(save_adapter(folder, {"model.layers.1.self_attn.q_proj": (left, right)}, base=model))


def run(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_an_export_answers_with_its_gaps(model, adapter, tmp_path):
    result = run("export", "-m", model, "-a", adapter, "-o", tmp_path / "out", "--target", "merged_bf16")
    assert result.exit_code == 0, result.output
    assert "passed: within the tolerance of bfloat16: logit gap" in result.stdout
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_json_is_one_document_that_reads_back_as_the_record(model, adapter, tmp_path):
    result = run("merge", "-m", model, "-a", adapter, "-o", tmp_path / "out", "--dtype", "float16", "--json")
    record = Export.from_dict(json.loads(result.stdout))
    assert record.verdict == "passed" and record.precision == "float16" and exit_code_of(record) == 0


def test_a_failed_export_is_an_exit_code_of_one(model, adapter, tmp_path):
    arguments = dict(probes=None, bits=None, overwrite=False, json=True, tolerance=1e-9, target="merged_fp16")
    record = commands.export(model, adapter, str(tmp_path / "out"), **arguments)
    assert record.verdict == "failed" and exit_code_of(record) == 1 and not (tmp_path / "out").exists()


def test_an_existing_folder_needs_overwrite(model, adapter, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    result = run("merge", "-m", model, "-a", adapter, "-o", tmp_path / "out")
    assert isinstance(result.exception, InputError) and "exists; allowed is a new or empty folder" in str(
        result.exception
    )


def test_the_help_names_every_target_and_what_bits_mean():
    shown = " ".join(run("export", "--help").output.split())
    for word in ("mlx", "merged_fp16", "merged_bf16", "deployment_quantized", "gguf", "Q8_0"):
        assert word in shown
