"""The bounds that each kind of factors guarantees, against full singular value decompositions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geonb.adapters.factors import (
    CayleyFactors,
    Factors,
    FreeFactors,
    OneSidedFactors,
    StiefelFactors,
    TwoSidedFactors,
)
from geonb.geometry.stiefel import cayley_chart

SIZES = {"rows": st.integers(1, 12), "columns": st.integers(1, 12), "seed": st.integers(0, 10_000)}


def generator_of(seed):
    return torch.Generator().manual_seed(seed)


def basis_of(rank, columns, seed=0):
    return torch.linalg.qr(torch.randn(columns, rank, generator=generator_of(seed)))[0].mT.contiguous()


def change(factors):
    with torch.no_grad():
        left, right = factors()
        return left.double() @ right.double()


@pytest.mark.parametrize(
    ("factors", "leaves"),
    [
        (OneSidedFactors(basis_of(3, 7), 5, budget=2.0), ["B"]),
        (TwoSidedFactors(basis_of(3, 7), 5, budget=2.0), ["A", "B"]),
        (CayleyFactors(7, 5, 3, budget=2.0, generator=generator_of(0)), ["X", "Y", "S"]),
        (StiefelFactors(basis_of(3, 7), 5, budget=2.0), ["Q", "S"]),
        (FreeFactors(basis_of(3, 7), 5), ["A", "B"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Factors) else None,
)
def test_every_kind_starts_at_zero_with_its_leaves(factors, leaves):
    left, right = factors()
    assert (left.shape, right.shape, left.dtype, right.dtype) == ((5, 3), (3, 7), torch.float32, torch.float32)
    assert not change(factors).any() and factors.product_norm() == 0
    assert list(factors.trained()) == leaves
    # something must be able to move: the gradient of a random linear loss is not zero
    (torch.randn(5, 7, generator=generator_of(1)) * (left @ right)).sum().backward()
    assert any(leaf.grad is not None and leaf.grad.any() for leaf in factors.trained().values())


@given(rank=st.integers(1, 6), exponent=st.floats(-8, 8), **SIZES)
@settings(max_examples=40, deadline=None)
def test_product_norm_is_the_spectral_norm(rows, columns, rank, seed, exponent):
    # also where A is far from orthonormal and the rank exceeds a side
    factors = FreeFactors(torch.randn(rank, columns, generator=generator_of(seed)) * 10**exponent, rows)
    factors.B.data = torch.randn(rows, rank, generator=generator_of(seed + 1)) * torch.logspace(0, -3, rank)
    exact = np.linalg.norm(change(factors).numpy(), 2)
    assert factors.product_norm() == pytest.approx(exact, rel=1e-6)


@given(rank=st.integers(1, 6), size=st.floats(1e-3, 30), budget=st.floats(1e-3, 1e3), **SIZES)
@settings(max_examples=60, deadline=None)
def test_cayley_bounds_every_singular_value(rows, columns, rank, seed, size, budget):
    rank = min(rank, columns)
    factors = CayleyFactors(columns, rows, rank, budget=budget, generator=generator_of(seed))
    with torch.no_grad():
        for leaf in (factors.X, factors.Y):
            leaf.copy_(size * torch.randn(leaf.shape, generator=generator_of(seed + 1)))
        factors.S.copy_(budget * torch.rand(rank, generator=generator_of(seed + 2)))
    frame = factors.chart().detach()
    assert torch.allclose(frame.mT @ frame, torch.eye(rank, dtype=torch.float64), atol=1e-9)
    assert np.allclose(frame.numpy(), cayley_chart(factors.X.detach().numpy(), factors.Y.detach().numpy()), atol=1e-9)
    bounds = factors.S.detach().double().sort(descending=True).values
    values = torch.linalg.svdvals(change(factors))[: len(bounds)]
    assert (values <= bounds[: len(values)] * (1 + 1e-6) + 1e-6 * budget).all()
    assert factors.product_norm() <= budget


@given(rank=st.integers(1, 6), **SIZES)
@settings(max_examples=40, deadline=None)
def test_stiefel_bounds_every_singular_value(rows, columns, rank, seed):
    rank = min(rank, columns)
    factors = StiefelFactors(basis_of(rank, columns, seed), rows, budget=1.0)
    with torch.no_grad():
        factors.Q.copy_(torch.linalg.qr(torch.randn(rows + columns, rank, generator=generator_of(seed + 1)))[0])
        factors.S.copy_(torch.rand(rank, generator=generator_of(seed + 2)))
    bounds = factors.S.detach().double().sort(descending=True).values
    values = torch.linalg.svdvals(change(factors))[: len(bounds)]
    assert (values <= bounds[: len(values)] + 2e-6).all()


def test_clip_keeps_s_between_zero_and_the_budget():
    factors = StiefelFactors(basis_of(3, 7), 5, budget=2.0)
    factors.S.data = torch.tensor([-1.0, 1.0, 9.0])
    factors.clip()
    assert factors.S.tolist() == pytest.approx([0.0, 1.0, 2.0], abs=1e-5)
    assert float(factors.S.detach().max()) < 2.0


def test_a_mixed_sign_would_double_the_norm():
    # why S may not be negative: ||2 B^T diag(1, -1) A||_2 = 2 at this frame (MATH.md section 3)
    half = 0.5**0.5
    right, left = np.array([[half, 0], [half, 0]]), np.array([[0, half], [0, -half]])
    assert np.linalg.norm(2 * left.T @ np.diag([1, -1]) @ right, 2) == pytest.approx(2.0)
    assert np.linalg.norm(2 * left.T @ np.diag([1, 1]) @ right, 2) <= 1.0


def test_the_cayley_start_favours_no_input_coordinate():
    factors = CayleyFactors(64, 32, 4, budget=1.0, generator=generator_of(0))
    with torch.no_grad():
        right = factors()[1]
    assert float(right[:, :4].square().sum() / right.square().sum()) < 0.2


def test_a_rank_above_the_inputs_is_refused():
    with pytest.raises(ValueError, match="exceeds the 3 input features"):
        CayleyFactors(3, 9, 4, budget=1.0, generator=generator_of(0))
