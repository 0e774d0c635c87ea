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


def write_header(folder, header):
    content = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content + b"\0" * 16)


@pytest.mark.parametrize(
    "entry",
    [
        0, [], None, {}, {"dtype": "F32"}, {"dtype": "F32", "shape": [2, 2]},
        *({"dtype": "F32", "shape": [2, 2], "data_offsets": place} for place in (0, [0], [16, 0], [0, 8, 16], ["a", "b"])),
        *({"dtype": "F32", "shape": shape, "data_offsets": [0, 16]} for shape in (4, ["a", 2], [True, 4], [-2, -2], [3, 2])),
        {"dtype": 4, "shape": [2, 2], "data_offsets": [0, 16]},
    ],
    ids=str,
)  # fmt: skip
def test_an_entry_of_a_header_that_is_no_tensor_is_named(copy, entry):
    write_header(copy, {"a\x1b": entry})
    with pytest.raises(
        InputError, match=r"not a whole safetensors file \(its header says of 'a.*x1b' what is no tensor\)"
    ):
        Checkpoint.open(copy)


@pytest.mark.parametrize("header", [[], 0, None, "x"])
def test_a_header_that_is_no_object_is_refused(copy, header):
    write_header(copy, header)
    with pytest.raises(InputError, match=r"its header is a JSON \w+\): copy or download it again"):
        Checkpoint.open(copy)


@pytest.mark.parametrize(
    ("shape", "told"), [([], r"\[\]"), ([4], r"\[4\]"), ([1, 2, 2], r"\[1, 2, 2\]"), ([0, 4], r"\[0, 4\]")]
)
def test_a_matrix_of_another_shape_is_named(copy, shape, told):
    header = {
        "model.embed_tokens.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * int(np.prod(shape))]}
    }
    content = json.dumps(header).encode()
    size = 4 * int(np.prod(shape))
    (copy / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content + b"\0" * size)
    with pytest.raises(
        InputError, match=rf"stores the tensor model.embed_tokens.weight with the shape {told}; allowed is two"
    ):
        Checkpoint.open(copy)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_hidden_layers": 10**7}, r"declares 10,000,000 layers \(num_hidden_layers\) and the weights hold 2"),
        ({"vision_config": {"depth": 10**7}}, r"declares 10,000,000 layers \(depth\)"),
        ({"text_config": {"num_local_experts": 10**6}}, r"declares 1,000,000 experts \(num_local_experts\)"),
    ],
)
def test_layers_that_no_weights_hold_are_not_built(copy, changes, told):
    edit_config(copy, **changes)
    with pytest.raises(InputError, match=told + ".*copy or download it again"):
        Checkpoint.open(copy)


def test_numbers_that_count_no_layers_are_left_alone(copy):
    edit_config(copy, max_window_layers=10**6, vocab_size_per_layer_input=10**6, num_experts_per_tok=10**6)
    assert Checkpoint.open(copy).layers == 2


def test_a_model_that_holds_an_adapter_is_shown_and_not_loaded(copy):
    (copy / "adapter_config.json").write_text("{}")
    checkpoint = Checkpoint.open(copy)
    assert checkpoint.layers == 2
    with pytest.raises(
        InputError, match="holds an adapter beside its weights, and transformers would apply it unseen: take"
    ):
        TorchRuntime.load(checkpoint, device="cpu")


@pytest.mark.parametrize("length", [[512], "512", {"a": 1}, True])
def test_a_length_that_is_no_number_is_named(copy, length):
    path = copy / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": length}))
    with pytest.raises(
        InputError, match=r"tokenizer_config\.json gives model_max_length as a \w+; allowed is a number"
    ):
        Checkpoint.open(copy).load_tokenizer()
