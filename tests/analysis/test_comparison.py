"""In-sample alignment finds a match in anything; only held-out rows tell what is shared."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes

from geonb.analysis import compare
from geonb.analysis.comparison import linear_cka
from geonb.errors import InputError


def made(seed, n=40, d=12, e=9, noise=None):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * rng.uniform(0.2, 2, d)
    y = (
        rng.standard_normal((n, e))
        if noise is None
        else x @ rng.standard_normal((d, e)) + noise * rng.standard_normal((n, e))
    )
    return x, y


@given(st.integers(0, 1000), st.integers(1, 30), st.integers(1, 30))
def test_cka_is_that_of_the_centred_gram_matrices_and_symmetric(seed, d, e):
    x, y = made(seed, 15, d, e)
    centre = np.eye(15) - 1 / 15
    k, el = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    expected = (k * el).sum() / np.linalg.norm(k) / np.linalg.norm(el)
    assert linear_cka(x, y) == pytest.approx(expected, rel=1e-9) == linear_cka(y, x)
    assert -1e-12 <= linear_cka(x, y) <= 1 + 1e-12


@given(st.integers(0, 1000), st.floats(1e-2, 1e2))
def test_a_rotated_scaled_moved_copy_is_the_same_representation(seed, scale):
    x, _ = made(seed)
    copy = scale * x @ np.linalg.qr(np.random.default_rng(1).standard_normal((12, 12)))[0] + 3
    found = compare(x, copy, draws=1, groups=4)
    for name in ("cka", "debiased_cka", "held_out_cka"):
        assert found[name].value == pytest.approx(1, abs=1e-6), name
    assert found["held_out_r2"].value > 0.999 and found["held_out_procrustes"].value == pytest.approx(0, abs=1e-6)


def test_independent_data_looks_alike_by_alignment_and_by_bias_but_not_debiased_or_held_out():
    found = compare(*made(0, n=30, d=60, e=50), draws=5)
    assert found["aligned_cka"].value == pytest.approx(1) == found["aligned_cka"].null
    assert found["cka"].value > 0.4 and found["cka"].null > 0.4
    low, high = found["debiased_cka"].interval
    assert low < 0 < high and abs(found["debiased_cka"].value) < 0.15
    assert found["held_out_r2"].value < 0.1 and found["held_out_aligned_cka"].value < 0.6


def test_debiased_cka_of_independent_data_is_zero_on_average_and_the_biased_is_not():
    values = [compare(*made(seed, 20, 30, 30), draws=1, groups=4) for seed in range(30)]
    debiased = np.array([one["debiased_cka"].value for one in values])
    assert (
        abs(debiased.mean()) < 3 * debiased.std() / np.sqrt(30) and np.mean([one["cka"].value for one in values]) > 0.5
    )


def test_what_is_shared_is_found_on_held_out_rows():
    found = compare(*made(1, n=200, noise=0.5), draws=5)
    assert found["held_out_r2"].value > 0.8 and found["held_out_r2"].null < 0.05
    assert found["held_out_r2"].interval[0] > 0.7 and found.p_value("held_out_r2") == pytest.approx(1 / 6)
    assert found["held_out_aligned_cka"].value > 0.9 and found["held_out_procrustes"].null > 0.8


def test_held_out_figures_are_those_of_scikit_learn_and_scipy():
    linear = pytest.importorskip("sklearn.linear_model")
    x, y = made(2, n=40, d=12, e=12, noise=0.3)
    found = compare(x, y, folds=4, draws=1)
    r2, residuals = [], []
    for held in np.array_split(np.random.default_rng(0).permutation(40), 4):
        train = np.setdiff1d(np.arange(40), held)
        centre, goal = x[train].mean(0), y[train].mean(0)
        penalties = np.linalg.norm(x[train] - centre, 2) ** 2 * 10.0 ** np.arange(-8, 3)
        predicted = linear.RidgeCV(alphas=penalties).fit(x[train], y[train]).predict(x[held])
        r2.append(1 - ((predicted - y[held]) ** 2).sum() / ((y[held] - goal) ** 2).sum())
        rotation, total = orthogonal_procrustes(x[train] - centre, y[train] - goal)
        scale = total / np.linalg.norm(x[train] - centre) ** 2
        rest = scale * (x[held] - centre) @ rotation - (y[held] - goal)
        residuals.append(np.linalg.norm(rest) / np.linalg.norm(y[held] - goal))
    assert found["held_out_r2"].value == pytest.approx(np.mean(r2), rel=1e-6)
    assert found["held_out_procrustes"].value == pytest.approx(np.mean(residuals), rel=1e-6)


@pytest.mark.parametrize(("d", "e"), [(8, 50), (50, 8), (60, 60)])
def test_a_rotation_between_unequal_widths_and_with_few_rows_still_finds_what_is_shared(d, e):
    rng = np.random.default_rng(0)
    core = rng.standard_normal((30, 4))
    x, y = (core @ np.linalg.qr(rng.standard_normal((width, 4)))[0].T for width in (d, e))
    assert compare(x, y, draws=2)["held_out_procrustes"].value == pytest.approx(0, abs=1e-8)


def test_order_of_the_rows_changes_nothing_that_is_fitted_on_all_of_them():
    x, y = made(3)
    order = np.random.default_rng(0).permutation(40)
    first, second = compare(x, y, draws=1), compare(x[order], y[order], draws=1)
    for name in ("cka", "debiased_cka", "aligned_cka", "aligned_r2"):
        assert second[name].value == pytest.approx(first[name].value, rel=1e-9), name


@pytest.mark.parametrize(
    ("x", "y", "options", "sentence"),
    [
        (np.eye(10), np.eye(11), {}, "X has 10 rows and Y 11"),
        (np.eye(7), np.eye(7), {}, "X has the shape"),
        (np.eye(10), np.eye(10), {"folds": 5}, "5 folds were asked of 10 rows; allowed are 2 to 2"),
        (np.ones((20, 2)), np.eye(20), {}, "X does not vary"),
        (np.eye(20), np.eye(20), {"draws": 0}, "0 draws"),
    ],
)
def test_what_cannot_be_compared_is_refused(x, y, options, sentence):
    with pytest.raises(InputError, match=sentence):
        compare(x, y, **options)
