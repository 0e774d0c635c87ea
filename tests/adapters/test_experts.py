"""Adapters on the experts of a mixture: folded, taken out, saved, and read by PEFT."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from geonb.adapters.bounded import disabled, merged, weight_change
from geonb.adapters.experts import AdaptedExperts, inject, is_expert, load_factors, remove, save_adapter
from geonb.adapters.factors import StiefelFactors
from geonb.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

# gate_up_proj is (4, 48, 16), down_proj (4, 16, 24) in Mixtral's order (expert, out, in)
BOTH = {
    "model.layers.0.mlp.experts.gate_up_proj[1]": (48, 16, 3),
    "model.layers.0.mlp.experts.gate_up_proj[3]": (48, 16, 5),
    "model.layers.0.mlp.experts.down_proj[0]": (16, 24, 2),
}
MIXED = {
    **BOTH,
    "model.layers.1.mlp.experts.down_proj[2]": (16, 24, 4),
    "model.layers.0.self_attn.q_proj": (16, 16, 7),
    "model.layers.1.self_attn.o_proj": (16, 16, 2),
}
ONE = {"model.layers.1.mlp.experts.gate_up_proj[2]": (48, 16, 4)}
EVERY = {f"model.layers.0.mlp.experts.gate_up_proj[{expert}]": (48, 16, 6) for expert in range(4)}
# (expert, in, out) in GPT-OSS
SWAPPED = {
    "model.layers.0.mlp.experts.gate_up_proj[1]": (16, 48, 3),
    "model.layers.0.mlp.experts.down_proj[2]": (24, 16, 4),
}


@torch.no_grad()
def logits(model, tokens):
    return model(input_ids=tokens).logits


def bytes_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def products_of(adapters):
    with torch.no_grad():
        return {name: adapter.factors() for name, adapter in adapters.items()}


def filled(make_factors, sizes):
    return {name: make_factors(*size, seed=index) for index, (name, size) in enumerate(sizes.items())}


@pytest.mark.parametrize(("kind", "sizes"), [("mixtral", MIXED), ("mixtral", EVERY), ("gpt-oss", SWAPPED)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_comes_back_to_the_byte(make_model, make_factors, tokens, kind, sizes, dtype):
    model = make_model(kind, dtype=dtype)
    before, base = bytes_of(model), logits(model, tokens)
    adapters = inject(model, filled(make_factors, sizes))
    assert list(adapters) == list(sizes)
    adapted = logits(model, tokens)
    assert not torch.equal(adapted, base)
    with disabled(adapters):
        assert torch.equal(logits(model, tokens), base)
    with merged(adapters):
        together = logits(model, tokens)
    room = 1e-5 if dtype == torch.float32 else 0.1
    assert (together - adapted).abs().max() <= room * adapted.std()
    assert torch.equal(logits(model, tokens), adapted)
    remove(model, adapters)
    after = model.state_dict()
    assert set(after) == set(before) and all(torch.equal(after[name], value) for name, value in before.items())
    assert torch.equal(logits(model, tokens), base)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [("mixtral", BOTH), ("mixtral", MIXED), ("mixtral", ONE), ("mixtral", EVERY), ("gpt-oss", SWAPPED)],
    ids=["both parameters", "with linear maps", "one expert", "every expert", "stored (in, out)"],
)
def test_peft_gives_the_same_logits(make_model, make_factors, tokens, tmp_path, kind, sizes):
    from peft import PeftModel

    model = make_model(kind)
    base = logits(model, tokens)
    adapters = inject(model, filled(make_factors, sizes))
    expected = logits(model, tokens)
    save_adapter(tmp_path, products_of(adapters), adapters, base="a-model")
    loaded = PeftModel.from_pretrained(make_model(kind), str(tmp_path)).eval()
    assert not torch.equal(expected, base)
    found = logits(loaded, tokens)
    assert torch.equal(found, expected) if kind == "mixtral" else torch.allclose(found, expected, atol=1e-6)
    with loaded.disable_adapter():
        assert torch.equal(logits(loaded, tokens), base)


@pytest.mark.parametrize(("kind", "sizes"), [("mixtral", MIXED), ("gpt-oss", SWAPPED)])
def test_factors_come_back_to_the_bit(make_model, make_factors, tmp_path, kind, sizes):
    adapters = inject(make_model(kind), filled(make_factors, sizes))
    products = products_of(adapters)
    save_adapter(tmp_path / "one", products, adapters, base="a-model", notes={"seed": "3"})
    save_adapter(tmp_path / "two", dict(reversed(products.items())), adapters, base="a-model", notes={"seed": "3"})
    loaded = load_factors(tmp_path / "one")
    assert set(loaded) == set(products)
    for name, (left, right) in products.items():
        assert torch.equal(loaded[name][0], left) and torch.equal(loaded[name][1], right)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_without_experts_the_files_are_the_plain_ones(make_model, make_factors, tmp_path):
    from geonb.adapters import peft_files

    sizes = {name: size for name, size in MIXED.items() if not is_expert(name)}
    adapters = inject(make_model("mixtral"), filled(make_factors, sizes))
    products = products_of(adapters)
    save_adapter(tmp_path / "one", products, adapters, base="a-model")
    peft_files.save_adapter(tmp_path / "two", products, base="a-model")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_change_is_that_of_the_chosen_expert_only(make_model, make_factors):
    model = make_model("mixtral")
    adapters = inject(model, filled(make_factors, ONE))
    (adapter,) = adapters.values()
    experts = model.get_submodule("model.layers.1.mlp.experts")
    assert isinstance(experts, AdaptedExperts) and experts.num_experts == 4
    before = experts.base.gate_up_proj.clone()
    with merged(adapters):
        difference = (experts.base.gate_up_proj - before).double()
    assert torch.allclose(difference[2], weight_change(adapter), atol=1e-6)
    assert not difference[[0, 1, 3]].any()


def test_gradients_are_those_of_the_folded_weight(make_model, make_factors, tokens):
    """dL/dB = (dL/dW) A^T of the expert's slice, dL/dW from a model whose parameter itself is trained."""
    model = make_model("mixtral")
    factors = filled(make_factors, ONE)
    adapters = inject(model, factors)
    model(input_ids=tokens, labels=tokens).loss.backward()
    (adapter,) = adapters.values()
    assert {name for name, leaf in model.named_parameters() if leaf.grad is not None} == {
        "model.layers.1.mlp.experts.adapters.gate_up_proj_2.factors.B"
    }
    plain = make_model("mixtral")
    weight = plain.model.layers[1].mlp.experts.gate_up_proj
    with torch.no_grad():
        weight[2] += weight_change(adapter).float()
    weight.requires_grad_(True)
    plain(input_ids=tokens, labels=tokens).loss.backward()
    assert torch.allclose(adapter.factors.B.grad, weight.grad[2] @ adapter.factors.A.mT, atol=1e-7)


