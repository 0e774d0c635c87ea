"""Ranks of a cloud are those of its covariance, and a neighbour graph bends only where its cloud does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.errors import InputError
from geonb.geometry.point_cloud import gaussian_twin, geodesic_distortion, participation_ratio, row_angles, shannon_rank

CLOUDS = st.tuples(st.integers(0, 10_000), st.integers(5, 40), st.integers(1, 12))


def cloud(made):
    seed, rows, width = made
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, width)) * rng.uniform(0.1, 3, width)


@given(CLOUDS)
def test_ranks_are_those_of_the_covariance_and_stay_in_bounds(made):
    points = cloud(made)
    eigenvalues = np.linalg.eigvalsh(np.atleast_2d(np.cov(points.T)))
    shares = eigenvalues[eigenvalues > 1e-12] / eigenvalues.sum()
    assert participation_ratio(points) == pytest.approx(1 / (shares**2).sum(), rel=1e-6)
    assert shannon_rank(points) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-6)
    assert 1 - 1e-9 <= participation_ratio(points) <= shannon_rank(points) * (1 + 1e-9)
    assert shannon_rank(points) <= min(len(points) - 1, points.shape[1]) + 1e-6


@given(CLOUDS, st.floats(1e-3, 1e3))
def test_ranks_know_neither_scale_nor_rotation_nor_place_nor_order(made, scale):
    points, rng = cloud(made), np.random.default_rng(0)
    turned = points @ np.linalg.qr(rng.standard_normal((made[2],) * 2))[0] * scale + scale
    turned = turned[rng.permutation(len(points))]
    assert participation_ratio(turned) == pytest.approx(participation_ratio(points), rel=1e-6)
    assert shannon_rank(turned) == pytest.approx(shannon_rank(points), rel=1e-6)


def test_one_massive_direction_makes_the_rank_one():
    points = np.random.default_rng(0).standard_normal((30, 576)) * 0.05
    points[:, 0] += np.random.default_rng(1).normal(1000, 20, 30)
    assert participation_ratio(points) < 1.02


def test_a_line_does_not_bend_and_a_circle_does_by_half_a_turn():
    line = np.linspace(0, 1, 60)[:, None] ** 1.5 * np.ones((1, 3))
    assert geodesic_distortion(line, neighbours=4) == (pytest.approx(0, abs=1e-12), pytest.approx(1))
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    # arc over chord, (x / 2) / sin(x / 2), averaged over x in (0, pi)
    grid = (np.arange(1, 2001) - 0.5) / 2000 * np.pi
    expected = ((grid / 2) / np.sin(grid / 2)).mean() - 1
    assert geodesic_distortion(circle, neighbours=2)[0] == pytest.approx(expected, abs=5e-3)


def test_more_neighbours_bend_less_and_all_of_them_not_at_all():
    points = np.random.default_rng(0).standard_normal((80, 4))
    found = [geodesic_distortion(points, neighbours=k)[0] for k in (6, 12, 24, 79)]
    assert found == sorted(found, reverse=True) and found[0] > 0.05 and found[-1] == pytest.approx(0, abs=1e-12)


def test_two_islands_are_joined_by_nothing():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.random((20, 2)), rng.random((20, 2)) + 100])
    distortion, joined = geodesic_distortion(points, neighbours=5)
    assert joined == pytest.approx(2 * 190 / 780) and 0 < distortion < 1


def test_coincident_points_are_one_point():
    points = np.random.default_rng(0).random((30, 2))
    doubled = geodesic_distortion(np.concatenate([points, points]), neighbours=5)
    assert doubled == pytest.approx(geodesic_distortion(points, neighbours=5))
    assert np.isnan(geodesic_distortion(np.zeros((5, 2)))[0])


def test_a_gaussian_twin_has_the_mean_and_the_covariance_of_its_cloud():
    points = cloud((1, 30, 4)) + 7
    twin = gaussian_twin(points, np.random.default_rng(0).standard_normal((40_000, 30)))
    assert np.allclose(twin.mean(0), points.mean(0), atol=0.05)
    assert np.allclose(np.cov(twin.T), np.cov(points.T), atol=0.15)


@given(st.integers(0, 1000))
def test_angles_are_those_of_the_cosine_and_keep_their_digits_when_small(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, 6, 5))
    cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert np.allclose(row_angles(x, y), np.arccos(cosine), atol=1e-7)
    assert row_angles([[1.0, 0.0]], [[1.0, 1e-9]])[0] == pytest.approx(1e-9, rel=1e-6)
    assert np.isnan(row_angles([[0.0, 0.0]], [[1.0, 0.0]])[0])


def test_what_is_no_cloud_is_refused():
    with pytest.raises(InputError, match="at least 2 points"):
        participation_ratio([[1.0]])
    with pytest.raises(InputError, match="0 neighbours were asked for"):
        geodesic_distortion(np.eye(5), neighbours=0)
    with pytest.raises(InputError, match="finite numbers"):
        shannon_rank([[1.0], [np.inf]])
