"""Entropy by temperature, divergence, and nonsense of a modifier's length."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax
from scipy.stats import entropy as plain_entropy

from geonb.claims.experiments.reply_entropy import (
    MODIFIERS,
    NEUTRAL,
    REFUSAL_PRONE,
    asked,
    divergence,
    entropy,
    entropy_slope,
    nonsense,
    reply,
)
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.runtime import TorchRuntime

LOGITS = st.lists(st.floats(-30, 30), min_size=2, max_size=20)


@pytest.fixture(scope="module")
def runtime():
    return TorchRuntime.load(Checkpoint.open("embedded"), device="cpu")


@given(LOGITS, st.floats(0.1, 2))
@settings(deadline=None)
def test_entropy_is_that_of_scipy(logits, temperature):
    p = softmax(np.array(logits) / temperature)
    assert entropy(np.array(logits), temperature) == pytest.approx(plain_entropy(p), abs=1e-9)


@given(LOGITS, st.floats(0.1, 1.5), st.floats(0.01, 1))
@settings(deadline=None)
def test_entropy_never_falls_with_temperature(logits, temperature, step):
    z = np.array(logits)
    assert entropy(z, temperature + step) >= entropy(z, temperature) - 1e-9


def test_the_slope_is_that_of_finite_differences():
    z = np.random.default_rng(0).standard_normal((5, 50)) * 3
    numeric = (entropy(z, 0.7 + 1e-5) - entropy(z, 0.7 - 1e-5)) / 2e-5
    assert entropy_slope(z, 0.7) == pytest.approx(numeric, rel=1e-6)


def test_divergence_is_that_of_scipy_and_not_symmetric():
    first, second = np.random.default_rng(0).standard_normal((2, 4, 9)) * 2
    wanted = rel_entr(softmax(first, axis=-1), softmax(second, axis=-1)).sum(-1)
    assert divergence(first, second) == pytest.approx(wanted)
    assert not np.allclose(divergence(first, second), divergence(second, first))


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(InputError, match="temperature 0 was given"):
        entropy(np.zeros(3), 0)


def test_there_are_twenty_prompts_of_each_kind_and_none_twice():
    assert len(NEUTRAL) == len(REFUSAL_PRONE) == 20 and len({*NEUTRAL, *REFUSAL_PRONE}) == 40


def test_nonsense_has_the_length_of_its_modifier_and_none_of_its_words(runtime):
    for text in MODIFIERS.values():
        found = nonsense(runtime.tokenizer, text, seed=3)
        lengths = [len(runtime.tokenizer(one, add_special_tokens=False)["input_ids"]) for one in (found, text)]
        assert lengths[0] == lengths[1]
        assert not set(found.split()) & set(text.lower().split())


def test_a_reply_s_entropy_is_that_of_the_logits_it_was_chosen_from(runtime):
    ids = asked(runtime.tokenizer, NEUTRAL[0])
    found, lengths = reply(runtime, [ids], tokens=3, temperatures=[0.7])
    current, wanted = list(ids), []
    for _ in range(lengths[0]):
        last = runtime.logits(current)[-1].double().numpy()
        wanted.append(entropy(last, 0.7))
        current.append(int(last.argmax()))
    assert found[0, :, 0] == pytest.approx([np.mean(wanted), wanted[0]], abs=1e-4)
