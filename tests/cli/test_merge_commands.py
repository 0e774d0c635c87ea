"""`merge run` and `merge batch` as a shell calls them."""

import json

import pytest
from typer.testing import CliRunner

from geonb.cli.merge import app
from geonb.errors import InputError
from geonb.merge.report import MergeBatch, MergeRun
from geonb.models.checkpoint import Checkpoint
from tests.families import write_tiny
from tests.merge.donors import perturbed, stored_bytes
from tests.tiny import sums


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_tiny("llama", folder / "target")
    for seed in (1, 2):
        perturbed(folder / "target", folder / f"donor-{seed}", seed=seed)
    (folder / "sums.jsonl").write_text("".join(sums().splitlines(keepends=True)[:40]))
    return folder


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_run_writes_a_model_and_prints_one_json_document(models, tmp_path):
    out = tmp_path / "out"
    found = call(
        *("run", "-t", models / "target", "-s", models / "donor-1", "-o", out, "--probes", models / "sums.jsonl"),
        *("--donor-text", models / "sums.jsonl", "--device", "cpu", "--json"),
    )
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    assert found.stdout.count("\n") == 1 and MergeRun.from_dict(document) == MergeRun.load(out / "merge.json")
    assert document["effect"]["donor_text"]["n"] == 40
    assert Checkpoint.open(out).architecture == "LlamaForCausalLM"


def test_run_tells_a_person_what_happened(models, tmp_path):
    found = call(
        *("run", "-t", models / "target", "-s", models / "donor-1", "-o", tmp_path / "out", "--rule", "hard"),
        *("--probes", models / "sums.jsonl", "--scale", "0.5", "--device", "cpu", "--memory-budget", "1MB"),
    )
    assert found.exit_code == 0, found.output
    for word in ("rule hard", "scale 0.5", "preserved", "KL(before || merged)", "smoke test", "Stays the target's"):
        assert word in found.stdout


def test_the_embedded_model_needs_no_probes(tmp_path):
    found = call("run", "-t", "embedded", "-s", "embedded", "-o", tmp_path / "out", "--device", "cpu", "--json")
    document = json.loads(found.stdout)
    assert document["texts"]["probes"] == "embedded:retention" and document["effect"]["smoke"] == "passed"
    assert stored_bytes(tmp_path / "out") == stored_bytes(Checkpoint.open("embedded").folder)


def test_batch_merges_all_donors_and_skips_what_is_there(models, tmp_path):
    arguments = (
        *("batch", "-t", models / "target", "-s", models / "donor-1", "-s", models / "donor-2", "-o", tmp_path / "out"),
        *("--probes", models / "sums.jsonl", "--device", "cpu", "--json"),
    )
    first, second = (MergeBatch.from_dict(json.loads(call(*arguments).stdout)) for _ in range(2))
    assert first.skipped == () and len(second.skipped) == 2
    assert first.runs == second.runs and first.effect == second.effect


def test_mistakes_end_in_one_sentence(models, tmp_path):
    common = ("-t", models / "target", "-s", models / "donor-1", "-o", tmp_path / "out")
    for extra, sentence in (
        ((), "no probes were given"),
        (("--probes", models / "sums.jsonl", "--rule", "firm"), "the rule 'firm' was given"),
        (("--probes", models / "none.jsonl"), "none.jsonl is not a file"),
        (("--probes", models / "sums.jsonl", "--memory-budget", "much"), "'much'; allowed is a size"),
        (("--probes", models / "sums.jsonl", "--base", "embedded"), "cannot be merged into"),
    ):
        found = call("run", *common, *extra)
        assert isinstance(found.exception, InputError) and sentence in str(found.exception)
    assert not (tmp_path / "out").exists()


def test_help_names_every_option():
    for command in ("run", "batch"):
        shown = call(command, "--help").stdout
        assert all(
            option in shown for option in ("--target", "--source", "--probes", "--held-out", "--rule", "--scale")
        )
