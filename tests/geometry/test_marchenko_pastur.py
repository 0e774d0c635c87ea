"""The noise that is drawn without a matrix is that of matrices, and the law is the integral of its density."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import ks_2samp

from geonb.errors import InputError
from geonb.geometry.marchenko_pastur import gaussian_singular_values, marchenko_pastur_cdf, marchenko_pastur_distance
from geonb.geometry.spectrum import marchenko_pastur_median


@pytest.mark.parametrize("shape", [(12, 7), (7, 12), (5, 5), (9, 1)])
def test_drawn_values_have_the_law_of_the_matrix_that_was_never_drawn(shape):
    rng = np.random.default_rng(0)
    drawn = np.array([gaussian_singular_values(shape, rng) for _ in range(1500)])
    real = np.array([np.linalg.svd(rng.standard_normal(shape), compute_uv=False) for _ in range(1500)])
    assert drawn.shape == real.shape and (np.diff(drawn) <= 0).all()
    for place in (0, min(shape) // 2, min(shape) - 1):
        assert ks_2samp(drawn[:, place], real[:, place]).pvalue > 1e-3


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0])
def test_the_law_is_the_integral_of_its_density(ratio):
    low, high = (1 - np.sqrt(ratio)) ** 2, (1 + np.sqrt(ratio)) ** 2

    def density(x):
        return np.sqrt(max(0.0, (high - x) * (x - low))) / (2 * np.pi * ratio * x)

    for point in np.linspace(low, high, 7)[1:-1]:
        assert marchenko_pastur_cdf([point], ratio)[0] == pytest.approx(quad(density, low, point)[0], abs=1e-5)
    assert marchenko_pastur_cdf([marchenko_pastur_median(ratio)], ratio)[0] == pytest.approx(0.5, abs=1e-4)


def test_noise_is_near_the_law_and_structure_is_far():
    rng = np.random.default_rng(0)
    noise = np.linalg.svd(rng.standard_normal((300, 200)), compute_uv=False)
    assert marchenko_pastur_distance(noise, (300, 200)) < 0.02
    assert marchenko_pastur_distance(3 * noise, (200, 300)) == pytest.approx(
        marchenko_pastur_distance(noise, (300, 200))
    )
    assert marchenko_pastur_distance(np.r_[100.0, np.ones(199)], (300, 200)) > 0.5
    assert np.isnan(marchenko_pastur_distance(np.zeros(3), (3, 3)))


def test_impossible_shapes_are_refused():
    with pytest.raises(InputError, match="singular values of the shape"):
        gaussian_singular_values((0, 3), np.random.default_rng(0))
    with pytest.raises(InputError, match=r"the aspect ratio 2\.0 was given"):
        marchenko_pastur_cdf([1.0], 2.0)
    with pytest.raises(InputError, match="2 singular values were given for the shape"):
        marchenko_pastur_distance([1.0, 2.0], (3, 3))
