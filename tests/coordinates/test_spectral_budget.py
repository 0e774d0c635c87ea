"""Norms of many small matrices: exact to 2e-6 from above, whatever the matrices are, and never above the budget."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geonb.coordinates.spectral_budget import scale_within, spectral_norms

ROUNDING = 1e-6  # of float32, in either direction


def with_values(values, seed, count=20):
    """Matrices of given singular values between random orthogonal ones."""
    rng = np.random.default_rng(seed)
    size = len(values)
    left, right = (np.linalg.qr(rng.normal(size=(count, size, size)))[0] for _ in range(2))
    return torch.tensor(left * np.asarray(values) @ right, dtype=torch.float32)


def exact(matrices):
    return np.linalg.norm(matrices.double().numpy(), 2, axis=(1, 2))


HARD = {
    "one": [1.0] + [0.0] * 11,
    "all the same": [1.0] * 12,
    "two the same": [1.0, 1.0] + [0.3] * 10,
    "two nearly the same": [1.0, 0.99999] + [0.5] * 10,
    "a slow decay": list(0.98 ** np.arange(12)),
    "a wide range": list(10.0 ** -np.arange(12.0)),
    "hardly anything": [1e-18] + [1e-19] * 11,
    "very much": [1e15] + [1e14] * 11,
}


@pytest.mark.parametrize("name", HARD)
def test_no_arrangement_of_singular_values_is_taken_for_less_than_it_is(name):
    matrices = with_values(HARD[name], seed=1)
    error = spectral_norms(matrices).double().numpy() / exact(matrices) - 1
    assert -ROUNDING < error.min() and error.max() < 2e-6 + ROUNDING


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 13), st.floats(-6, 6))
def test_random_matrices_of_any_size_have_their_norm(seed, rank, magnitude):
    drawn = np.random.default_rng(seed).normal(size=(30, rank, rank)) * 10.0**magnitude
    matrices = torch.tensor(drawn, dtype=torch.float32)
    error = spectral_norms(matrices).double().numpy() / exact(matrices) - 1
    assert -ROUNDING < error.min() and error.max() < 2e-6 + ROUNDING


def test_a_leading_vector_orthogonal_to_the_start_is_not_missed():
    """The vector that the products begin with is fixed; here it has no part in the leading direction."""
    start = (1 + torch.arange(6.0).square().cos() / 2).double()
    basis = np.linalg.qr(np.column_stack([start.numpy(), np.random.default_rng(0).normal(size=(6, 5))]))[0]
    # the second column is orthogonal to the start and has the largest value
    matrix = torch.tensor(basis @ np.diag([0.5, 1.0, 0.1, 0.1, 0.1, 0.1]) @ basis.T, dtype=torch.float32)
    assert float(spectral_norms(matrix[None])) == pytest.approx(1.0, abs=3e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 3))
def test_what_is_scaled_is_at_its_budget_and_what_fits_is_left_alone(seed, beta):
    matrices = torch.tensor(np.random.default_rng(seed).normal(size=(3, 7, 5, 5)) * 0.3, dtype=torch.float32)
    scale = scale_within(matrices, beta).double().numpy()
    norms = np.linalg.norm(matrices.double().numpy(), 2, axis=(-2, -1))
    assert (scale * norms <= beta).all()
    fits = norms < beta * (1 - 1e-5)
    assert (scale[fits] == 1).all() and (scale[norms > beta] * norms[norms > beta] > beta * (1 - 1e-5)).all()


def test_each_matrix_has_its_own_budget_and_a_zero_matrix_any():
    matrices = torch.stack([torch.eye(3), 4 * torch.eye(3), torch.zeros(3, 3)])
    scale = scale_within(matrices, torch.tensor([2.0, 2.0, 0.0]))
    assert scale.tolist() == pytest.approx([1.0, 0.5, 1.0], rel=1e-5)


def test_a_matrix_is_scaled_the_same_whoever_else_is_looked_at():
    """What a later token does must not move an earlier one's logits by a bit."""
    matrices = with_values(list(0.97 ** np.arange(12)), seed=3, count=70)
    whole = scale_within(matrices, 0.5)
    for count in (1, 2, 17, 64):
        assert torch.equal(scale_within(matrices[:count], 0.5), whole[:count])


@pytest.mark.parametrize("beta", [0.5, 0.93, 0.985, 1.03, 1.2, 4.0])
def test_what_is_left_out_early_and_who_is_beside_it_does_not_move_a_scale(beta):
    """Some are inside by a Frobenius norm, some by a Schatten norm, some at the budget, some beyond it: none feels the others."""
    rng = np.random.default_rng(5)
    decays = [0.0, 0.5, 0.9, 0.97, 1.0]
    matrices = torch.cat([with_values(list(decay ** np.arange(12.0)), seed=int(rng.integers(99))) for decay in decays])
    matrices = matrices * torch.tensor(rng.choice([1.0, 0.2], size=(len(matrices), 1, 1)), dtype=torch.float32)
    whole = scale_within(matrices, beta)
    # by LAPACK in float64, who alone knows nothing of screens
    norms = exact(matrices)
    assert (whole.double().numpy() * norms <= beta).all()
    assert ((whole < 1).numpy() == (norms > beta * (1 - 6e-6))).all()
    for picked in (torch.arange(3), torch.randperm(100, generator=torch.Generator().manual_seed(1))[:41]):
        # to the bit where products of a batch are the same one by one, which a library need not promise
        torch.testing.assert_close(scale_within(matrices[picked], beta), whole[picked], rtol=1e-6, atol=0)


def test_more_matrices_than_are_multiplied_at_a_time_are_each_scaled_as_alone():
    drawn = np.random.default_rng(6).normal(size=(700, 12, 12))
    matrices = torch.tensor(drawn, dtype=torch.float32).repeat(8, 1, 1)
    whole = scale_within(matrices, 5.0).reshape(8, 700)
    torch.testing.assert_close(whole, whole[:1].expand(8, 700), rtol=1e-6, atol=0)
    np.testing.assert_allclose(whole[0].numpy(), np.minimum(1, 5.0 / exact(matrices[:700])), rtol=7e-6)


def test_threads_do_not_write_to_each_others_memory():
    given = [
        with_values(list(0.9 ** np.arange(12) * size), seed=seed, count=300)
        for seed, size in enumerate((1.0, 3.0, 9.0))
    ]
    alone = [spectral_norms(one) for one in given]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(10):
            for found, expected in zip(pool.map(spectral_norms, given), alone, strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_norms_asked_for_in_inference_mode_first_and_outside_it_afterwards_are_the_same():
    matrices = with_values(list(0.9 ** np.arange(7)), seed=8)
    with torch.inference_mode():
        inside = spectral_norms(matrices).clone()
    assert torch.equal(spectral_norms(matrices), inside.clone())
