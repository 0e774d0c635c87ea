"""Bad checkpoints, each with its one sentence; and the cache."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from geonb.errors import InputError
from geonb.models import Checkpoint, TorchRuntime, checkpoint_geometry, model_capacity
from geonb.models.cache import cache_folder, file_digest
from tests.families import write_tiny


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_tiny("llama", tmp_path_factory.mktemp("whole"))


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_no_such_path():
    with pytest.raises(InputError, match=r"/no/where does not exist; allowed are a model's folder, a hub id"):
        Checkpoint.open("/no/where")


def test_a_file_is_not_a_model(copy):
    with pytest.raises(InputError, match="is a file; a model is a folder"):
        Checkpoint.open(copy / "config.json")


def test_no_config(copy):
    (copy / "config.json").unlink()
    with pytest.raises(InputError, match=r"has no config\.json"):
        Checkpoint.open(copy)


def test_a_config_that_is_not_json(copy):
    (copy / "config.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        Checkpoint.open(copy)


def test_truncated_weights(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"is not a whole safetensors file \(\d+ bytes instead of \d+\)"):
        Checkpoint.open(copy)


@pytest.mark.parametrize("content", [b"", b"123", b"\xff" * 64, (20).to_bytes(8, "little") + b"not json at all ----"])
def test_corrupt_weights(copy, content):
    (copy / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="is not a whole safetensors file"):
        Checkpoint.open(copy)


def test_pickles_are_refused_with_the_reason(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(InputError, match="only as pickle files, which can run code"):
        Checkpoint.open(copy)


def test_no_weights_at_all(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(InputError, match="holds no safetensors weights"):
        Checkpoint.open(copy)


def test_quantised_by_config(copy):
    edit_config(copy, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(InputError, match=r"is quantised \(gptq\).*give the unquantised one"):
        Checkpoint.open(copy)


def test_quantised_by_dtype(copy):
    tensors = load_file(copy / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name].to(torch.int8)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"up_proj\.weight is stored as I8, which is a quantised weight"):
        Checkpoint.open(copy)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_matrix_that_is_not_finite_is_named(copy, value):
    tensors = load_file(copy / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = value
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"model\.layers\.1\.mlp\.up_proj\.weight of .* holds NaN or infinite values"):
        checkpoint_geometry(Checkpoint.open(copy))


def test_a_zero_matrix_is_not_targetable_and_says_so(copy):
    tensors = load_file(copy / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"].zero_()
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    found = {matrix.name: matrix for matrix in model_capacity(copy).matrices}
    zero = found["model.layers.1.mlp.up_proj.weight"]
    assert not zero.targetable and "zero matrix" in zero.because


def test_an_index_cannot_lead_out_of_its_folder(copy):
    index = {"weight_map": {"a": "../../etc/passwd"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"names '\.\./\.\./etc/passwd', which is not in its folder"):
        Checkpoint.open(copy)


def test_a_missing_shard_is_named(copy):
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-2.safetensors"}}))
    with pytest.raises(InputError, match=r"names 'model-2\.safetensors'"):
        Checkpoint.open(copy)


def test_an_encoder_is_not_run_as_a_language_model(tmp_path):
    checkpoint = Checkpoint.open(write_tiny("bert", tmp_path))
    with pytest.raises(InputError, match="not a causal language model"):
        TorchRuntime.load(checkpoint)


def test_an_absent_device_lists_the_present_ones(whole):
    with pytest.raises(InputError, match="'tpu' is not there; allowed here are auto, cpu"):
        TorchRuntime.load(Checkpoint.open(whole), device="tpu")


def test_an_unknown_sort_key(whole):
    with pytest.raises(InputError, match="--sort-by was given 'size'; allowed are layer, name, recommended-rank"):
        model_capacity(whole, sort_by="size")


def test_a_second_scan_reads_the_cache_and_a_damaged_entry_is_no_entry(whole):
    checkpoint = Checkpoint.open(whole)
    first = checkpoint_geometry(checkpoint)
    entries = sorted((cache_folder() / "spectra").glob("*.npz"))
    assert len(entries) >= len(first)
    for entry in entries:
        entry.write_bytes(b"PK\x03\x04 damaged")
    again = checkpoint_geometry(checkpoint)
    for before, after in zip(first, again, strict=True):
        np.testing.assert_array_equal(before.spectrum.values, after.spectrum.values)
    assert checkpoint_geometry(checkpoint) == again


def test_digests_follow_content_not_time(copy):
    before = Checkpoint.open(copy).digest
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes())
    assert Checkpoint.open(copy).digest == before
    edit_config(copy, rms_norm_eps=1e-4)
    assert Checkpoint.open(copy).digest != before
    assert len(file_digest(path)) == 64


def test_an_unknown_name_says_how_to_list_them(whole):
    with pytest.raises(InputError, match="has no matrix 'x'; `geonb model info"):
        Checkpoint.open(whole).ref("x")
