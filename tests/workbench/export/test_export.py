"""What is refused before anything is written, what is thrown away after it, and what the record says."""

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from geonb.errors import BackendError, InputError
from geonb.workbench.export import TARGETS, Export, GapTable, export_adapter, gap_table, merge_adapter
from geonb.workbench.export import export as module
from geonb.workbench.export import weights as weights_module

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture
def pair(pairs):
    return pairs("llama")


# -- refused before anything is written -------------------------------------------------------------------------------


def test_an_adapter_of_another_model_is_refused(pair, few, tmp_path):
    with pytest.raises(InputError, match="does not fit embedded"):
        export_adapter("embedded", pair.adapter, tmp_path / "deep" / "out", target="merged_bf16", probes=few)
    assert list(tmp_path.iterdir()) == []


def test_a_pickled_adapter_is_refused(pair, tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match="as a pickle"):
        export_adapter(pair.base, tmp_path / "adapter", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "because"),
    [
        ({"target": "merged_int3"}, "the target 'merged_int3' is not known; allowed are adapter, mlx, merged_fp16"),
        ({"target": "merged_bf16", "bits": 8}, "--bits 8 was given for merged_bf16; it has no choice of bits"),
        ({"target": "gguf", "bits": 5}, "--bits 5 was given for gguf; allowed are 16, 8, 4, 32"),
        ({"target": "adapter", "probes": "embedded:nothing"}, "the embedded data set 'nothing' is not known"),
    ],
)
def test_what_does_not_exist_is_refused(options, because, pair, tmp_path):
    with pytest.raises(InputError, match=because):
        export_adapter(pair.base, pair.adapter, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused_and_only_an_export_is_ever_replaced(pair, few, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    for overwrite, because in ((False, "exists; allowed is a new or empty folder"), (True, "is no export of geonb")):
        with pytest.raises(InputError, match=because):
            export_adapter(pair.base, pair.adapter, out, overwrite=overwrite, probes=few)
    (out / "thesis.txt").unlink()
    assert export_adapter(pair.base, pair.adapter, out, probes=few).verdict == "passed"
    with pytest.raises(InputError, match="add --overwrite to replace an earlier export"):
        merge_adapter(pair.base, pair.adapter, out, probes=few)
    assert merge_adapter(pair.base, pair.adapter, out, probes=few, overwrite=True).verdict == "passed"
    assert (out / "model.safetensors").is_file() and not (out / "adapter_model.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_base_and_the_adapter_are_never_written_over(pair, few):
    for place in (pair.base, pair.base.parent, pair.adapter):
        with pytest.raises(InputError, match="which is what is exported"):
            export_adapter(pair.base, pair.adapter, place, overwrite=True, probes=few)


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"init_lora_weights": "pissa"}, "starts by 'pissa', which also changes the base"),
        ({"alora_invocation_tokens": [1]}, "acts only after its invocation tokens"),
    ],
)
def test_an_adapter_that_moves_more_than_its_factors_is_not_merged(change, because, pair, few, tmp_path):
    adapter = shutil.copytree(pair.adapter, tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text()) | change
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=because):
        merge_adapter(pair.base, adapter, tmp_path / "out", probes=few)


def test_a_tensor_that_is_no_factor_is_named(pair, few, write, tmp_path):
    adapter = write(pair.base, tmp_path / "dora", r=2, target_modules=["q_proj"], use_dora=True)
    with pytest.raises(InputError, match=r"lora_magnitude_vector.*which is no lora_A or lora_B weight"):
        merge_adapter(pair.base, adapter, tmp_path / "out", probes=few)
    record = export_adapter(pair.base, adapter, tmp_path / "out", target="adapter", probes=few)
    assert record.verdict == "passed"  # PEFT carries it as it is


# -- thrown away ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["merged_bf16", "gguf"])
def test_beyond_the_tolerance_nothing_is_kept(target, pair, few, tmp_path):
    record = export_adapter(pair.base, pair.adapter, tmp_path / "a" / "out", target=target, tolerance=1e-9, probes=few)
    assert record.verdict == "failed" and record.output is None and "beyond the tolerance" in record.because
    assert record.tolerance["logit gap"] == 1e-9 < record.gaps["logit gap"].value
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_forgot_the_adapter_fails(pair, few, tmp_path, monkeypatch):
    honest = TARGETS["merged_fp16"]
    forgetful = replace(
        honest,
        write=lambda source, folder, bits, progress: honest.write(replace(source, changes=()), folder, bits, progress),
    )
    monkeypatch.setitem(TARGETS, "merged_fp16", forgetful)
    record = export_adapter(pair.base, pair.adapter, tmp_path / "out", target="merged_fp16", probes=few)
    assert record.verdict == "failed" and any("much of its effect is lost" in note for note in record.notes)
    assert record.gaps["KL mean"].value == pytest.approx(record.gaps["KL mean"].null, rel=1e-2)