def test_other_kinds_of_factors_start_at_the_base_model(make_model, tokens):
    model = make_model("mixtral")
    base = logits(model, tokens)
    basis = torch.linalg.qr(torch.randn(16, 4, generator=torch.Generator().manual_seed(0)))[0].mT.contiguous()
    inject(model, {next(iter(ONE)): StiefelFactors(basis, 48, budget=1.0)})
    assert torch.equal(logits(model, tokens), base)


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("model.layers.0.mlp.experts.gate_up_proj[4]", (48, 16, 2), "plan again"),
        ("model.layers.9.mlp.experts.gate_up_proj[0]", (48, 16, 2), "plan again"),
        ("model.layers.0.mlp.experts.gate_proj[0]", (48, 16, 2), "plan again"),
        ("model.layers.0.self_attn.q_proj.weight[0]", (16, 16, 2), "plan again"),
        ("model.layers.0.mlp.experts.down_proj[0]", (24, 16, 2), "24 x 16 change.*16 x 24"),
        ("model.layers.7.self_attn.q_proj", (16, 16, 2), "plan again"),
    ],
)
def test_an_unfitting_name_changes_nothing(make_model, make_factors, name, size, words):
    model = make_model("mixtral")
    before = bytes_of(model)
    with pytest.raises(InputError, match=words):
        inject(model, {**filled(make_factors, MIXED), name: make_factors(*size)})
    assert set(model.state_dict()) == set(before)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("{", "what is no JSON"), ("[" * 100_000, "what is no JSON"), ('"x"', "does not fit"), ("[1]", "does not fit"),
        ('{"a": {}}', "does not fit"), ({"experts": "x"}, "does not fit"), ({"experts": 3}, "does not fit"),
        ({"experts": 0}, "does not fit"), ({"ranks": {"99": 1}}, "does not fit"), ({"ranks": {"-1": 1}}, "does not fit"),
        ({"ranks": {"x": 1}}, "does not fit"), ({"ranks": {"0": -1}}, "does not fit"), ({"ranks": {"0": 99}}, "does not fit"),
        ({"ranks": {"0": "x"}}, "does not fit"), ({"ranks": []}, "does not fit"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_a_layout_that_does_not_fit_is_refused_in_a_sentence(make_model, make_factors, tmp_path, change, told):
    adapters = inject(make_model("mixtral"), filled(make_factors, BOTH))
    save_adapter(tmp_path, products_of(adapters), adapters, base="a-model")
    path = tmp_path / "adapter_model.safetensors"
    with safe_open(path, "pt") as file:
        notes, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}
    if isinstance(change, dict):
        layout = json.loads(notes["expert_parameters"])
        change = json.dumps({key: {**entry, **change} for key, entry in layout.items()})
    save_file(tensors, path, metadata={**notes, "expert_parameters": change})
    with pytest.raises(
        InputError, match=f"says of its experts what .*{told.removeprefix('what ')}.*: save the adapter again"
    ):
        load_factors(tmp_path)
