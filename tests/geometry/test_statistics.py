"""Statistics, CKA and dimension, against scipy and known answers."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from geonb.errors import InputError
from geonb.geometry import cka, dimension, statistics
from geonb.geometry.measurement import Measurement


def rng(seed=0):
    return np.random.default_rng(seed)


def test_the_bootstrap_covers_the_mean_about_as_often_as_it_says():
    hits = 0
    for seed in range(200):
        sample = rng(seed).normal(1.0, 2.0, 60)
        low, high = statistics.bootstrap_interval(sample, rng=rng(seed), resamples=500)
        hits += low <= 1.0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_pairs_cancel_what_they_share():
    shared = rng(1).normal(0, 50, 100)
    low, high = statistics.paired_bootstrap(shared + 0.1 + rng(2).normal(0, 0.01, 100), shared, rng=rng())
    assert 0.09 < low < high < 0.11
    with pytest.raises(InputError, match="needs pairs"):
        statistics.paired_bootstrap([1.0, 2.0], [1.0], rng=rng())
    with pytest.raises(InputError, match="at least two"):
        statistics.bootstrap_interval([1.0], rng=rng())


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_exact_binomial_test(first, second):
    expected = 1.0 if first + second == 0 else scipy.stats.binomtest(first, first + second).pvalue
    assert statistics.mcnemar(first, second) == pytest.approx(expected, abs=1e-9)


@given(st.integers(1, 60), st.data())
def test_intervals_of_a_proportion_agree_with_scipy(n, data):
    successes = data.draw(st.integers(0, n))
    test = scipy.stats.binomtest(successes, n)
    exact, score = test.proportion_ci(method="exact"), test.proportion_ci(method="wilson")
    assert statistics.clopper_pearson(successes, n) == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert statistics.wilson(successes, n) == pytest.approx((score.low, score.high), abs=1e-9)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50))
def test_welford_is_numpy(values):
    stream = statistics.Welford()
    for value in values:
        stream.add(value)
    assert stream.mean == pytest.approx(np.mean(values), abs=1e-6)
    assert stream.variance == pytest.approx(np.var(values, ddof=1), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("history", "verdict"),
    [
        ([1.0] * 20, "stable"),
        ([1.0, 1.1] * 5 + [5.0, 5.1] * 5, "rising"),
        (list(np.linspace(3, 1, 20)), "falling"),
        ([1.0, 2.0], "unmeasured"),
    ],
)
def test_windows_tell_a_trend_from_noise(history, verdict):
    assert statistics.windowed_stability(history, 10 if len(history) > 2 else 2) == verdict


@given(st.integers(0, 10**6), st.floats(0.01, 100))
def test_cka_is_symmetric_and_ignores_scale_and_rotation(seed, scale):
    x, y = rng(seed).standard_normal((12, 5)), rng(seed + 1).standard_normal((12, 7))
    rotation = np.linalg.qr(rng(seed + 2).standard_normal((5, 5)))[0]
    value = cka.debiased_linear_cka(x, y)
    assert cka.debiased_linear_cka(y, x) == pytest.approx(value, abs=1e-9)
    assert cka.debiased_linear_cka(scale * x @ rotation + 3.0, y) == pytest.approx(value, abs=1e-7)
    assert cka.debiased_linear_cka(x, x) == pytest.approx(1.0)


def test_independent_data_score_about_zero_where_the_biased_form_scores_one():
    scores = [
        cka.debiased_linear_cka(rng(seed).standard_normal((8, 256)), rng(seed + 999).standard_normal((8, 256)))
        for seed in range(200)
    ]
    assert abs(np.mean(scores)) < 0.05
    with pytest.raises(InputError, match="4 or more rows"):
        cka.debiased_linear_cka(np.eye(3), np.eye(3))


def test_procrustes_finds_a_rotation():
    x = rng(0).standard_normal((20, 4))
    rotation = np.linalg.qr(rng(1).standard_normal((4, 4)))[0]
    found, residual = cka.procrustes(x, x @ rotation)
    np.testing.assert_allclose(found, rotation, atol=1e-9)
    assert residual < 1e-9


@pytest.mark.parametrize("true", [1, 2, 5])
def test_dimension_estimators_find_a_plane_in_a_large_space(true):
    cloud = rng(true).standard_normal((800, true)) @ rng(9).standard_normal((true, 20))
    assert dimension.two_nn(cloud) == pytest.approx(true, rel=0.15)
    assert dimension.mle_dimension(cloud) == pytest.approx(true, rel=0.2)


def test_persistence_counts_clusters():
    cloud = np.concatenate([rng(0).normal(0, 0.01, (10, 2)), rng(1).normal(50, 0.01, (10, 2))])
    deaths = dimension.h0_persistence(cloud)
    assert len(deaths) == 19 and (deaths > 1).sum() == 1
    assert dimension.h0_persistence(np.zeros((4, 2))).tolist() == [0, 0, 0]
    with pytest.raises(InputError, match="at least four points"):
        dimension.two_nn(np.zeros((2, 2)))


def test_a_measurement_shows_its_uncertainty():
    found = Measurement(value=0.5, interval=(0.4, 0.6), n=30, null=0.0, unit="nats", operator="paired bootstrap")
    assert repr(found) == "0.5 nats [0.4, 0.6] (n = 30, null 0)"
    assert Measurement.from_json(found.to_json()) == found
