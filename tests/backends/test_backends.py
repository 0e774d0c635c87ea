"""One suite over every backend of the registry, against float64 NumPy; an absent one is skipped by its name."""

import numpy as np
import pytest

from geonb.backends import REGISTRY, available, get_backend
from geonb.errors import BackendError, InputError
from geonb.geometry.singular_values import spectrum

SHAPES = [(24, 24), (12, 40), (40, 12), (1, 7), (7, 1)]


@pytest.fixture(params=sorted(REGISTRY))
def backend(request):
    reason = available()[request.param]
    if reason is not None:
        pytest.skip(f"{request.param}: {reason}")
    return get_backend(request.param)


@pytest.fixture(params=SHAPES, ids=str)
def matrix(request):
    return np.random.default_rng(sum(request.param)).standard_normal(request.param)


def test_singular_values_agree_with_lapack(backend, matrix):
    expected = np.linalg.svd(matrix, compute_uv=False)
    for tier, tolerance in (("float64-gram", 1e-7), ("float64-svd", 1e-13)):
        found = spectrum(backend.asarray(matrix), backend=backend, tier=tier)
        assert found.backend == backend.name and found.tier == tier
        np.testing.assert_allclose(found.values, expected, rtol=0, atol=tolerance * expected[0])


def test_the_gram_matrix_is_that_of_the_smaller_side(backend, matrix):
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    gram = backend.gram(backend.asarray(matrix), 0, fast=False, chunk=5)
    np.testing.assert_allclose(gram, wide @ wide.T, rtol=1e-12, atol=1e-12)


def test_scaling_by_a_power_of_two_is_exact(backend, matrix):
    one = backend.svdvals(backend.asarray(matrix), 0)
    np.testing.assert_allclose(backend.svdvals(backend.asarray(matrix), 5), 32 * one, rtol=1e-14)


def test_svd_is_thin_and_rebuilds_the_matrix(backend, matrix):
    left, values, right = backend.svd(backend.asarray(matrix))
    q = min(matrix.shape)
    assert left.shape == (matrix.shape[0], q) and right.shape == (q, matrix.shape[1])
    np.testing.assert_allclose(left * values @ right, matrix, atol=1e-12)


def test_polar_has_unit_singular_values_and_zero_stays_zero(backend, matrix):
    found = backend.to_numpy(backend.polar(backend.asarray(matrix)))
    np.testing.assert_allclose(np.linalg.svd(found, compute_uv=False), 1.0, atol=1e-6)
    zero = backend.polar(backend.asarray(np.zeros((3, 2))))
    assert not backend.to_numpy(zero).any()


def test_eigenvalues_ascend(backend):
    values = backend.eigvalsh(np.diag([3.0, 1.0, 2.0]))
    np.testing.assert_allclose(values, [1.0, 2.0, 3.0], atol=1e-14)


def test_the_largest_magnitude_sees_what_is_not_finite(backend):
    assert backend.largest_magnitude(backend.asarray(np.array([[1.0, -3.0]]))) == 3.0
    with pytest.raises(InputError, match="NaN or infinite"):
        spectrum(backend.asarray(np.array([[1.0, np.nan], [0.0, 1.0]])), name="w")
    with pytest.raises(InputError, match="NaN or infinite"):
        spectrum(backend.asarray(np.array([[1.0, np.inf], [0.0, 1.0]])))


def test_matmul_and_names(backend):
    first = backend.asarray(np.array([[1.0, 2.0]]))
    product = backend.matmul(first, backend.asarray(np.array([[3.0], [4.0]])))
    assert float(backend.to_numpy(product)[0, 0]) == 11.0
    assert backend.dtype_name(first) in {"float64", "float32"}
    backend.synchronize()
    assert get_backend(first).name == backend.name


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match="allowed are numpy, torch, jax, mlx"):
        get_backend("tpu")


def test_an_absent_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(REGISTRY, "absent", ("geonb.backends.numpy_backend", "NumpyBackend", "no_such_library"))
    assert "install" in (available()["absent"] or "")
    with pytest.raises(BackendError, match="no_such_library is not installed"):
        get_backend("absent")
