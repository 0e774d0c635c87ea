"""PEFT, mlx-lm, torchao and GGUF: each file read by hand gives the changes and weights that PEFT gives."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from geonb.errors import InputError
from geonb.workbench.export import export_adapter
from tests.tiny import tiny_model, tiny_run

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def scales_by_peft(base, adapter):
    from peft import PeftModel
    from peft.tuners.lora.layer import LoraLayer
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter))
    return {path: dict(one.scaling) for path, one in model.named_modules() if isinstance(one, LoraLayer)}


# -- adapter ----------------------------------------------------------------------------------------------------------


def test_a_careless_adapter_becomes_explicit_with_the_same_scale(pairs, few, tmp_path):
    pair = pairs("llama")
    careless = shutil.copytree(pair.adapter, tmp_path / "careless")
    config = json.loads((careless / "adapter_config.json").read_text())
    del config["lora_alpha"], config["inference_mode"]
    config |= {"use_rslora": True, "base_model_name_or_path": None}
    (careless / "adapter_config.json").write_text(json.dumps(config))
    before = scales_by_peft(pair.base, careless)

    record = export_adapter(pair.base, careless, tmp_path / "out", target="adapter", probes=few)
    assert record.verdict == "passed" and any("lora_alpha was missing" in note for note in record.notes)
    explicit = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (
        explicit["lora_alpha"] == 8 and explicit["use_rslora"] and explicit["base_model_name_or_path"] == str(pair.base)
    )
    assert "model.layers.1.mlp.down_proj" in explicit["target_modules"]
    assert scales_by_peft(pair.base, tmp_path / "out") == before
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "export.json",
    }  # fmt: skip


@pytest.mark.parametrize("family", ["gpt2", "mixtral"])
def test_the_factors_keep_their_bytes_and_a_second_export_changes_nothing(family, pairs, few, tmp_path):
    pair = pairs(family)
    for source, out in ((pair.adapter, tmp_path / "one"), (tmp_path / "one", tmp_path / "two")):
        record = export_adapter(pair.base, source, out, target="adapter", probes=few)
        assert record.verdict == "passed" and record.gaps["logit gap"].value == 0
    first, last = (load_file(folder / "adapter_model.safetensors") for folder in (pair.adapter, tmp_path / "two"))
    assert first.keys() == last.keys() and all(torch.equal(first[name], last[name]) for name in first)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_notes_in_the_header_of_a_run_stay(few, tmp_path_factory, tmp_path):
    run, model = tiny_run(tmp_path_factory), tiny_model(tmp_path_factory)
    record = export_adapter(model, run, tmp_path / "out", target="adapter")
    assert record.verdict == "passed" and "the run's held-out examples" in record.probes
    with safe_open(tmp_path / "out" / "adapter_model.safetensors", "pt") as file:
        assert file.metadata()["plan_digest"]


# -- mlx --------------------------------------------------------------------------------------------------------------


@pytest.mark.mlx
def test_mlx_factors_are_pefts_change_at_one_rank_and_scale(pairs, few, tmp_path):
    pytest.importorskip("mlx_lm")
    pair = pairs("llama")
    record = export_adapter(pair.base, pair.adapter, tmp_path / "out", target="mlx", probes=few)
    assert record.verdict == "passed" and record.loader.startswith("mlx_lm ")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["fine_tune_type"] == "lora" and config["num_layers"] == 2
    assert config["lora_parameters"]["rank"] == 4 and config["lora_parameters"]["scale"] == 1.0
    tensors = load_file(tmp_path / "out" / "adapters.safetensors")
    merged = pair.merged_by_peft().state_dict()
    for name in config["lora_parameters"]["keys"]:
        change = (tensors[f"{name}.lora_a"].double() @ tensors[f"{name}.lora_b"].double()).T
        base = load_file(pair.base / "model.safetensors")[f"{name}.weight"].double()
        assert torch.allclose(
            base + change, merged[f"{name}.weight"], rtol=0, atol=3e-8
        )  # B times its scale, in float32
    assert (tensors["model.layers.0.self_attn.q_proj.lora_a"][:, 2:] == 0).all()
    assert len(record.notes) == 2  # padded ranks, and scales in lora_b


@pytest.mark.mlx
def test_one_scale_stays_in_the_config_and_the_factors_are_exact(pairs, few, write, tmp_path):
    pytest.importorskip("mlx_lm")
    base = pairs("llama").base
    adapter = write(base, tmp_path / "adapter", r=3, lora_alpha=5, target_modules=["q_proj", "v_proj"])
    assert export_adapter(base, adapter, tmp_path / "out", target="mlx", probes=few).verdict == "passed"
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["lora_parameters"]["scale"] == 5 / 3
    theirs = load_file(adapter / "adapter_model.safetensors")
    ours = load_file(tmp_path / "out" / "adapters.safetensors")
    path = "model.layers.1.self_attn.v_proj"
    assert torch.equal(ours[f"{path}.lora_a"], theirs[f"base_model.model.{path}.lora_A.weight"].T)
    assert torch.equal(ours[f"{path}.lora_b"], theirs[f"base_model.model.{path}.lora_B.weight"].T)


@pytest.mark.mlx
def test_a_base_that_mlx_lm_reads_otherwise_is_named_as_the_cause(few, write, tmp_path):
    pytest.importorskip("mlx_lm")
    from tests.families import write_tiny

    # transformers leaves the untied head out of config.json, and mlx-lm then ties it
    base = write_tiny("qwen2", tmp_path / "base")
    adapter = write(base, tmp_path / "adapter", r=2, target_modules=["q_proj"])
    record = export_adapter(base, adapter, tmp_path / "out", target="mlx", probes=few)
    assert record.verdict == "failed" and "the base alone has a logit gap of" in record.because
    assert not (tmp_path / "out").exists()


@pytest.mark.mlx
@pytest.mark.parametrize(
    ("family", "because"), [("gpt2", "mlx-lm cannot load"), ("mixtral", "no linear map of that name")]
)
def test_what_mlx_lm_has_no_place_for_is_refused(family, because, pairs, few, tmp_path):
    pytest.importorskip("mlx_lm")
    with pytest.raises(InputError, match=because):
        export_adapter(pairs(family).base, pairs(family).adapter, tmp_path / "out", target="mlx", probes=few)
    assert list(tmp_path.iterdir()) == []


# -- deployment_quantized ---------------------------------------------------------------------------------------------


def test_int8_is_within_half_a_step_of_the_merged_weight(pairs, few, tmp_path):
    pytest.importorskip("torchao")
    pair = pairs("llama")
    record = export_adapter(pair.base, pair.adapter, tmp_path / "out", target="deployment_quantized", probes=few)
    assert record.verdict == "passed" and record.bits == 8 and record.bytes < record.base_bytes
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    merged = pair.merged_by_peft().state_dict()
    path = "model.layers.0.mlp.down_proj"
    whole = {name.removeprefix(f"{path}._weight_"): tensor for name, tensor in tensors.items() if name.startswith(path)}
    weight, scale = merged[f"{path}.weight"], whole["scale"].double()
    assert whole["qdata"].dtype == torch.int8 and scale.numel() == len(weight)
    step = scale.reshape(-1, 1)
    assert ((whole["qdata"].double() * step - weight).abs() <= 0.501 * step).all()


def test_int4_passes_its_own_tolerance_and_says_that_it_is_no_smaller(pairs, few, tmp_path):
    pytest.importorskip("torchao")
    pair = pairs("llama")
    record = export_adapter(
        pair.base, pair.adapter, tmp_path / "out", target="deployment_quantized", bits=4, probes=few
    )
    assert record.verdict == "passed" and any("a byte of its own" in note for note in record.notes)
    eight = export_adapter(pair.base, pair.adapter, tmp_path / "eight", target="deployment_quantized", probes=few)
    assert record.gaps["KL mean"].value > 10 * eight.gaps["KL mean"].value


def test_a_base_without_linear_modules_is_not_quantised(pairs, few, tmp_path):
    pytest.importorskip("torchao")
    pair = pairs("gpt2")
    with pytest.raises(InputError, match=r"keeps its matrices outside of nn\.Linear"):
        export_adapter(pair.base, pair.adapter, tmp_path / "out", target="deployment_quantized", probes=few)


# -- gguf -------------------------------------------------------------------------------------------------------------


def tensors_of(path):
    from gguf import GGUFReader, dequantize

    return {one.name: (one.tensor_type.name, dequantize(one.data, one.tensor_type)) for one in GGUFReader(path).tensors}


@pytest.mark.parametrize(("bits", "kind", "room"), [(32, "F32", 1e-7), (16, "F16", 2**-11), (8, "Q8_0", 1 / 250)])
def test_a_gguf_file_holds_the_merged_weights_in_llama_cpps_order(bits, kind, room, pairs, few, tmp_path):
    pytest.importorskip("gguf")
    pair = pairs("llama")
    record = export_adapter(pair.base, pair.adapter, tmp_path / "out", target="gguf", bits=bits, probes=few)
    assert record.verdict == "passed", record
    tensors, merged = tensors_of(tmp_path / "out" / "model.gguf"), pair.merged_by_peft().state_dict()
    assert len(tensors) == len(merged) and tensors["blk.0.attn_norm.weight"][0] == "F32"
    assert tensors["blk.1.ffn_gate.weight"][0] == kind
    pairs_of_names = {"blk.1.ffn_down.weight": "mlp.down_proj", "blk.1.attn_v.weight": "self_attn.v_proj"}
    for name, ours in pairs_of_names.items():
        weight = merged[f"model.layers.1.{ours}.weight"].numpy()
        assert np.abs(tensors[name][1] - weight).max() <= room * np.abs(weight).max()
    # row 2 i + half of a head is the row half * d / 2 + i of transformers
    for name, ours, heads in (("blk.0.attn_q.weight", "q_proj", 4), ("blk.0.attn_k.weight", "k_proj", 2)):
        weight = merged[f"model.layers.0.self_attn.{ours}.weight"].numpy()
        size = len(weight) // heads
        rows = [
            head * size + half * size // 2 + i for head in range(heads) for i in range(size // 2) for half in (0, 1)
        ]
        assert np.abs(tensors[name][1] - weight[rows]).max() <= room * np.abs(weight).max()


def test_the_tokenizer_in_the_file_cuts_text_as_the_models_own(pairs, few, tmp_path):
    pytest.importorskip("gguf")
    from gguf import GGUFReader
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
    from transformers import AutoTokenizer

    from geonb.assets import dataset_path

    pair = pairs("llama")
    export_adapter(pair.base, pair.adapter, tmp_path / "out", target="gguf", probes=few)
    fields = {name: field.contents() for name, field in GGUFReader(tmp_path / "out" / "model.gguf").fields.items()}
    assert fields["tokenizer.ggml.model"] == "gpt2" and fields["tokenizer.ggml.pre"] == "smollm"
    vocabulary = {token: index for index, token in enumerate(fields["tokenizer.ggml.tokens"])}
    rebuilt = Tokenizer(models.BPE(vocabulary, [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"]]))
    rebuilt.pre_tokenizer = pre_tokenizers.Sequence(  # llama.cpp's rule of that name
        [pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    controls = [one for one, kind in zip(vocabulary, fields["tokenizer.ggml.token_type"], strict=True) if kind == 3]
    rebuilt.add_special_tokens([AddedToken(one, special=True) for one in controls])
    own = AutoTokenizer.from_pretrained(pair.base)
    texts = [json.loads(line)["text"] for line in dataset_path("retention").read_text().splitlines()[:40]]
    for text in [*texts, "<|user|>1234 naïve\t№ 7½<|end|>", "  two  spaces\n\n"]:
        assert rebuilt.encode(text).ids == own(text)["input_ids"]
    assert fields["tokenizer.ggml.eos_token_id"] == own.eos_token_id and fields["tokenizer.ggml.add_bos_token"] is False
    assert fields["tokenizer.chat_template"] == own.chat_template


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"normalizer": {"type": "NFC"}}, "it normalises text first"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "no name for the way it splits"),
        ({"model": {"type": "Unigram", "vocab": []}}, "not byte-level BPE"),
    ],
)
def test_a_tokenizer_that_llama_cpp_would_read_otherwise_is_refused(change, because, pairs, few, tmp_path):
    pytest.importorskip("gguf")
    pair = pairs("llama")
    base = shutil.copytree(pair.base, tmp_path / "base")
    data = json.loads((base / "tokenizer.json").read_text()) | change
    (base / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=because):
        export_adapter(base, pair.adapter, tmp_path / "out", target="gguf", probes=few)


def test_other_families_and_other_rotations_are_refused(pairs, few, tmp_path):
    pytest.importorskip("gguf")
    with pytest.raises(InputError, match="cannot be written as gguf here; allowed are llama and mistral"):
        export_adapter(pairs("gpt2").base, pairs("gpt2").adapter, tmp_path / "out", target="gguf", probes=few)
    pair = pairs("llama")
    base = shutil.copytree(pair.base, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="has rope 'linear'"):
        export_adapter(base, pair.adapter, tmp_path / "out", target="gguf", probes=few)
