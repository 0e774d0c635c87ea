"""Interference: the law on a matrix small enough to do by hand, and what must break it."""

import numpy as np
import pytest

from geonb.claims.experiments.interference import ARMS, best_arranged, one_step, random_kernels
from geonb.coordinates.phases import welch_bound
from geonb.errors import InputError

SIZES = {"inputs": 12, "outputs": 9, "pairs": 5, "rank": 3}


@pytest.mark.parametrize("seed", range(8))
def test_a_plain_step_on_the_cores_is_felt_elsewhere_by_exactly_k(seed):
    step = one_step("cores", **SIZES, seed=seed)
    assert step.felt == pytest.approx(step.k, abs=1e-11)
    assert step.off_law < 1e-11 and step.off_formula < 1e-11


def test_the_law_by_hand_for_one_pair_and_rank_one():
    # W(t) = w + u (g1 cos t + g2 sin t) v: a step at t' changes g by -eta G u v (cos t', sin t')
    u, v, gradient, rate, here, there = 0.7, -1.3, 2.1, 0.05, 0.4, 1.9
    step = -rate * gradient * u * v * np.array([np.cos(there), np.sin(there)])
    change = u * v * (step[0] * np.cos(here) + step[1] * np.sin(here))
    assert change == pytest.approx(-rate * 1 * np.cos(here - there) * u**2 * v**2 * gradient)


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm != "cores"])
def test_anything_else_that_learns_leaves_the_law(arm):
    assert np.median([one_step(arm, **SIZES, seed=seed).off_law for seed in range(5)]) > 0.01


def test_the_k_of_another_pair_does_not_fit():
    assert np.median([one_step("cores", **SIZES, seed=seed, mixed_k=True).off_law for seed in range(5)]) > 0.01


def test_random_kernels_are_the_mean_cosines_that_the_theory_of_random_features_says():
    found = random_kernels(60, pairs=256, coordinates=512, scale=1.0, seed=0)
    assert found.shape == (60 * 59 // 2,) and found.mean() == pytest.approx(np.exp(-1), abs=0.03)
    wide = random_kernels(60, pairs=256, coordinates=512, scale=4.0, seed=0)
    assert abs(wide.mean()) < 0.02 and wide.std() == pytest.approx((2 * 256) ** -0.5, rel=0.1)


def test_a_search_finds_room_where_there_is_some_and_never_beats_the_bound():
    assert best_arranged(4, pairs=8, seed=0, steps=300) < 0.02
    assert best_arranged(24, pairs=8, seed=0, steps=300) >= welch_bound(8, 24) > 0.1


def test_an_unknown_arm_is_refused():
    with pytest.raises(InputError, match="allowed are cores, adamw, sides, base"):
        one_step("momentum", **SIZES, seed=0)
