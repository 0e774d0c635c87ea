"""Pythagorean triples, their twins, the probe between them, and the shapes they span."""

import itertools

import numpy as np
import pytest
from scipy.spatial import procrustes

from geonb.claims.experiments.number_triples import (
    accuracy_of,
    family,
    line_vectors,
    near,
    order_of,
    probe_hits,
    pythagorean,
    shape_similarities,
    twins,
    unmatched,
)
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.runtime import TorchRuntime


def test_every_triple_up_to_a_hundred_is_found():
    wanted = {(a, b, c) for a, b, c in itertools.combinations(range(1, 101), 3) if a * a + b * b == c * c}
    assert set(pythagorean(100)) == wanted and len(wanted) == 52


def test_twins_share_a_and_b_and_are_no_triples_and_go_up_about_as_often_as_down():
    triples = pythagorean(100)
    found = twins(triples)
    assert all(one[:2] == twin[:2] and twin[2] > twin[1] for one, twin in zip(triples, found, strict=True))
    assert not set(found) & set(triples)
    up = sum(twin[2] > one[2] for one, twin in zip(triples, found, strict=True))
    assert 26 <= up <= 32


def test_multiples_are_one_family():
    assert {family(one) for one in ((3, 4, 5), (6, 8, 10), (60, 80, 100))} == {(3, 4, 5)}


def test_a_near_triple_has_its_members_near_and_in_order():
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b, c = near((20, 21, 29), limit=100, rng=rng)
        assert a < b < c and a * a + b * b != c * c
        assert all(abs(one - other) <= 0.2 * other + 0.5 for one, other in zip((a, b, c), (20, 21, 29), strict=True))
    with pytest.raises(InputError, match="no triple lies within"):
        near((3, 4, 5), limit=100, rng=rng, share=0.01)


def test_unmatched_triples_are_ordered_and_none():
    assert all(a < b < c and a * a + b * b != c * c for a, b, c in unmatched(40, 100))


def test_the_similarity_is_one_less_the_disparity_of_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((9, 6)), rng.standard_normal((9, 6))
    rows = np.array([[0, 3, 5], [1, 2, 8]])
    assert shape_similarities(x, y, rows) == pytest.approx([1 - procrustes(x[one], y[one])[2] for one in rows])


def test_a_turned_and_scaled_copy_in_more_dimensions_has_the_same_shape():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((9, 4))
    turn = np.linalg.qr(rng.standard_normal((7, 4)))[0]
    assert shape_similarities(x, 3 * x @ turn.T + 5, np.array([[0, 1, 2]])) == pytest.approx([1])


def test_the_probe_finds_a_direction_and_not_noise_and_a_group_is_never_split():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120)
    groups = np.repeat(np.arange(30), 4)
    noise = rng.standard_normal((120, 10))
    signal = noise.copy()
    signal[:, 0] += 6 * labels
    assert probe_hits(signal, labels, groups, seed=0).mean() > 0.9
    assert 0.3 < probe_hits(noise, labels, groups, seed=0).mean() < 0.7
    # what tells a group from another must not help: every group has one label here
    own = np.repeat(rng.integers(0, 2, 30), 4)
    known = np.eye(30)[groups] * 9
    assert probe_hits(known, own, groups, seed=0).mean() < 0.75


def test_the_interval_of_an_accuracy_is_over_groups():
    hits = np.array([[True] * 10 + [False] * 10])
    found = accuracy_of(hits, [0] * 10 + [1] * 10, operator="")
    assert found.value == 0.5 and found.interval == (0.0, 1.0) and found.n == 2


def test_points_on_a_line_of_logarithms_are_in_order_and_noise_is_not():
    numbers = list(range(1, 41))
    assert order_of(np.log(np.array(numbers, dtype=float))[:, None], numbers).value == pytest.approx(1)
    low, high = order_of(np.random.default_rng(0).standard_normal((40, 20)), numbers).interval
    assert low < 0.2 and high < 0.5


def test_a_number_s_vector_is_the_mean_over_its_own_tokens_of_the_line():
    runtime = TorchRuntime.load(Checkpoint.open("embedded"), device="cpu")
    found = line_vectors(runtime.model, runtime.tokenizer, [(3, 14, 15)])
    width = runtime.model.config.hidden_size
    assert found.shape == (5, 1, 3 * width)
    rows = runtime.model.model.embed_tokens.weight
    first = runtime.tokenizer("3", add_special_tokens=False)["input_ids"]
    assert np.allclose(found[0, 0, :width], rows[first].mean(0).numpy(), atol=1e-6)
