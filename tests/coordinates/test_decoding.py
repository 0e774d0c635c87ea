"""Decoding switches where it says, goes on from its cache as if it read everything anew, and repeats with its seed."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geonb.coordinates.decoding import generate, nucleus
from geonb.coordinates.uncertainty import innovations
from geonb.errors import InputError
from tests.coordinates.test_model import alive

PROMPT = [5, 9, 200, 31]


@given(st.integers(0, 300), st.floats(0.05, 1.0))
def test_a_nucleus_is_the_smallest_set_that_holds_the_mass(seed, mass):
    p = np.random.default_rng(seed).dirichlet(np.full(12, 0.5))
    found = nucleus(torch.tensor(p), mass).numpy()
    kept = found > 0
    assert found.sum() == pytest.approx(1) and p[kept].sum() >= mass - 1e-5
    if kept.sum() > 1:  # without its least likely member it would not hold it
        assert p[kept].sum() - p[kept].min() < mass
    np.testing.assert_allclose(found[kept], p[kept] / p[kept].sum())


def anew(model, tokens, theta=None):
    with torch.no_grad():
        if theta is None:
            return model(torch.tensor([tokens]))
        return model(torch.tensor([tokens]), theta=theta.reshape(1, 1, -1), mode="sequence")


@pytest.mark.parametrize("theta", [None, torch.randn(64, generator=torch.Generator().manual_seed(1))])
def test_the_likeliest_tokens_are_those_of_reading_everything_anew(theta):
    model, tokens = alive(), list(PROMPT)
    for one in generate(model, PROMPT, max_tokens=12, switch="never", theta=theta):
        reading = anew(model, tokens, theta)
        p = reading.logits[0, -1].double().softmax(-1)
        assert one.token == int(p.argmax()) and not one.sampled
        assert one.entropy == pytest.approx(float(-(p * p.log()).sum()), rel=1e-4)
        if theta is None:
            assert one.uncertainty == pytest.approx(float(innovations(reading.theta)[0, -1]), abs=1e-5)
        else:
            assert one.uncertainty == 0
        tokens.append(one.token)
    assert len(tokens) == 16


def test_it_samples_exactly_where_the_switch_is_above_its_threshold():
    model = alive()
    found = list(generate(model, PROMPT, max_tokens=40, threshold=0.3, seed=3))
    assert all(one.sampled == (one.uncertainty > 0.3) for one in found)
    by_entropy = list(generate(model, PROMPT, max_tokens=10, switch="entropy", threshold=1.0))
    assert all(one.sampled == (one.entropy > 1.0) for one in by_entropy)
    assert all(one.sampled for one in generate(model, PROMPT, max_tokens=5, switch="always"))


def test_a_seed_repeats_and_another_does_not():
    model = alive()
    run = lambda seed: [one.token for one in generate(model, PROMPT, max_tokens=20, switch="always", seed=seed)]  # noqa: E731
    assert run(1) == run(1) != run(2)


def test_it_ends_at_a_stop_token_and_at_the_end_of_the_context():
    model = alive()
    first = next(generate(model, PROMPT, switch="never")).token
    assert [one.token for one in generate(model, PROMPT, switch="never", stop=frozenset({first}))] == [first]
    small = alive(context=6)
    assert len(list(generate(small, PROMPT, max_tokens=50))) == 3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"prompt": []}, "an empty prompt"),
        ({"switch": "luck"}, "allowed are uncertainty, entropy"),
        ({"max_tokens": 0}, "at least 1"),
        ({"mass": 1.5}, "a mass in"),
        ({"theta": torch.zeros(3)}, "a theta of shape"),
    ],
)
def test_misuse_is_told_before_a_token_is_made(options, told):
    options = {"prompt": PROMPT, **options}
    with pytest.raises(InputError, match=told):
        next(generate(alive(), options.pop("prompt"), **options))
