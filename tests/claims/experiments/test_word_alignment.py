"""Maps between vectors of the same words: perfect where fitted, and as good as they are elsewhere."""

import numpy as np
import pytest

from geonb.claims.experiments.word_alignment import (
    cosine_cka,
    fit_map,
    fit_ridge,
    held_out,
    linear_cka,
    monte_carlo_p,
    r_squared,
)
from geonb.errors import InputError

RNG = np.random.default_rng(0)


def test_the_pseudo_inverse_map_is_that_of_least_squares():
    x, y = RNG.standard_normal((40, 6)), RNG.standard_normal((40, 3))
    wanted = np.linalg.lstsq(np.hstack([x, np.ones((40, 1))]), y, rcond=None)[0]
    assert np.allclose(fit_map(x, y)(x), np.hstack([x, np.ones((40, 1))]) @ wanted)


def test_the_ridge_map_solves_its_normal_equations():
    x, y = RNG.standard_normal((30, 5)), RNG.standard_normal((30, 2))
    centred, target = x - x.mean(0), y - y.mean(0)
    strength = 0.1 * np.linalg.norm(centred, 2) ** 2
    wanted = np.linalg.solve(centred.T @ centred + strength * np.eye(5), centred.T @ target)
    assert np.allclose(fit_map(x, y, strength=0.1).matrix, wanted)


def test_fewer_words_than_dimensions_fit_noise_perfectly_and_say_nothing_of_others():
    x, y = RNG.standard_normal((200, 64)), RNG.standard_normal((200, 64))
    found = held_out(x, y, train=15, test=100, seed=0)
    assert found.in_sample > 1 - 1e-9
    assert abs(found.aligned) < 0.1


def test_a_linear_relation_is_found_and_holds_elsewhere():
    x = RNG.standard_normal((200, 8))
    found = held_out(x, x @ RNG.standard_normal((8, 5)), train=60, test=100, seed=0)
    assert found.aligned > 1 - 1e-9 and found.r2 > 1 - 1e-9


def test_ridge_does_better_than_the_pseudo_inverse_where_noise_is_fitted():
    x = RNG.standard_normal((70, 50))
    y = x[:, :3] @ RNG.standard_normal((3, 4)) + 2 * RNG.standard_normal((70, 4))
    test = RNG.standard_normal((200, 50))
    ridge, plain = fit_ridge(x, y), fit_map(x, y)
    spread = [np.linalg.norm(fit(test) - fit(test).mean(0)) for fit in (ridge, plain)]
    assert ridge.strength > 0 and spread[0] < spread[1]


def test_a_map_that_knows_the_mean_alone_has_no_r_squared():
    x, y = RNG.standard_normal((30, 4)), RNG.standard_normal((30, 2))
    fit = fit_map(x, y)
    assert r_squared(np.broadcast_to(fit.y_mean, y.shape), y, fit) == pytest.approx(0)


def test_plain_cka_is_that_of_centred_grams():
    x, y = RNG.standard_normal((20, 4)) + 3, RNG.standard_normal((20, 7))
    h = np.eye(20) - 1 / 20
    k, el = h @ x @ x.T @ h, h @ y @ y.T @ h
    wanted = np.trace(k @ el) / np.sqrt(np.trace(k @ k) * np.trace(el @ el))
    assert linear_cka(x, y) == pytest.approx(wanted)


def test_cosines_of_independent_vectors_with_a_common_direction_look_alike():
    assert cosine_cka(RNG.standard_normal((40, 60)) + 2, RNG.standard_normal((40, 60)) + 2) > 0.9


def test_p_counts_the_draws_that_reach_the_figure():
    found = monte_carlo_p(3.0, [1.0, 2.0, 3.0, 4.0], operator="")
    assert found.value == pytest.approx(3 / 5)
    low, high = found.interval
    assert low < 0.5 < high


def test_more_rows_than_there_are_is_refused():
    with pytest.raises(InputError, match="10 and 30 rows were asked of 35"):
        held_out(np.zeros((35, 2)), np.zeros((35, 2)), train=10, test=30, seed=0)
