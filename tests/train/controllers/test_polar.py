"""The polar factor against the singular value decomposition, on both routes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geonb.geometry.ball import polar
from geonb.train.controllers.polar import _by_iteration, polar_factor


def by_iteration(matrix):
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT
    result = _by_iteration(tall / tall.abs().max())
    return result if tall is matrix else result.mT


@pytest.mark.parametrize("route", [polar_factor, by_iteration])
@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (1, 5), (6, 6), (40, 12), (12, 40)])
def test_polar_is_the_product_of_singular_vectors(route, shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    left, _, right = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    assert np.allclose(route(matrix).numpy(), left @ right, atol=2e-5)


def test_polar_agrees_with_the_float64_reference():
    matrix = torch.randn(9, 4, generator=torch.Generator().manual_seed(3))
    assert np.allclose(polar_factor(matrix).numpy(), polar(matrix.numpy()), atol=1e-6)


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 30),
    columns=st.integers(1, 20),
    inner=st.integers(1, 20),
    exponent=st.floats(-30, 30),
)
@settings(max_examples=60, deadline=None)
def test_polar_never_leaves_the_unit_ball(seed, rows, columns, inner, exponent):
    # float32 products of fewer than min(m, n) directions have round-off where exact ones have zeros
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, inner, generator=generator) @ torch.randn(inner, columns, generator=generator)
    for result in (polar_factor(matrix * 10**exponent), by_iteration(matrix)):
        assert torch.linalg.svdvals(result.double())[0] <= 1 + 4e-7


def test_directions_near_the_cut_are_not_too_long():
    generator = torch.Generator().manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(60, 20, generator=generator), full_matrices=False)
    graded = (left * torch.logspace(0, -9, 20)) @ right
    assert torch.linalg.svdvals(polar_factor(graded).double())[0] <= 1 + 1e-7


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_polar_of_nothing_usable_is_zero(value):
    assert torch.equal(polar_factor(torch.full((4, 3), value)), torch.zeros(4, 3))


def test_iteration_reaches_small_directions():
    generator = torch.Generator().manual_seed(1)
    left, _, right = torch.linalg.svd(torch.randn(50, 10, generator=generator), full_matrices=False)
    values = torch.linalg.svdvals(by_iteration((left * torch.logspace(0, -2.5, 10)) @ right))
    assert values.min() > 0.99 and values.max() <= 1 + 4e-7
