"""GRIDE's estimate is the maximum of its likelihood, and every table says what the whole distance matrix says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import cdist
from scipy.special import betaln

from geonb.errors import InputError
from geonb.geometry.dimension import h0_persistence, mle_dimension, two_nn
from geonb.geometry.intrinsic_dimension import gride, mle_of, nearest_neighbours, two_nn_of

CLOUDS = st.tuples(st.integers(0, 10_000), st.integers(12, 60), st.integers(1, 9))


def cloud(made):
    seed, rows, width = made
    return np.random.default_rng(seed).standard_normal((rows, width))


def log_density(mu, dimension, first, second):
    """The density of Denti et al. 2022, written out."""
    return (
        np.log(dimension)
        + (second - first - 1) * np.log(mu**dimension - 1)
        - ((second - 1) * dimension + 1) * np.log(mu)
        - betaln(second - first, first)
    )


@given(CLOUDS)
def test_a_table_holds_the_sorted_rows_of_the_distance_matrix(made):
    points = cloud(made)
    table = nearest_neighbours(points, 7)
    whole = cdist(points, points)
    assert np.allclose(table.distances, np.sort(whole, axis=1)[:, 1:8], rtol=1e-9)
    assert np.allclose(whole[np.arange(len(points))[:, None], table.rows], table.distances)


@given(CLOUDS, st.integers(0, 100))
def test_a_table_without_rows_is_the_table_of_the_other_rows(made, seed):
    points = cloud(made)
    gone = np.random.default_rng(seed).choice(len(points), len(points) // 3, replace=False)
    table = nearest_neighbours(points, len(points)).without(gone)
    other = nearest_neighbours(np.delete(points, gone, axis=0), 4)
    assert np.allclose(table.distances[:, : other.distances.shape[1]], other.distances, rtol=1e-9)


@given(CLOUDS)
def test_dimensions_from_a_table_are_those_from_the_points(made):
    points = cloud(made)
    table = nearest_neighbours(points, 10)
    assert two_nn_of(table) == pytest.approx(two_nn(points), rel=1e-9)
    assert mle_of(table) == pytest.approx(mle_dimension(points), rel=1e-9)


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 4), (3, 5), (8, 16)])
def test_the_density_is_one_and_its_likelihood_is_greatest_at_the_estimate(first, second):
    assert quad(lambda mu: np.exp(log_density(mu, 3.0, first, second)), 1, np.inf)[0] == pytest.approx(1, rel=1e-6)
    points = np.random.default_rng(3).standard_normal((150, 4))
    ordered = np.sort(cdist(points, points), axis=1)
    mu = ordered[:, second] / ordered[:, first]
    best = minimize_scalar(lambda d: -log_density(mu, d, first, second).sum(), bounds=(0.1, 50), method="bounded")
    found = gride(points, first=first, second=second)
    assert found.dimension == pytest.approx(best.x, rel=1e-4) and found.n == 150
    # the interval is the curvature of the log-likelihood, here by differences
    step = 1e-3 * best.x
    values = [log_density(mu, best.x + shift, first, second).sum() for shift in (-step, 0, step)]
    error = 1 / np.sqrt(-(values[0] - 2 * values[1] + values[2]) / step**2)
    assert found.interval[1] - found.dimension == pytest.approx(1.96 * error, rel=1e-2)
    assert found.scale == pytest.approx(np.median(ordered[:, second]))


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_a_cube_in_many_dimensions_has_its_own_dimension(dimension):
    rng = np.random.default_rng(dimension)
    frame = np.linalg.qr(rng.standard_normal((40, dimension)))[0]
    points = rng.random((2000, dimension)) @ frame.T
    for first in (1, 2, 4):
        assert gride(points, first=first).dimension == pytest.approx(dimension, rel=0.12)


def test_a_circle_is_a_line_and_a_sphere_a_plane_at_small_scales():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 1000)
    assert gride(np.column_stack([np.cos(angle), np.sin(angle)]), first=4).dimension == pytest.approx(1, rel=0.05)
    ball = rng.standard_normal((2000, 3))
    assert gride(ball / np.linalg.norm(ball, axis=1, keepdims=True), first=4).dimension == pytest.approx(2, rel=0.05)


def test_noise_around_a_line_has_many_dimensions_near_and_one_far():
    rng = np.random.default_rng(1)
    points = rng.standard_normal((1500, 10)) * 0.02
    points[:, 0] += rng.uniform(0, 20, 1500)
    near, far = gride(points, first=1).dimension, gride(points, first=64).dimension
    assert near > 1.5 * far and far == pytest.approx(1, abs=0.25)


@given(CLOUDS, st.floats(1e-3, 1e3))
def test_dimension_knows_neither_scale_nor_rotation_nor_place_nor_order(made, scale):
    points = cloud(made)
    rng = np.random.default_rng(1)
    turned = points @ np.linalg.qr(rng.standard_normal((made[2],) * 2))[0] * scale + 3 * scale
    found = gride(points, first=2), gride(turned[rng.permutation(len(points))], first=2)
    assert found[0].dimension == pytest.approx(found[1].dimension, rel=1e-6)


def test_points_that_coincide_are_left_out():
    points = np.random.default_rng(0).standard_normal((50, 3))
    doubled = np.concatenate([points, points[:20]])
    assert gride(doubled).n == 30 and gride(np.zeros((9, 2))).n == 0
    assert np.isnan(gride(np.zeros((9, 2))).dimension)


@pytest.mark.parametrize(
    ("points", "k", "sentence"),
    [
        (np.zeros((3, 2)), 2, "2 neighbours were asked of a cloud of shape"),
        (np.zeros(9), 2, "at least 4 points"),
        (np.full((9, 2), np.nan), 2, "holds NaN or infinity"),
    ],
)
def test_a_cloud_that_has_no_neighbours_is_refused(points, k, sentence):
    with pytest.raises(InputError, match=sentence):
        nearest_neighbours(points, k)


def test_neighbours_that_are_not_known_are_refused():
    with pytest.raises(InputError, match="the neighbours 4 and 4 were asked of a table"):
        gride(np.random.default_rng(0).random((20, 2)), first=4, second=4)
    with pytest.raises(InputError, match="the neighbours 10 and 20 were asked of a table of 11"):
        gride(np.random.default_rng(0).random((12, 2)), first=10)


@pytest.mark.filterwarnings("ignore")  # its own
def test_scikit_dimension_agrees():
    estimators = pytest.importorskip("skdim").id
    points = np.random.default_rng(5).standard_normal((300, 6))
    table = nearest_neighbours(points, 20)
    theirs = estimators.MLE(unbiased=True).fit(points, n_neighbors=20).dimension_
    assert mle_of(table, neighbours=20) == pytest.approx(theirs, rel=1e-6)
    # its TwoNN fits a line through the distribution of the ratios but for its end, where the logarithm has none: another
    # estimator of the same number
    assert two_nn_of(table) == pytest.approx(estimators.TwoNN(discard_fraction=0.1).fit(points).dimension_, rel=0.15)


@pytest.mark.filterwarnings("ignore")  # its own
def test_ripser_sees_the_same_components_die():
    ripser = pytest.importorskip("ripser").ripser
    points = np.random.default_rng(6).standard_normal((60, 3))
    deaths = np.sort(ripser(points, maxdim=0)["dgms"][0][:, 1])
    assert np.isinf(deaths[-1]) and np.allclose(deaths[:-1], h0_persistence(points), rtol=1e-5)
