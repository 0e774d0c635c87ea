"""Vectors of words from the shipped texts, from a model, and from counts, and matched draws of other words."""

import numpy as np
import pytest
import torch

from geonb.claims.experiments.words import (
    PRIMES,
    count_vectors,
    depth_vectors,
    matched_draws,
    random_twin,
    shipped_texts,
    states_of,
    word_counts,
)
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.runtime import TorchRuntime


@pytest.fixture(scope="module")
def runtime():
    return TorchRuntime.load(Checkpoint.open("embedded"), device="cpu")


def test_the_chart_has_sixty_five_primes_and_none_twice():
    assert len(PRIMES) == len(set(PRIMES)) == 65


def test_words_are_counted_without_case_and_digits_are_words():
    assert word_counts(["In the Beginning, the 12."]) == {"in": 1, "the": 2, "beginning": 1, "12": 1}


def test_the_states_are_those_that_transformers_gives_up_to_the_final_norm(runtime):
    ids = [[5, 9, 40, 41], [7, 8, 90, 3]]
    with torch.no_grad():
        wanted = runtime.model(input_ids=torch.tensor(ids), output_hidden_states=True).hidden_states
    found = states_of(runtime.model, ids)
    # transformers puts the norm on its last state
    assert torch.allclose(found[:-1], torch.stack(wanted[:-1]), atol=1e-5)
    assert torch.allclose(runtime.model.model.norm(found[-1]), wanted[-1], atol=1e-5)


def test_texts_of_several_lengths_get_the_vector_they_have_alone(runtime):
    texts = [" good", " the beginning of all things", " x"]
    together = depth_vectors(runtime.model, runtime.tokenizer, texts).vectors
    for place, text in enumerate(texts):
        alone = depth_vectors(runtime.model, runtime.tokenizer, [text]).vectors[:, 0]
        assert np.allclose(together[:, place], alone, atol=1e-5)


def test_without_the_first_position_the_mean_is_over_the_others(runtime):
    ids = runtime.tokenizer(" the beginning", add_special_tokens=False)["input_ids"]
    states = states_of(runtime.model, [ids])[:, 0].numpy()
    found = depth_vectors(runtime.model, runtime.tokenizer, [" the beginning"], pool="without first").vectors[:, 0]
    assert np.allclose(found, states[:, 1:].mean(1), atol=1e-5)


def test_a_word_of_one_token_has_nothing_without_its_first(runtime):
    with pytest.raises(InputError, match="fewer than 2 tokens"):
        depth_vectors(runtime.model, runtime.tokenizer, ["1"], pool="without first")


def test_another_pool_is_refused(runtime):
    with pytest.raises(InputError, match="'max' was given; allowed are mean, last, without first"):
        depth_vectors(runtime.model, runtime.tokenizer, ["1"], pool="max")


def test_words_in_the_same_places_get_the_same_direction():
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(400):
        first, second = (
            (("red", "blue"), ("paint", "colour")) if rng.integers(2) else (("dog", "cat"), ("barks", "runs"))
        )
        texts.append(f"{rng.choice(first)} {rng.choice(second)}")
    vectors = count_vectors(texts, ["red", "blue", "dog", "cat"], size=3)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert unit[0] @ unit[1] > 0.9 and unit[2] @ unit[3] > 0.9 and unit[0] @ unit[2] < 0.5


def test_a_word_that_no_text_holds_has_no_vector():
    with pytest.raises(InputError, match="'nowhere' do not occur"):
        count_vectors(["a b c d"], ["nowhere"])


def test_two_twins_of_one_seed_are_equal_and_of_two_are_not(runtime):
    first, again, other = (random_twin(runtime.model, seed).model.layers[0].mlp.up_proj.weight for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_matched_words_are_others_of_like_frequency_and_length_and_none_comes_twice():
    counts = word_counts(shipped_texts())
    pool = [word for word, count in counts.items() if count >= 10 and word.isalpha()]
    tokens = {word: len(word) // 3 for word in pool}
    words = ["good", "small", "think"]
    drawn = matched_draws(words, pool, counts, tokens, draws=50)
    for row in drawn:
        assert len(set(row)) == 3
        for word, other in zip(words, row, strict=True):
            assert pool[other] not in words
            assert abs(tokens[pool[other]] - tokens[word]) <= 1
            assert 0.4 < counts[pool[other]] / counts[word] < 2.5


def test_too_small_a_pool_is_refused():
    counts = word_counts(["a b c"])
    with pytest.raises(InputError, match="too few matches"):
        matched_draws(["a"], ["a", "b", "c"], counts, {"a": 1, "b": 1, "c": 1}, draws=1)
