"""Leaving out groups gives the textbook error of a mean, and leaving out halves covers what resampling with ties misses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import sem, t

from geonb.errors import InputError
from geonb.geometry.intrinsic_dimension import nearest_neighbours, two_nn_of
from geonb.geometry.jackknife import half_sample_interval, half_samples, jackknife_groups, jackknife_interval


@given(st.integers(2, 60), st.integers(2, 30), st.integers(0, 99))
def test_groups_are_a_partition_of_nearly_equal_parts(n, groups, seed):
    parts = jackknife_groups(n, groups=groups, seed=seed)
    assert sorted(np.concatenate(parts)) == list(range(n)) and len(parts) == min(groups, n)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_mean_with_one_row_a_group_has_its_textbook_interval():
    values = np.random.default_rng(0).standard_normal(25)
    left_out = [np.delete(values, part).mean() for part in jackknife_groups(25, groups=25)]
    low, high = jackknife_interval(values.mean(), left_out)
    assert (high - low) / 2 == pytest.approx(t.ppf(0.975, 24) * sem(values), rel=1e-9)


@given(st.integers(4, 60), st.integers(1, 20))
def test_halves_come_in_pairs_that_make_a_whole(n, pairs):
    found = half_samples(n, count=2 * pairs, seed=3)
    assert len(found) == 2 * pairs
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert sorted([*first, *second]) == list(range(n)) and 0 <= len(first) - len(second) <= 1


def test_the_halves_of_a_mean_have_its_error():
    values = np.random.default_rng(0).standard_normal(400)
    left_out = [np.delete(values, part).mean() for part in half_samples(400, count=400)]
    low, high = half_sample_interval(values.mean(), left_out)
    assert (high - low) / 2 == pytest.approx(1.97 * sem(values), rel=0.1)


def test_halves_cover_the_expected_two_nn_of_clouds():
    found = []
    for seed in range(60):
        table = nearest_neighbours(np.random.default_rng(seed).random((100, 4)), 30)
        value = two_nn_of(table)
        left_out = [two_nn_of(table.without(half)) for half in half_samples(100, seed=seed)]
        found.append((value, *half_sample_interval(value, left_out)))
    values, lows, highs = np.array(found).T
    covered = ((lows <= values.mean()) & (values.mean() <= highs)).mean()
    assert covered >= 0.9 and (highs - lows).mean() / 2 < 2 * 1.96 * values.std()


def test_a_missing_value_leaves_no_interval():
    assert (
        np.isnan(jackknife_interval(1.0, [1.0, np.nan])).all()
        and np.isnan(jackknife_interval(np.nan, [1.0, 2.0])).all()
    )
    assert np.isnan(half_sample_interval(1.0, [1.0, 2.0, 3.0])).all()


def test_too_few_rows_are_refused():
    with pytest.raises(InputError, match="20 groups of 1 rows"):
        jackknife_groups(1)
    with pytest.raises(InputError, match="40 halves of 3 rows"):
        half_samples(3)
