"""Timing in turns: a call that takes twice as long is found to, and the models differ in their heads alone."""

import time

import pytest
import torch

from geonb.claims.experiments.head_speed import attention, decoding, paired_ratio, ratio_of, reading, with_heads
from geonb.coordinates.configuration import preset


def test_a_call_that_sleeps_twice_as_long_has_the_ratio_two():
    found = paired_ratio(lambda: time.sleep(0.04), lambda: time.sleep(0.02), pairs=3)
    assert found > 1.2


def test_both_are_called_as_often_and_in_turns():
    order = []
    paired_ratio(lambda: order.append("slow"), lambda: order.append("fast"), pairs=4)
    assert order == ["slow", "fast", "fast", "slow", "slow", "fast", "fast", "slow", "slow", "fast"]


def test_more_key_value_heads_change_keys_and_values_alone():
    few, many = preset("tiny"), with_heads(preset("tiny"), 4)
    assert few.shapes["q"] == many.shapes["q"] and few.shapes["gate"] == many.shapes["gate"]
    assert many.shapes["k"][1] == 2 * few.shapes["k"][1]


def test_decoding_grows_its_cache_by_one_token_a_call():
    call, cache = decoding(preset("tiny"), cached=10, seed=0)
    assert call().shape == (1, 1, 512) and cache.tokens == 11
    _, larger = decoding(with_heads(preset("tiny"), 4), cached=10, seed=0)
    assert larger.values_per_token() == 2 * cache.values_per_token() == 2 * 2 * 2 * 16 * 2


def test_reading_and_attention_give_what_they_should():
    assert reading(preset("tiny"), tokens=7, seed=0)().shape == (1, 7, 512)
    assert attention(2, query_heads=4, head_width=8, cached=9, seed=0)().shape == (1, 4, 1, 8)


def test_the_ratio_is_the_geometric_mean_with_an_interval_around_it():
    found = ratio_of([1.0, 2.0, 4.0], "a test")
    assert found.value == pytest.approx(2.0) and found.interval[0] * found.interval[1] == pytest.approx(4.0)
    assert found.n == 3 and torch.isfinite(torch.tensor(found.interval)).all()
