"""One class for a LoRA, a mixture of LoRAs and coordinates: exact against the sum written out, and inside its budget."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from geonb.coordinates.modulated_linear import ModulatedLinear, constant_weights, soft_weights
from geonb.coordinates.phases import weights_of

INPUTS, OUTPUTS, PAIRS, RANK = 20, 14, 6, 3


def modulated(seed=0, *, pairs=PAIRS, size=0.3, budget=1e6, factors="shared", weights=None):
    generator = torch.Generator().manual_seed(seed)
    base = nn.Linear(INPUTS, OUTPUTS, bias=False).double()
    linear = ModulatedLinear(
        base, weights or 2 * pairs, RANK, budget=budget, factors=factors, generator=generator
    ).double()  # fmt: skip
    with torch.no_grad():
        base.weight.copy_(torch.randn(OUTPUTS, INPUTS, generator=generator))
        for one in linear.factors.parameters():
            one.copy_(torch.randn(one.shape, generator=generator) * size)
    return linear


def published(linear, phases):
    """W + sum_i cos(a_i) U_i V_i^T + sin(a_i) P_i Q_i^T, term by term."""
    weight = linear.base.weight.detach().numpy().copy()
    f = linear.factors
    pairs = len(phases)
    for i, a in enumerate(phases):
        for j, w in ((i, np.cos(a)), (pairs + i, np.sin(a))):
            if hasattr(f, "cores"):
                term = f.left.detach().numpy() @ f.cores[j].detach().numpy() @ f.right.detach().numpy().T
            else:
                columns = slice(j * RANK, (j + 1) * RANK)
                term = f.left[:, columns].detach().numpy() @ f.right[:, columns].detach().numpy().T
            weight += w * term
    return weight


@pytest.mark.parametrize("factors", ["shared", "independent"])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_fast_form_is_the_published_sum(factors, seed):
    linear = modulated(seed, factors=factors)
    rng = np.random.default_rng(seed)
    phases = rng.uniform(-7, 7, size=(2, 5, PAIRS))
    x = rng.normal(size=(2, 5, INPUTS))
    found = linear(torch.tensor(x), weights_of(torch.tensor(phases))).detach().numpy()
    for b in range(2):
        for t in range(5):
            expected = published(linear, phases[b, t]) @ x[b, t]
            np.testing.assert_allclose(found[b, t], expected, atol=1e-12 * max(1, np.abs(expected).max()))


def test_one_slot_for_all_tokens_is_the_same_slot_at_each_and_an_index_picks_slots():
    linear, rng = modulated(1), np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(2, 6, INPUTS)))
    weights = weights_of(torch.tensor(rng.uniform(0, 6, size=(2, 3, PAIRS))))
    slots = torch.tensor([[0, 0, 1, 1, 2, 2], [2, 1, 0, 0, 1, 2]])
    per_token = torch.stack([weights[b, slots[b]] for b in range(2)])
    torch.testing.assert_close(linear(x, weights, slots), linear(x, per_token), rtol=0, atol=1e-13)
    one = weights[:, :1]
    torch.testing.assert_close(linear(x, one), linear(x, one.expand(2, 6, -1)), rtol=0, atol=1e-13)


def test_a_new_layer_changes_nothing():
    linear = ModulatedLinear(
        nn.Linear(8, 8, bias=False), 4, 2, budget=0.3, generator=torch.Generator().manual_seed(0)
    )  # fmt: skip
    x = torch.randn(1, 3, 8)
    assert torch.equal(linear(x, torch.ones(1, 1, 4)), linear.base(x))


def test_with_one_core_it_is_a_lora_and_with_soft_weights_a_mixture_of_loras():
    x = torch.randn(1, 4, INPUTS, dtype=torch.float64)
    lora = modulated(2, weights=1)
    b, a = lora.factors.left @ lora.factors.cores[0], lora.factors.right.T
    torch.testing.assert_close(lora(x, constant_weights(1).double()), x @ (lora.base.weight + b @ a).T)
    mixture = modulated(3, weights=4)
    scores = torch.randn(1, 1, 4, dtype=torch.float64)
    changes = torch.stack([mixture.factors.left @ g @ mixture.factors.right.T for g in mixture.factors.cores])
    mean = torch.einsum("j,jab->ab", scores[0, 0].softmax(0), changes)
    torch.testing.assert_close(mixture(x, soft_weights(scores)), x @ (mixture.base.weight + mean).T)


@pytest.mark.parametrize("factors", ["shared", "independent"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), size=st.sampled_from([0.01, 0.3, 5.0]), budget=st.sampled_from([0.05, 0.3]))
def test_no_coordinate_whatever_leaves_the_budget(factors, seed, size, budget):
    linear = modulated(seed, size=size, budget=budget, factors=factors)
    phases = torch.tensor(np.random.default_rng(seed).uniform(0, 7, size=(8, PAIRS)))
    allowed = budget * np.linalg.norm(linear.base.weight.detach().numpy(), 2)
    for change in linear.dense_change(weights_of(phases)).detach().numpy():
        assert np.linalg.norm(change, 2) <= allowed * (1 + 1e-9)


def test_within_the_budget_nothing_is_scaled_and_at_it_the_norm_is_the_budget():
    small, large = modulated(4, size=0.01, budget=0.3), modulated(4, size=5.0, budget=0.3)
    weights = weights_of(torch.rand(5, PAIRS, dtype=torch.float64) * 6)
    assert torch.equal(small.bounded_core(weights), small.factors.core(weights))
    norms = np.linalg.norm(large.dense_change(weights).detach().numpy(), 2, axis=(1, 2))
    np.testing.assert_allclose(norms, 0.3 * np.linalg.norm(large.base.weight.detach().numpy(), 2), rtol=1e-5)


@pytest.mark.parametrize("factors", ["shared", "independent"])
def test_an_adversary_who_turns_every_phase_does_not_pass_the_certified_bound(factors):
    linear = modulated(5, factors=factors)
    bound = linear.certified_bound()
    phases = torch.zeros(PAIRS, dtype=torch.float64)
    reached = 0.0
    cores = linear.factors.dense(torch.eye(2 * PAIRS, dtype=torch.float64)).detach().numpy()
    for _ in range(50):  # alternate the phases and the top singular pair; each half-step raises the norm
        change = linear.factors.dense(weights_of(phases)).detach().numpy()
        u, s, vt = np.linalg.svd(change)
        reached = max(reached, s[0])
        along = np.einsum("a,jab,b->j", u[:, 0], cores, vt[0])
        phases = torch.tensor(np.arctan2(along[PAIRS:], along[:PAIRS]))
    typical = np.linalg.norm(
        linear.factors.dense(weights_of(torch.zeros(PAIRS, dtype=torch.float64))).detach().numpy(), 2
    )
    assert typical < reached <= bound


def test_what_is_known_of_the_weights_is_forgotten_when_they_change():
    linear = modulated(6)
    before = linear.certified_bound()
    with torch.no_grad():
        linear.factors.parameters().__next__().mul_(2)
    assert linear.certified_bound() == pytest.approx(2 * before, rel=1e-5)


def test_the_values_of_the_base_are_its_singular_values_and_the_budget_a_share_of_the_first():
    linear = modulated(7, budget=0.3)
    values = np.linalg.svd(linear.base.weight.detach().numpy(), compute_uv=False)
    np.testing.assert_allclose(linear.base_values(), values, rtol=1e-9)
    assert linear.allowed() == pytest.approx(0.3 * values[0], rel=1e-12)
