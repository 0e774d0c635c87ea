"""Adapters go into a model and come out of it without a trace."""

import pytest
import torch

from geonb.adapters.bounded import BoundedAdapter, disabled, inject, merged, remove, weight_change
from geonb.errors import InputError

LLAMA = {"model.layers.0.self_attn.q_proj": (16, 16, 5), "model.layers.1.mlp.down_proj": (16, 24, 3)}
GPT2 = {"transformer.h.0.attn.c_attn": (48, 16, 4), "transformer.h.1.mlp.c_proj": (16, 64, 2)}
CASES = [("llama", LLAMA, torch.float32), ("llama", LLAMA, torch.bfloat16), ("gpt2", GPT2, torch.float32)]


def bytes_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_bytes(model, before):
    after = model.state_dict()
    return set(after) == set(before) and all(torch.equal(after[name], value) for name, value in before.items())


@torch.no_grad()
def logits(model, tokens):
    return model(input_ids=tokens).logits


@pytest.mark.parametrize(("kind", "sizes", "dtype"), CASES)
def test_a_model_comes_back_to_the_byte(make_model, make_factors, tokens, kind, sizes, dtype):
    model = make_model(kind, dtype=dtype)
    before, base = bytes_of(model), logits(model, tokens)
    modules = {path: model.get_submodule(path) for path in sizes}
    adapters = inject(model, {path: make_factors(*size) for path, size in sizes.items()})
    adapted = logits(model, tokens)
    assert not torch.equal(adapted, base)
    with disabled(adapters):
        assert torch.equal(logits(model, tokens), base)
    assert torch.equal(logits(model, tokens), adapted)
    with merged(adapters):
        together = logits(model, tokens)
    room = 1e-5 if dtype == torch.float32 else 0.05
    assert (together - adapted).abs().max() <= room * adapted.std()
    assert not torch.equal(together, base)
    remove(model, adapters)
    assert same_bytes(model, before) and torch.equal(logits(model, tokens), base)
    assert all(model.get_submodule(path) is module for path, module in modules.items())


def test_an_error_inside_gives_everything_back(make_model, make_factors, tokens):
    model = make_model("llama")
    base = logits(model, tokens)
    adapters = inject(model, {path: make_factors(*size) for path, size in LLAMA.items()})
    before, adapted = bytes_of(model), logits(model, tokens)
    for context in (merged, disabled):
        with pytest.raises(KeyboardInterrupt), context(adapters):
            raise KeyboardInterrupt
        assert same_bytes(model, before) and torch.equal(logits(model, tokens), adapted)
    remove(model, adapters)
    assert torch.equal(logits(model, tokens), base)


def test_disabled_keeps_what_was_disabled_before(make_model, make_factors):
    adapters = inject(make_model("llama"), {path: make_factors(*size) for path, size in LLAMA.items()})
    first = next(iter(adapters.values()))
    first.enabled = False
    with disabled(adapters):
        pass
    assert [adapter.enabled for adapter in adapters.values()] == [False, True]


def test_an_unknown_path_changes_nothing(make_model, make_factors, tokens):
    model = make_model("llama")
    before = bytes_of(model)
    factors = {path: make_factors(*size) for path, size in LLAMA.items()}
    with pytest.raises(InputError, match=r"model\.layers\.7\.self_attn.*plan again"):
        inject(model, {**factors, "model.layers.7.self_attn.q_proj": make_factors(16, 16, 2)})
    assert same_bytes(model, before)


def test_the_change_is_b_times_a(make_factors):
    factors = make_factors(6, 8, 3)
    base = torch.nn.Linear(8, 6)
    adapter = BoundedAdapter(base, factors)
    assert torch.equal(weight_change(adapter), factors.B.detach().double() @ factors.A.double())
    hidden = torch.randn(4, 8)
    expected = base(hidden).double() + hidden.double() @ weight_change(adapter).mT
    assert torch.allclose(adapter(hidden).double(), expected, atol=1e-6)


def test_an_adapter_answers_for_its_base(make_factors):
    base = torch.nn.Linear(8, 6)
    adapter = BoundedAdapter(base, make_factors(6, 8, 3))
    assert adapter.weight is base.weight and adapter.bias is base.bias
    assert (adapter.in_features, adapter.out_features) == (8, 6)
    with pytest.raises(AttributeError):
        _ = adapter.absent


def test_gradients_reach_only_the_factors(make_model, make_factors, tokens):
    model = make_model("llama", dtype=torch.bfloat16)
    adapters = inject(model, {path: make_factors(*size) for path, size in LLAMA.items()})
    model(input_ids=tokens, labels=tokens).loss.backward()
    with_gradient = {name for name, leaf in model.named_parameters() if leaf.grad is not None}
    assert with_gradient == {f"{path}.factors.B" for path in adapters}
    assert all(adapter.factors.B.grad.dtype == torch.float32 for adapter in adapters.values())
