"""Intervals, correlations and rankings against scipy and against what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from geonb.errors import InputError
from geonb.geometry.inference import auc, correlation, over_seeds, permutation_p


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12))
def test_the_interval_over_seeds_is_students(values):
    found = over_seeds(values, unit="nats", operator="loss")
    if np.std(values) > 1e-9:
        expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert found.interval == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert found.n == len(values) and found.value == pytest.approx(np.mean(values), abs=1e-9)


def test_one_run_alone_bounds_nothing():
    assert over_seeds([2.0], unit="", operator="loss").interval == (-np.inf, np.inf)


@pytest.mark.parametrize(("method", "oracle"), [("pearson", stats.pearsonr), ("spearman", stats.spearmanr)])
def test_a_correlation_is_scipys_and_its_interval_holds_it(method, oracle):
    rng = np.random.default_rng(3)
    x = rng.normal(size=60)
    y = 0.6 * x + rng.normal(size=60)
    found = correlation(x, y, method=method, resamples=400)
    assert found.value == pytest.approx(oracle(x, y)[0], abs=1e-12)
    assert found.interval[0] < found.value < found.interval[1]
    # 95 % of |r| under independence is about 1.96 / sqrt(n)
    assert found.null == pytest.approx(1.96 / np.sqrt(60), rel=0.2)


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    hits = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=80)
        low, high = correlation(x, 0.5 * x + rng.normal(size=80) * np.sqrt(0.75), resamples=200, seed=seed).interval
        hits += low < 0.5 < high
    assert 50 <= hits <= 60


def test_members_of_one_group_are_one_piece_of_evidence():
    rng = np.random.default_rng(0)
    centre = rng.normal(size=10)
    groups = np.repeat(np.arange(10), 12)
    x = centre[groups] + 0.05 * rng.normal(size=120)
    y = centre[groups] + rng.normal(size=10)[groups]
    alone, grouped = correlation(x, y, resamples=300), correlation(x, y, groups=groups, resamples=300)
    assert alone.value == grouped.value
    assert np.ptp(grouped.interval) > 2 * np.ptp(alone.interval)


def test_a_side_that_does_not_vary_has_no_correlation():
    found = correlation([1, 2, 3, 4], [5, 5, 5, 5], resamples=10)
    assert np.isnan(found.value) and found.interval is None and found.null is None


@given(st.integers(0, 50))
def test_an_area_is_the_mann_whitney_share(seed):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, 6, size=30).astype(float), rng.random(30) < 0.5
    labels[:2] = True, False
    u = stats.mannwhitneyu(scores[labels], scores[~labels]).statistic
    assert auc(scores, labels, resamples=5).value == pytest.approx(u / (labels.sum() * (~labels).sum()))


def test_a_permutation_never_gives_a_p_of_zero():
    assert permutation_p(10.0, [1.0] * 99) == 0.01 and permutation_p(0.0, [1.0] * 99) == 1.0


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: over_seeds([], unit="", operator=""), "values has 0 values"),
        (lambda: over_seeds([np.nan], unit="", operator=""), "1 of them not finite"),
        (lambda: correlation([1, 2, 3], [1, 2, 3]), "at least 4"),
        (lambda: correlation([1, 2, 3, 4], [1, 2, 3, 4], method="kendall"), "pearson and spearman"),
        (lambda: correlation([1, 2, 3, 4], [1, 2, 3, 4], groups=["q"]), "one a pair"),
        (lambda: auc([1, 2], [True, True]), "both classes"),
    ],
)
def test_what_cannot_be_inferred_from_is_told(call, told):
    with pytest.raises(InputError, match=told):
        call()
