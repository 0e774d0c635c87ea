"""Decoding switches where it says, goes on from its cache as if it read everything anew, and repeats with its seed."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geonb.coordinates.decoding import generate, nucleus
from geonb.coordinates.reader import Reader, angle
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
    for one in generate(model, PROMPT, max_tokens=12, decoding="greedy", theta=theta):
        reading = anew(model, tokens, theta)
        p = reading.logits[0, -1].double().softmax(-1)
        assert one.token == int(p.argmax()) and not one.sampled
        assert one.entropy == pytest.approx(float(-(p * p.log()).sum()), rel=1e-4)
        # under a style too it is the coordinate of the text itself that is followed
        followed = anew(model, tokens).theta
        assert one.uncertainty == pytest.approx(float(innovations(followed)[0, -1]), abs=1e-5)
        cosine = torch.nn.functional.cosine_similarity(*followed[0, -2:].double(), dim=0)
        assert one.angle == pytest.approx(math.acos(min(1.0, float(cosine))), abs=1e-5)
        tokens.append(one.token)
    assert len(tokens) == 16


def test_it_samples_exactly_where_the_switch_is_above_its_threshold():
    model = alive()
    found = list(generate(model, PROMPT, max_tokens=40, threshold=0.3, seed=3))
    assert all(one.sampled == (one.uncertainty > 0.3) for one in found)
    by_entropy = list(generate(model, PROMPT, max_tokens=10, decoding="entropy", threshold=1.0))
    assert all(one.sampled == (one.entropy > 1.0) for one in by_entropy)
    assert all(one.sampled for one in generate(model, PROMPT, max_tokens=5, decoding="nucleus"))


def test_a_seed_repeats_and_another_does_not():
    model = alive()
    run = lambda seed: [one.token for one in generate(model, PROMPT, max_tokens=20, decoding="nucleus", seed=seed)]  # noqa: E731
    assert run(1) == run(1) != run(2)


def test_it_ends_at_a_stop_token_and_at_the_end_of_the_context():
    model = alive()
    first = next(generate(model, PROMPT, decoding="greedy")).token
    assert [one.token for one in generate(model, PROMPT, decoding="greedy", stop=frozenset({first}))] == [first]
    small = alive(context=6)
    assert len(list(generate(small, PROMPT, max_tokens=50))) == 3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"prompt": []}, "an empty prompt"),
        ({"decoding": "luck"}, "allowed are coordinates, entropy"),
        ({"max_tokens": 0}, "at least 1"),
        ({"mass": 1.5}, "a mass in"),
        ({"theta": torch.zeros(3)}, "a theta of shape"),
        ({"prompt": [600]}, "each from 0 to 511"),
        ({"prompt": [1] * 300}, "the context of tiny is 256"),
    ],
)
def test_misuse_is_told_before_a_token_is_made(options, told):
    options = {"prompt": PROMPT, **options}
    with pytest.raises(InputError, match=told):
        next(generate(alive(), options.pop("prompt"), **options))


def test_a_reader_is_one_model_with_one_theta():
    reader = Reader(alive())
    with pytest.raises(InputError, match="the reader has its own"):
        generate(alive(), PROMPT, reader=reader)
    with pytest.raises(InputError, match="the reader has its own"):
        generate(reader.model, PROMPT, reader=reader, theta=torch.zeros(64))
    with pytest.raises(InputError, match="allowed are float32 and int8"):
        Reader(alive(), phases="int4")


def test_a_reader_that_goes_on_says_what_one_prompt_would_have():
    model = alive()
    reader = Reader(model)
    first = [one.token for one in generate(model, PROMPT, max_tokens=5, decoding="greedy", reader=reader)]
    again = generate(model, [first[-1], 7, 9], max_tokens=6, decoding="greedy", reader=reader)
    at_once = generate(model, [*PROMPT, *first, 7, 9], max_tokens=6, decoding="greedy")
    for one, other in zip(again, at_once, strict=True):
        assert one.token == other.token and one.uncertainty == pytest.approx(other.uncertainty, abs=1e-5)


@given(st.integers(0, 400), st.floats(1e-7, 3.1))
def test_the_angle_between_two_coordinates_is_exact_near_zero_too(seed, turned):
    a, b = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 2)))[0].T
    found = angle(torch.tensor(3 * a), torch.tensor(5 * (math.cos(turned) * a + math.sin(turned) * b)))
    assert found == pytest.approx(turned, rel=1e-6, abs=1e-12)
