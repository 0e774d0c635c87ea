"""A merged folder is what PEFT's own merge in float64 gives, rounded once, and a whole model for whoever loads it."""

import json
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from geonb.errors import InputError
from geonb.workbench.export import export_adapter, merge_adapter
from geonb.workbench.export.rounding import round_once
from tests.families import write_tiny

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
@pytest.mark.parametrize(("target", "dtype"), [("merged_fp32", torch.float32), ("merged_fp16", torch.float16)])
def test_every_weight_is_pefts_merge_rounded_once(family, target, dtype, pairs, few, tmp_path):
    pair = pairs(family)
    record = export_adapter(pair.base, pair.adapter, tmp_path / "out", target=target, probes=few)
    assert record.verdict == "passed", record
    given = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=dtype).state_dict()
    expected = pair.merged_by_peft().state_dict()
    assert given.keys() == expected.keys()
    differing = 0
    for name, tensor in expected.items():
        rounded = round_once(tensor, dtype)
        # PEFT may multiply by the scale before or after the product: the last bit of a float64 can tip a tie
        assert torch.allclose(
            given[name].double(), rounded.double(), rtol=2e-3 if dtype == torch.float16 else 2e-7, atol=0
        )
        differing += int((given[name] != rounded).sum())
    assert differing <= 2


def test_merge_keeps_the_dtype_of_the_base_and_moves_only_what_the_adapter_changes(few, tmp_path):
    adapter = tmp_path / "adapter"
    _embedded_adapter(adapter)
    record = merge_adapter("embedded", adapter, tmp_path / "out", probes=few)
    assert (record.verdict, record.precision, record.target) == ("passed", "bfloat16", "merged")
    from geonb.assets import embedded_model_folder

    before = load_file(embedded_model_folder() / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(4)
    }
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}
    assert "KL mean as served" in record.gaps  # in bfloat16 arithmetic, as its config asks for


def _embedded_adapter(folder):
    from geonb.adapters.peft_files import save_adapter

    generator = torch.Generator().manual_seed(3)
    factors = {
        f"model.layers.{layer}.self_attn.q_proj": (
            torch.randn(256, 3, generator=generator) * 0.05,
            torch.randn(3, 256, generator=generator) * 0.05,
        )
        for layer in range(4)
    }
    save_adapter(folder, factors, base="embedded")


def test_the_folder_is_a_whole_model(pairs, few, tmp_path):
    pair = pairs("llama")
    shutil.copytree(pair.base, tmp_path / "base")
    (tmp_path / "base" / "LICENSE").write_text("terms")
    (tmp_path / "base" / "modeling.py").write_text("raise SystemExit")
    export_adapter(tmp_path / "base", pair.adapter, tmp_path / "out", target="merged_bf16", probes=few)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").decode([5, 6]) is not None
    assert GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id == 1
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == "bfloat16" and "torch_dtype" not in config
    assert (tmp_path / "out" / "LICENSE").read_text() == "terms"
    assert not (tmp_path / "out" / "modeling.py").exists()
    assert json.loads((tmp_path / "out" / "export.json").read_text())["verdict"] == "passed"


def test_a_sharded_base_gives_the_same_shards(pairs, few, tmp_path):
    pair = pairs("llama")
    model = AutoModelForCausalLM.from_pretrained(pair.base)
    model.save_pretrained(tmp_path / "base", max_shard_size="300KB")
    shutil.copyfile(pair.base / "tokenizer.json", tmp_path / "base" / "tokenizer.json")
    shutil.copyfile(pair.base / "tokenizer_config.json", tmp_path / "base" / "tokenizer_config.json")
    record = merge_adapter(tmp_path / "base", pair.adapter, tmp_path / "out", probes=few)
    assert record.verdict == "passed"
    shards = sorted(path.name for path in (tmp_path / "base").glob("*.safetensors"))
    assert len(shards) > 2 and shards == sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    base, out = (json.loads((tmp_path / side / "model.safetensors.index.json").read_text()) for side in ("base", "out"))
    assert base["weight_map"] == out["weight_map"] and base["metadata"]["total_size"] == out["metadata"]["total_size"]


def test_an_adapter_on_a_tied_head_unties_it(few, write, pair_of, tmp_path):
    base = write_tiny("llama", tmp_path / "base", tie_word_embeddings=True)
    with warnings.catch_warnings():  # PEFT warns of its own merge, which would move the embedding too
        warnings.simplefilter("ignore")
        adapter = write(base, tmp_path / "adapter", r=2, lora_alpha=4, target_modules=["lm_head", "q_proj"])
    record = export_adapter(base, adapter, tmp_path / "out", target="merged_fp32", probes=few)
    assert record.verdict == "passed" and any("head was tied" in note for note in record.notes)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    before = load_file(base / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(model.get_input_embeddings().weight, before)
    assert not torch.equal(model.get_output_embeddings().weight, before)


def test_each_tensor_keeps_its_own_dtype_where_the_base_mixes_them(pairs, few, tmp_path):
    pair = pairs("llama")
    shutil.copytree(pair.base, tmp_path / "base")
    tensors = load_file(pair.base / "model.safetensors")
    mixed = {name: tensor.bfloat16() if tensor.ndim == 2 else tensor for name, tensor in tensors.items()}
    save_file(mixed, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    assert merge_adapter(tmp_path / "base", pair.adapter, tmp_path / "out", probes=few).verdict == "passed"
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert {name: tensor.dtype for name, tensor in after.items()} == {name: t.dtype for name, t in mixed.items()}


def test_a_weight_too_large_for_half_precision_is_refused_and_leaves_nothing(pairs, few, tmp_path):
    pair = pairs("llama")
    shutil.copytree(pair.base, tmp_path / "base")
    tensors = load_file(pair.base / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = 1e5
    save_file(tensors, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"'model.layers.1.mlp.up_proj.weight' does not fit float16 .* 1e\+05"):
        export_adapter(tmp_path / "base", pair.adapter, tmp_path / "made" / "out", target="merged_fp16", probes=few)
    assert not (tmp_path / "made").exists()


def test_an_unknown_dtype_is_refused(pairs, tmp_path):
    pair = pairs("llama")
    with pytest.raises(InputError, match="the dtype 'int3' is not known; allowed are float32, float16, bfloat16"):
        merge_adapter(pair.base, pair.adapter, tmp_path / "out", dtype="int3")
