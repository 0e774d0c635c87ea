"""The dense training pass gives the thin form's result and gradients, and is taken only where it is cheaper and exact."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from geonb.adapters.bounded import BoundedAdapter
from geonb.adapters.dense import dense_linear, is_cheaper
from geonb.adapters.factors import OneSidedFactors, TwoSidedFactors

sizes = st.integers(1, 9)


@given(n=sizes, m=sizes, r=sizes, tokens=sizes, biased=st.booleans(), seed=st.integers(0, 2**31))
def test_result_and_gradients_are_those_of_the_two_thin_products(n, m, r, tokens, biased, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    hidden, left, right = (part.requires_grad_() for part in (draw(2, tokens, n), draw(m, r), draw(r, n)))
    weight, bias, into = draw(m, n), draw(m) if biased else None, draw(2, tokens, m)
    thin = nn.functional.linear(hidden, weight, bias) + hidden @ right.mT @ left.mT
    dense = dense_linear(hidden, weight, bias, left, right)
    torch.testing.assert_close(dense, thin)
    expected = torch.autograd.grad(thin, (hidden, left, right), into)
    torch.testing.assert_close(torch.autograd.grad(dense, (hidden, left, right), into), expected)


@given(n=st.integers(1, 4096), m=st.integers(1, 4096), r=st.integers(1, 4096), tokens=st.integers(1, 65536))
def test_the_form_with_fewer_operations_is_chosen(n, m, r, tokens):
    thin = sum((tokens * r * n, tokens * r * m)) + sum((tokens * m * r, tokens * m * r, tokens * r * n))
    dense = sum((r * m * n, r * m * n)) + sum((tokens * m * n, m * n * r))
    assert is_cheaper(tokens, m, n, r) == (dense < thin)


def adapter(base, rank=20, sides="one"):
    kind = OneSidedFactors if sides == "one" else TwoSidedFactors
    features = base.weight.shape[0] if isinstance(base, Conv1D) else base.weight.shape[1]
    out = base.weight.shape[1] if isinstance(base, Conv1D) else base.weight.shape[0]
    basis = torch.linalg.qr(torch.randn(features, rank)).Q.mT
    factors = kind(basis, out, budget=2.0)
    with torch.no_grad():
        factors.B.copy_(torch.randn_like(factors.B) / 10)
    return BoundedAdapter(base.requires_grad_(False), factors)


@pytest.fixture
def calls(monkeypatch):
    """How often the dense form was taken."""
    seen = []

    def counted(*arguments):
        seen.append(arguments)
        return dense_linear(*arguments)

    monkeypatch.setattr("geonb.adapters.bounded.dense_linear", counted)
    return seen


@pytest.mark.parametrize("sides", ["one", "two"])
@pytest.mark.parametrize("base", [nn.Linear(24, 30), nn.Linear(24, 30, bias=False), Conv1D(30, 24)], ids=repr)
def test_a_training_pass_at_a_large_rank_is_dense_and_inference_is_thin(base, sides, calls):
    torch.manual_seed(0)
    module, hidden = adapter(base, sides=sides), torch.randn(4, 50, 24, requires_grad=True)
    trained = module(hidden)
    assert len(calls) == 1
    with torch.no_grad():
        still = module(hidden)
        left, right = module.factors()
        thin = base(hidden) + nn.functional.linear(nn.functional.linear(hidden, right), left)
    assert len(calls) == 1 and torch.equal(still, thin)
    torch.testing.assert_close(trained, still)
    trained.sum().backward()
    assert base.weight.grad is None and all(leaf.grad is not None for leaf in module.factors.trained().values())


@pytest.mark.parametrize("reason", ["small rank", "few tokens", "bfloat16", "another class", "watched", "disabled"])
def test_whatever_the_dense_form_does_not_fit_goes_the_thin_way(reason, calls):
    torch.manual_seed(0)

    class Special(nn.Linear):
        pass

    base = (Special if reason == "another class" else nn.Linear)(24, 30)
    if reason == "bfloat16":
        base.to(torch.bfloat16)
    seen = []
    if reason == "watched":
        base.register_forward_hook(lambda module, args, out: seen.append(1))
    module = adapter(base, rank=2 if reason == "small rank" else 20)
    module.enabled = reason != "disabled"
    hidden = torch.randn(1, 2 if reason == "few tokens" else 200, 24).to(base.weight.dtype)
    module(hidden.requires_grad_()).float().sum().backward()
    assert not calls and len(seen) == (reason == "watched")
