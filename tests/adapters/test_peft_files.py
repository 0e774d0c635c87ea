"""Saved adapters are the same bytes every time, and PEFT reads them back to the bit."""

import json
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from geonb.adapters.bounded import inject
from geonb.adapters.peft_files import CONFIG, WEIGHTS, load_factors, save_adapter
from geonb.errors import InputError

# PEFT asks transformers for a property under its old name; that is between the two of them
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

LLAMA = {
    "model.layers.0.self_attn.q_proj": (16, 16, 5),
    "model.layers.0.self_attn.k_proj": (8, 16, 2),
    "model.layers.1.mlp.down_proj": (16, 24, 3),
}
GPT2 = {"transformer.h.0.attn.c_attn": (48, 16, 4), "transformer.h.1.mlp.c_proj": (16, 64, 2)}


def reload(model, folder):
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(folder)).eval()


@torch.no_grad()
def logits(model, tokens):
    return model(input_ids=tokens).logits


@pytest.mark.parametrize(("kind", "sizes"), [("llama", LLAMA), ("gpt2", GPT2)])
def test_peft_gives_the_same_logits_to_the_bit(make_model, make_factors, tokens, tmp_path, kind, sizes):
    model = make_model(kind)
    base = logits(model, tokens)
    adapters = inject(model, {path: make_factors(*size, seed=i) for i, (path, size) in enumerate(sizes.items())})
    expected = logits(model, tokens)
    with torch.no_grad():
        products = {path: adapter.factors() for path, adapter in adapters.items()}
    save_adapter(tmp_path, products, base="a-model", transposed=kind == "gpt2")
    # pytest turns every warning of PEFT (missing keys, unmatched patterns, swapped sides) into an error
    loaded = reload(make_model(kind), tmp_path)
    assert torch.equal(logits(loaded, tokens), expected) and not torch.equal(expected, base)
    with loaded.disable_adapter():
        assert torch.equal(logits(loaded, tokens), base)


@pytest.mark.parametrize("name", ["frank-wolfe", "mass", "mass-layer", "adamw"])
def test_every_kind_of_factors_reloads_to_the_bit(make_model, tokens, tmp_path, name):
    from geonb.train.controllers.registry import make_factors

    model, factors = make_model("llama"), {}
    generator = torch.Generator().manual_seed(1)
    for path, (rows, columns, rank) in LLAMA.items():
        # a transposed view, as a decomposition returns it
        basis = torch.linalg.qr(torch.randn(columns, rank, generator=generator))[0].mT
        factors[path] = make_factors(name, basis=basis, in_features=columns, out_features=rows, rank=rank, budget=1.0)
        with torch.no_grad():
            for leaf in factors[path].trained().values():
                leaf.add_(0.1 * torch.randn(leaf.shape, generator=generator))
    adapters = inject(model, factors)
    expected = logits(model, tokens)
    with torch.no_grad():
        save_adapter(tmp_path, {path: adapter.factors() for path, adapter in adapters.items()}, base="a-model")
    assert torch.equal(logits(reload(make_model("llama"), tmp_path), tokens), expected)


def test_layer_1_does_not_take_the_rank_of_layer_11(make_model, make_factors, tokens, tmp_path):
    ranks = {1: 2, 10: 5, 11: 7}
    sizes = {f"model.layers.{layer}.self_attn.{end}_proj": ranks[layer] for layer in ranks for end in "qo"}
    sizes["model.layers.11.self_attn.q_proj"] = 4
    model = make_model("llama", layers=12)
    adapters = inject(model, {path: make_factors(16, 16, rank, seed=rank) for path, rank in sizes.items()})
    expected = logits(model, tokens)
    with torch.no_grad():
        save_adapter(tmp_path, {path: a.factors() for path, a in adapters.items()}, base="a-model")
    loaded = reload(make_model("llama", layers=12), tmp_path)
    for path, rank in sizes.items():
        module = loaded.base_model.model.get_submodule(path)
        assert (module.r["default"], module.scaling["default"]) == (rank, 1.0)
    assert torch.equal(logits(loaded, tokens), expected)


def test_factors_come_back_to_the_bit(make_pair, tmp_path):
    saved = {path: make_pair(*size, seed=i) for i, (path, size) in enumerate(LLAMA.items())}
    save_adapter(tmp_path, saved, base="a-model")
    loaded = load_factors(tmp_path)
    assert set(loaded) == set(saved)
    for path, (left, right) in saved.items():
        assert torch.equal(loaded[path][0], left) and torch.equal(loaded[path][1], right)


def test_equal_adapters_are_equal_bytes(make_pair, tmp_path):
    saved = {path: make_pair(*size) for path, size in LLAMA.items()}
    for name, order in (("one", saved), ("two", dict(reversed(saved.items())))):
        save_adapter(tmp_path / name, order, base="a-model", notes={"seed": "7", "plan_digest": "ab"})
    for name in (WEIGHTS, CONFIG):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    with safe_open(tmp_path / "one" / WEIGHTS, "pt") as file:
        assert file.metadata()["seed"] == "7" and file.metadata()["plan_digest"] == "ab"
    config = json.loads((tmp_path / "one" / CONFIG).read_text())
    assert config["base_model_name_or_path"] == "a-model" and config["lora_alpha"] == config["r"] == 5


def test_an_empty_adapter_is_refused(tmp_path):
    with pytest.raises(InputError, match="at least one matrix"):
        save_adapter(tmp_path, {}, base="a-model")


def test_a_folder_without_an_adapter_is_named(tmp_path):
    with pytest.raises(InputError, match=WEIGHTS):
        load_factors(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"not a safetensors file")
    with pytest.raises(InputError, match="copy or save the adapter again"):
        load_factors(tmp_path)


def test_a_factor_without_the_other_is_named(make_pair, tmp_path):
    save_adapter(tmp_path, {path: make_pair(*size) for path, size in LLAMA.items()}, base="a-model")
    tensors = load_file(tmp_path / WEIGHTS)
    key = next(key for key in tensors if ".lora_B." in key)
    save_file({name: value for name, value in tensors.items() if name != key}, tmp_path / WEIGHTS)
    name = re.escape(key.removeprefix("base_model.model.").removesuffix(".lora_B.weight"))
    with pytest.raises(InputError, match=f"holds lora_A of '{name}' and no lora_B: save the adapter again"):
        load_factors(tmp_path)
