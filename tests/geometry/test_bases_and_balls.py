"""Bases, low-rank norms, the spectral ball and the Stiefel manifold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.errors import InputError
from geonb.geometry import ball, bases, low_rank, stiefel

seeds = st.integers(0, 2**31)


def gaussian(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape)


@given(seeds, st.integers(1, 9), st.integers(1, 9), st.data())
def test_the_tail_holds_the_least_used_directions(seed, rows, columns, data):
    rank = data.draw(st.integers(1, columns))
    weight = gaussian(seed, (rows, columns))
    basis = bases.tail_basis(weight, rank, seed=seed)
    np.testing.assert_allclose(basis @ basis.T, np.eye(rank), atol=1e-9)
    # W restricted to the tail has exactly the smallest singular values, the null space counting as zeros
    padded = np.concatenate([np.linalg.svd(weight, compute_uv=False), np.zeros(max(0, columns - rows))])
    found = np.linalg.svd(weight @ basis.T, compute_uv=False)
    expected = np.sort(padded)[:rank][::-1][: len(found)]
    np.testing.assert_allclose(found, expected, atol=1e-7)


@given(seeds, st.integers(1, 8))
def test_top_and_tail_are_complements(seed, rank):
    weight = gaussian(seed, (9, 9))
    top, tail = bases.top_basis(weight, rank), bases.tail_basis(weight, 9 - rank, seed=0)
    np.testing.assert_allclose(top @ tail.T, 0, atol=1e-7)


def test_random_full_and_completed_bases_are_orthonormal():
    for basis in (
        bases.random_basis(8, 3, seed=1),
        bases.full_basis(8),
        bases.completed_basis(bases.random_basis(8, 2, seed=1), 5, seed=2),
    ):
        np.testing.assert_allclose(basis @ basis.T, np.eye(len(basis)), atol=1e-12)
    assert (bases.random_basis(8, 3, seed=1) == bases.random_basis(8, 3, seed=1)).all()


def test_impossible_bases_are_refused():
    with pytest.raises(InputError, match="allowed are 1 to 3"):
        bases.tail_basis(np.eye(3), 4, seed=0)
    with pytest.raises(InputError, match="has 2 directions"):
        bases.top_basis(gaussian(0, (2, 5)), 3)
    with pytest.raises(InputError, match="allowed are 1 to 4"):
        bases.random_basis(4, 0, seed=0)


@given(seeds, st.integers(1, 4))
def test_the_core_has_the_products_spectrum(seed, rank):
    left, right = gaussian(seed, (7, rank)), gaussian(seed + 1, (rank, 6))
    exact = np.linalg.svd(left @ right, compute_uv=False)
    found = low_rank.product_singular_values(left, right)
    np.testing.assert_allclose(found, exact[:rank], atol=1e-10)
    assert low_rank.product_norm(left, np.zeros_like(right)) == 0.0


@given(seeds, st.floats(0, 1), st.floats(0.1, 10))
def test_a_frank_wolfe_step_stays_in_the_ball(seed, gamma, radius):
    point = gaussian(seed, (6, 4))
    point *= radius / np.linalg.norm(point, 2) * 0.999
    gradient = gaussian(seed + 1, (6, 4))
    after = ball.ball_step(point, ball.polar(gradient), gamma, radius)
    assert np.linalg.norm(after, 2) <= radius * (1 + 1e-9)
    assert ball.duality_gap(gradient, point, radius) >= 0


def test_the_polar_factor_is_the_linear_minimiser():
    gradient, trials = gaussian(0, (5, 3)), [gaussian(seed, (5, 3)) for seed in range(1, 200)]
    best = -(gradient * ball.polar(gradient)).sum()
    assert best == pytest.approx(-np.linalg.svd(gradient, compute_uv=False).sum())
    assert all(best <= (gradient * trial / np.linalg.norm(trial, 2)).sum() for trial in trials)
    assert not ball.polar(np.zeros((2, 3))).any()


@given(seeds, st.floats(1e-3, 10), st.integers(1, 5))
def test_wen_yin_curves_stay_orthonormal_and_the_low_rank_form_is_the_dense_one(seed, t, columns):
    point = np.linalg.qr(gaussian(seed, (12, columns)))[0]
    gradient = gaussian(seed + 1, (12, columns))
    after = stiefel.wen_yin_step(point, gradient, t)
    np.testing.assert_allclose(after.T @ after, np.eye(columns), atol=1e-8)
    np.testing.assert_allclose(after, stiefel.wen_yin_step_dense(point, gradient, t), atol=1e-8)
    skew = stiefel.skew_direction(point, gradient)
    assert stiefel.skew_norms(point, gradient) == pytest.approx(
        (np.linalg.norm(skew), np.linalg.norm(skew, 2)), rel=1e-9
    )


def test_the_slope_at_the_start_is_minus_half_the_squared_norm():
    point, gradient = np.linalg.qr(gaussian(0, (10, 3)))[0], gaussian(1, (10, 3))
    h = 1e-6
    change = (stiefel.wen_yin_step(point, gradient, h) - stiefel.wen_yin_step(point, gradient, -h)) / (2 * h)
    assert (gradient * change).sum() == pytest.approx(-0.5 * stiefel.skew_norms(point, gradient)[0] ** 2, rel=1e-6)


@given(seeds, st.integers(1, 4))
def test_the_cayley_chart_is_orthonormal_and_bounds_every_singular_value(seed, rank):
    frame = stiefel.cayley_chart(gaussian(seed, (rank, rank)), gaussian(seed + 1, (9 - rank, rank)))
    np.testing.assert_allclose(frame.T @ frame, np.eye(rank), atol=1e-9)
    sizes = np.abs(gaussian(seed + 2, rank))
    change = 2 * frame[5:] * sizes @ frame[:5].T
    found = np.linalg.svd(change, compute_uv=False)[:rank]
    assert (found <= np.sort(sizes)[::-1][: len(found)] * (1 + 1e-9) + 1e-12).all()
