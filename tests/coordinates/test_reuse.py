"""Reuse is off, or within its tolerance at every token: checked on whole weight matrices, not on what the policy says."""

import pytest
import torch

from geonb.coordinates.cache import KeyValueCache
from geonb.coordinates.quantise import quantise_phases, restore_phases
from geonb.coordinates.reader import Reader
from geonb.coordinates.reuse import Reuse, remembered_cores
from geonb.errors import InputError
from tests.coordinates.test_lipschitz import differences, sized
from tests.coordinates.test_model import TEXT, alive

# the mean of the embeddings settles, so that the coordinate moves less and less
TOKENS = [*TEXT[0, :6].tolist(), *[5] * 60]


def phases_of(model, tokens):
    with torch.no_grad():
        theta = model.predict(model.embedding(torch.tensor([tokens])), "token")
        return [layer.directions.phases(theta) for layer in model.uses]


@pytest.mark.parametrize(("size", "tolerance"), [(0.01, 0.05), (0.01, 0.3), (0.2, 0.3), (0.2, 1.0)])
def test_every_weight_that_is_used_is_within_the_tolerance_of_its_own(size, tolerance):
    model = sized(size)
    policy = Reuse.of(model, tolerance)
    own = phases_of(model, TOKENS)
    worst = 0.0
    for place in range(len(TOKENS)):
        here = [one[:, place : place + 1] for one in own]
        worst = max(worst, float(differences(model, here, policy.phases(here)).max()))
    assert worst <= policy.largest + 1e-6 <= tolerance + 2e-6
    assert policy.asked == 2 * len(TOKENS) and policy.share == policy.reused / policy.asked
    assert policy.reused > 0  # else the test shows nothing


def test_a_reader_without_reuse_is_exact_and_with_it_stays_near():
    model = sized(0.01)
    whole = model(torch.tensor([TOKENS])).logits[0].detach()

    def read(reader):
        return torch.stack([reader.read([token]) for token in TOKENS])

    torch.testing.assert_close(read(Reader(model)), whole, rtol=1e-5, atol=1e-6)
    policy = Reuse.of(model, 0.2)
    near = read(Reader(model, reuse=policy))
    assert policy.share > 0.05 and 0 < float((near - whole).norm() / whole.norm()) < 0.05
    theta = torch.randn(64, generator=torch.Generator().manual_seed(4))
    plain = read(Reader(model, theta))
    with remembered_cores(model):
        torch.testing.assert_close(read(Reader(model, theta)), plain, rtol=1e-5, atol=1e-6)


def test_remembered_cores_are_forgotten_when_weights_change_and_leave_no_trace():
    model = alive()
    linear = model.uses[0].changes["q"]
    first, second = torch.randn(2, 1, 1, 16).unbind()
    fresh = [linear.bounded_core(one).detach() for one in (first, second)]
    with remembered_cores(model), torch.no_grad():
        for one, expected in ((first, fresh[0]), (first, fresh[0]), (second, fresh[1]), (first, fresh[0])):
            assert torch.equal(linear.bounded_core(one), expected)
        assert linear.bounded_core(first) is linear.bounded_core(first.clone())
    assert "bounded_core" not in vars(linear)


def test_a_cache_goes_on_under_a_near_style_only_where_a_policy_says_so():
    model = sized(0.01)
    theta = torch.randn(2, 1, 64, generator=torch.Generator().manual_seed(5))
    near = theta + 0.01 * torch.randn(theta.shape, generator=torch.Generator().manual_seed(6))
    far = torch.randn(theta.shape, generator=torch.Generator().manual_seed(8))

    def read(policy, then):
        cache = KeyValueCache(mode="sequence", policy=policy)
        with torch.no_grad():
            model(TEXT[:, :12], theta=theta, mode="sequence", cache=cache)
            return model(TEXT[:, 12:], theta=then, mode="sequence", cache=cache).logits

    with pytest.raises(InputError, match="in mode sequence nothing of it is valid"):
        read(None, near)
    policy = Reuse.of(model, 0.2)
    found = read(policy, near)
    with torch.no_grad():
        anew = model(TEXT, theta=near, mode="sequence").logits[:, 12:]
    off = float((found - anew).norm() / anew.norm())
    assert 0 < off < 0.01
    phases = [[layer.directions.phases(one[:, 0]).detach() for layer in model.uses] for one in (theta, near)]
    assert float(differences(model, *phases).max()) <= policy.largest <= 0.2
    with pytest.raises(InputError, match=r"weights may differ by .* of the budget, allowed is 0.2"):
        read(Reuse.of(model, 0.2), far)


def test_a_move_below_the_eight_bits_of_the_fingerprint_is_refused_too():
    model, cache = alive(), KeyValueCache(mode="sequence")
    phases = [torch.zeros(2, 1, 8) for _ in model.uses]
    moved = [one.clone() for one in phases]
    moved[1][0, 0, 3] = 0.005
    with torch.no_grad():
        model(TEXT, phases=phases, mode="sequence", cache=cache)
        with pytest.raises(InputError, match="1 of 32 phases moved"):
            model(TEXT[:, :1], phases=moved, mode="sequence", cache=cache)
        turned = [one + 2 * torch.pi for one in phases]
        model(TEXT[:, :1], phases=turned, mode="sequence", cache=cache)


def test_under_eight_bit_phases_the_fingerprint_is_the_coordinate():
    model, theta = alive(), torch.randn(64, generator=torch.Generator().manual_seed(2))
    reader = Reader(model, theta, phases="int8")
    reader.read(TOKENS[:20])
    codes = reader.cache.fingerprint
    assert codes is not None and codes.dtype == torch.uint8 and codes.numel() == 2 * 8
    restored = [restore_phases(one)[:, None] for one in codes.unbind(1)]
    for one, layer in zip(restored, model.uses, strict=True):
        exact = layer.directions.phases(theta)
        assert torch.equal(quantise_phases(exact), quantise_phases(one[0, 0]))
    with torch.no_grad():
        found = model(torch.tensor([[7]]), phases=restored, mode="sequence", cache=reader.cache).logits[0, -1]
        whole = model(torch.tensor([[*TOKENS[:20], 7]]), phases=restored, mode="sequence").logits[0, -1]
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tolerance", [0.0, -0.1, 1.5, float("nan")])
def test_a_tolerance_is_a_share_of_the_budget(tolerance):
    with pytest.raises(InputError, match="allowed is a share of the budget above 0"):
        Reuse.of(alive(), tolerance)
