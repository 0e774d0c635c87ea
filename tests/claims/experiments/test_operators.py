"""The operators against what they must not see, and Mantel's test against tables whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group, spearmanr

from geonb.claims.experiments.operators import OPERATORS, fall_with_depth, likeness_table, linear_cka
from geonb.geometry import procrustes


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(OPERATORS)))
def test_every_operator_is_blind_to_rotation_scale_and_shift(seed, name):
    rng = np.random.default_rng(seed)
    cloud = rng.standard_normal((20, 6))
    moved = 3.0 * cloud @ ortho_group.rvs(6, random_state=seed) + 5.0
    assert OPERATORS[name](cloud, moved) == pytest.approx(1.0, abs=1e-6)


def test_linear_cka_is_the_ratio_of_frobenius_norms():
    rng = np.random.default_rng(0)
    x, y = (one - one.mean(0) for one in (rng.standard_normal((30, 5)), rng.standard_normal((30, 7))))
    expected = np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert linear_cka(x, y) == pytest.approx(expected)


def test_the_procrustes_likeness_is_that_of_the_rotation_that_is_found():
    rng = np.random.default_rng(0)
    x, y = (one - one.mean(0) for one in rng.standard_normal((2, 12, 20)))
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    rotation, residual = procrustes(x, y)
    assert OPERATORS["Procrustes"](x + 3, 2 * y) == pytest.approx(1 - residual)
    assert np.linalg.norm(x @ rotation - y) == pytest.approx(residual)


def test_a_table_has_each_pair_twice_and_ones_on_its_diagonal():
    states = list(np.random.default_rng(0).standard_normal((4, 15, 3)))
    table = likeness_table(states, OPERATORS["linear CKA"])
    assert np.allclose(table, table.T) and np.allclose(np.diag(table), 1)
    assert table[1, 3] == pytest.approx(linear_cka(states[1], states[3]))


def test_the_value_is_spearmans_over_all_pairs():
    table = np.random.default_rng(0).random((9, 9))
    table = table + table.T
    rows, columns = np.triu_indices(9, 1)
    assert fall_with_depth(table, draws=50).value == pytest.approx(
        spearmanr(columns - rows, table[rows, columns]).statistic
    )


def test_a_fall_is_found_and_a_rise_or_noise_is_not():
    apart = np.abs(np.subtract.outer(np.arange(9.0), np.arange(9.0)))
    assert fall_with_depth(-apart).p < 0.001
    assert fall_with_depth(apart).p > 0.99
    rng = np.random.default_rng(1)
    ps = []
    for _ in range(40):
        table = rng.random((9, 9))
        ps.append(fall_with_depth(table + table.T, draws=300).p)
    assert 0.3 < np.mean(ps) < 0.7