def test_a_full_disk_leaves_nothing_and_an_earlier_export_as_it_was(pair, few, tmp_path, monkeypatch):
    out = tmp_path / "out"
    merge_adapter(pair.base, pair.adapter, out, probes=few)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    reading, count = weights_module.MergedWeights.read, []

    def read(self, name):
        count.append(name)
        if len(count) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return reading(self, name)

    monkeypatch.setattr(weights_module.MergedWeights, "read", read)
    with pytest.raises(OSError, match="No space left"):
        merge_adapter(pair.base, pair.adapter, out, probes=few, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_loader_that_cannot_read_the_export_is_named_and_nothing_is_kept(pair, few, tmp_path, monkeypatch):
    def cut(source, folder, bits, progress):
        notes = TARGETS["merged_fp32"].write(source, folder, bits, progress)
        config = json.loads((folder / "config.json").read_text()) | {"model_type": "no_such_type"}
        (folder / "config.json").write_text(json.dumps(config))
        return notes

    monkeypatch.setitem(TARGETS, "merged_fp16", replace(TARGETS["merged_fp16"], write=cut))
    with pytest.raises(BackendError, match=r"transformers [\d.]+ does not read the export back"):
        export_adapter(pair.base, pair.adapter, tmp_path / "out", target="merged_fp16", probes=few)
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_with_nan_never_passes(pair, few, tmp_path):
    adapter = shutil.copytree(pair.adapter, tmp_path / "adapter")
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = next(name for name in tensors if "lora_B" in name)
    tensors[name][0, 0] = torch.nan
    save_file(tensors, adapter / "adapter_model.safetensors")
    assert export_adapter(pair.base, adapter, tmp_path / "out", probes=few).verdict == "failed"
    with pytest.raises(InputError, match="check the adapter for nan"):
        merge_adapter(pair.base, adapter, tmp_path / "out", probes=few)
    assert not (tmp_path / "out").exists()


# -- the record -------------------------------------------------------------------------------------------------------


def test_the_record_stands_in_the_export_and_reads_back(pair, few, tmp_path):
    record = export_adapter(pair.base, pair.adapter, tmp_path / "out", target="merged_bf16", probes=few)
    stored = Export.load(tmp_path / "out" / "export.json")
    assert stored == record and Path(record.output) == tmp_path / "out"
    assert record.bytes == sum(record.files.values()) > record.files["model.safetensors"]
    assert record.gaps["logit gap"].n == 80 and record.probes.startswith("4 texts, 80 tokens of ")
    assert record.gaps["KL mean"].interval is not None and len(record.adapter_sha256) == len(record.base_sha256) == 64


def test_names_from_files_cannot_steer_a_terminal_or_a_page(pair, few, tmp_path):
    record = export_adapter(pair.base, pair.adapter, tmp_path / "out", probes=few)
    hostile = replace(record, model="<script>\x1b[31m", notes=("<img onerror=x>\x07",))
    assert "\x1b" not in hostile.to_text() and "\x07" not in hostile.to_text()
    assert "<script>" not in hostile.to_html() and "<img" not in hostile.to_html()


def test_a_mixture_is_judged_on_nine_tokens_of_ten(pairs, few, tmp_path):
    pair = pairs("mixtral")
    record = export_adapter(pair.base, pair.adapter, tmp_path / "out", target="merged_bf16", probes=few)
    assert record.verdict == "passed" and set(record.tolerance) == {"logit gap of 90%", "KL mean"}
    exact = export_adapter(pair.base, pair.adapter, tmp_path / "exact", target="merged_fp32", probes=few)
    assert set(exact.tolerance) == {"logit gap", "KL mean"}


def test_the_table_has_a_row_for_every_target_and_a_reason_for_every_gap(pairs, few):
    pair = pairs("gpt2")
    table = gap_table(pair.base, pair.adapter, ["adapter", "merged_fp32", "merged_fp16", "gguf:8"], probes=few)
    assert [row.verdict for row in table.rows] == ["passed", "passed", "passed", "unavailable"]
    assert table.row("merged_fp32").kl_mean.value < table.row("merged_fp16").kl_mean.value
    assert table.row("merged_fp16").bytes < table.row("merged_fp32").bytes
    assert "allowed are llama and mistral" in table.row("gguf:8").because and "gguf:8" in table.to_text()
    assert GapTable.from_json(table.to_json()) == table and "<table" in table.to_html()
    with pytest.raises(InputError, match="no number of bits after its colon"):
        gap_table(pair.base, pair.adapter, ["gguf:q8"])


def test_every_target_has_a_tolerance():
    from geonb.models.checkpoint import Checkpoint

    checkpoint = Checkpoint.open("embedded")
    for target in TARGETS.values():
        for bits in target.bits or (None,):
            assert target.precision(checkpoint, bits) in module.TOLERANCES
