"""MASS per layer: the step against the dense curve, and the bound on what it does to the weight."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geonb.adapters.factors import FreeFactors, StiefelFactors
from geonb.geometry.stiefel import skew_norms, wen_yin_step_dense
from geonb.train.controllers.base import TrainedMatrix
from geonb.train.controllers.mass_layer import MassLayer


def single(seed=0, rows=12, columns=10, rank=3, sigma_k=0.5, gap=0.3, budget=1.1, horizon=30):
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(columns, rank, generator=generator))[0].mT.contiguous()
    factors = StiefelFactors(basis, rows, budget=budget)
    matrix = TrainedMatrix(name="w", factors=factors, budget=budget, sigma_k=sigma_k, sigma_max=1.0, gap_boundary=gap)
    return factors, MassLayer((matrix,), horizon=horizon), generator


def change(factors):
    with torch.no_grad():
        left, right = factors()
        return left.double() @ right.double()


def set_gradients(factors, generator, size=1.0):
    for leaf in factors.trained().values():
        leaf.grad = size * torch.randn(leaf.shape, generator=generator)


# rank 3 takes the low-rank form, rank 11 of 12 + 10 rows the full one
@pytest.mark.parametrize(("rank", "columns"), [(3, 10), (11, 12), (9, 9)])
def test_the_step_follows_the_wen_yin_curve(rank, columns):
    factors, controller, generator = single(rank=rank, columns=columns, rows=8)
    set_gradients(factors, generator)
    point, gradient = factors.Q.detach().double().numpy(), factors.Q.grad.double().numpy()
    slope_s, start_s = factors.S.grad.double().numpy(), factors.S.detach().double().numpy()
    frobenius, spectral = skew_norms(point, gradient)
    loss = 0.7
    report = controller.step(loss, 0)
    speed = 2 * np.sqrt(2) * start_s.max() * spectral + 2 * np.abs(slope_s).max()
    # delta = min(sigma_k - 0, gap / 2), Polyak's denominator 1/2 ||A_s||_F^2 + ||g_S||^2
    t = min(1.1 / speed, 0.15 / speed, loss / (0.5 * frobenius**2 + np.sum(slope_s**2)))
    assert report.eta_step[0] == pytest.approx(t * speed, rel=1e-5)
    assert np.allclose(factors.Q.detach().numpy(), wen_yin_step_dense(point, gradient, t), atol=1e-6)
    assert np.allclose(factors.S.detach().numpy(), np.clip(start_s - t * slope_s, 0, 1.1), atol=1e-6)


@given(seed=st.integers(0, 10_000), size=st.floats(1e-4, 1e4), loss=st.floats(0, 100), rank=st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_no_step_moves_the_weight_further_than_it_says(seed, size, loss, rank):
    factors, controller, generator = single(seed=seed, rank=rank)
    for step in range(4):
        before = change(factors)
        set_gradients(factors, generator, size)
        report = controller.step(loss, step)
        moved = torch.linalg.matrix_norm(change(factors) - before, 2)
        assert moved <= report.eta_step[0] * (1 + 1e-5) + 2e-6
        assert 0 <= report.eta_step[0] <= min(report.eta_ceiling[0], report.eta_sps[0], report.eta_weyl[0])
        # Weyl's margin: the change never reaches sigma_k, whatever the budget
        assert factors.product_norm() <= 0.5 + 1e-5


def test_the_frame_stays_orthonormal_over_a_long_run():
    factors, controller, generator = single()
    for step in range(450):
        set_gradients(factors, generator)
        controller.step(1.0, step)
        if step in (198, 448):
            drift = factors.Q.detach().double()
            assert torch.linalg.matrix_norm(drift.mT @ drift - torch.eye(3, dtype=torch.float64)) < 5e-5


def test_without_a_gradient_nothing_moves():
    factors, controller, _ = single()
    start = factors.Q.detach().clone()
    report = controller.step(3.0, 0)
    assert torch.equal(factors.Q.detach(), start)
    assert report.eta_step == report.eta_sps == report.eta_weyl == (0.0,)


@pytest.mark.parametrize(("sigma_k", "gap"), [(0.5, 0.0), (0.0, 0.3)])
def test_without_a_margin_the_step_is_zero(sigma_k, gap):
    factors, controller, generator = single(sigma_k=sigma_k, gap=gap)
    set_gradients(factors, generator)
    start = factors.Q.detach().clone()
    assert controller.step(3.0, 0).eta_step == (0.0,)
    assert torch.allclose(factors.Q.detach(), start, atol=1e-7)


def test_the_loss_falls(make_problem):
    problem = make_problem("mass-layer", horizon=60)
    before = problem.value()
    for step in range(60):
        problem.step(step)
    assert problem.value() < 0.98 * before


def test_the_direction_is_tangent(make_problem):
    problem = make_problem("mass-layer")
    for step in range(3):
        problem.step(step)
    gradients = {name: torch.randn_like(leaf) for name, leaf in problem.leaves().items()}
    for name, move in problem.controller.direction(gradients).items():
        if name.endswith("/Q"):
            inner = problem.leaves()[name].detach().mT @ move
            assert torch.allclose(inner, -inner.mT, atol=1e-5)


def test_other_factors_are_refused():
    matrix = TrainedMatrix(name="w", factors=FreeFactors(torch.eye(3), 3), budget=1.0, sigma_k=1.0, sigma_max=1.0)
    with pytest.raises(TypeError, match="Stiefel"):
        MassLayer((matrix,), horizon=5)
