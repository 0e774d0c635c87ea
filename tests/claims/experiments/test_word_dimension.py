"""Dimension by depth, its ratios, and the ray that looks like a highway."""

import numpy as np
import pytest

from geonb.claims.experiments.word_dimension import drawn, five_depths, flat, normed, profile, ratio, ray
from geonb.errors import InputError
from geonb.geometry.dimension import two_nn
from geonb.geometry.point_cloud import participation_ratio


def test_thirty_one_depths_are_read_at_the_quarters():
    assert five_depths(31) == [0, 8, 15, 22, 30]
    assert five_depths(3) == [0, 1, 2]


def test_the_ray_has_one_dimension_by_rank_and_more_by_neighbours_the_more_points_there_are():
    few, many = (np.mean([two_nn(ray(n, seed=seed)) for seed in range(6)]) for n in (30, 200))
    assert participation_ratio(ray(200, seed=0)) < 1.05
    assert many > 3 * few


def test_a_flat_cloud_keeps_its_dimension():
    few, many = (np.mean([two_nn(flat(n, seed=seed)) for seed in range(10)]) for n in (60, 400))
    assert few == pytest.approx(5, abs=1.2) and many == pytest.approx(5, abs=1)


def test_rms_leaves_every_row_with_a_root_mean_square_of_one():
    found = normed(np.random.default_rng(0).standard_normal((9, 5)) * 7, "rms")
    assert np.allclose((found**2).mean(1), 1)


def test_the_widest_dimensions_are_those_that_are_left_out():
    cloud = np.random.default_rng(0).standard_normal((50, 6)) * [1, 90, 1, 80, 70, 2]
    assert np.array_equal(normed(cloud, "without outlier dimensions"), cloud[:, [0, 2, 5]])


def test_the_ratios_are_of_the_smallest_inner_mean():
    table = np.array([[8.0, 8], [3, 3], [2, 2], [4, 4]])
    found = profile(table)
    assert (found.fall.value, found.rise.value) == (0.25, 0.5)
    assert found.fall.interval == (0.25, 0.25)


def test_the_interval_of_a_ratio_holds_it():
    rng = np.random.default_rng(0)
    found = ratio(rng.normal(6, 1, 40), rng.normal(3, 1, 40), operator="")
    assert found.interval[0] < 2 < found.interval[1]


def test_more_rows_than_there_are_an_unknown_norm_and_an_unknown_estimator_are_refused():
    cloud = np.zeros((1, 5, 3))
    with pytest.raises(InputError, match="9 rows were asked of 5"):
        drawn(cloud, size=9, draws=1)
    with pytest.raises(InputError, match="'x' was given; allowed are raw"):
        normed(cloud[0], "x")
    with pytest.raises(InputError, match="'PCA' was given; allowed are TwoNN"):
        drawn(cloud, size=4, draws=1, estimator="PCA")
