"""Frank-Wolfe against a float64 reference written from MATH.md section 4, and its invariances."""

import numpy as np
import pytest
import torch

from geonb.adapters.factors import SAFE, FreeFactors, OneSidedFactors, TwoSidedFactors
from geonb.geometry.ball import duality_gap
from geonb.train.controllers.base import TrainedMatrix
from geonb.train.controllers.frank_wolfe import FrankWolfe

ROWS, COLUMNS, RANK, HORIZON, SIGMA_K = 8, 11, 4, 25, 0.9


def polar64(matrix):
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return left @ right


def reference(basis, goal, budget, sides, steps):
    """Ten lines of float64 for the loss 1/2 ||BA - goal||_F^2; yields (A, B, eta, gap) after each step."""
    radius = budget * SAFE if sides == "one" else np.sqrt(budget) * SAFE
    point = {"B": np.zeros((ROWS, RANK))}
    right = basis if sides == "one" else basis * radius
    if sides == "two":
        point["A"] = right
    beta = 1 - 1 / np.sqrt(HORIZON)
    moment = {name: np.zeros_like(value) for name, value in point.items()}
    for step in range(steps):
        residual = point["B"] @ point.get("A", right) - goal
        gradient = {"B": residual @ point.get("A", right).T, "A": point["B"].T @ residual}
        loss = 0.5 * np.sum(residual**2)
        averaged, gap = {}, 0.0
        for name in point:
            moment[name] = beta * moment[name] + (1 - beta) * gradient[name]
            averaged[name] = moment[name] / (1 - beta ** (step + 1))
            if np.any(averaged[name]):
                gap += np.sum(averaged[name] * (point[name] + radius * polar64(averaged[name])))
        eta = min(budget * SAFE, budget * SAFE * loss / gap, SIGMA_K * (1 - step / HORIZON) / np.sqrt(HORIZON))
        gamma = eta / (budget * SAFE)
        for name in point:
            vertex = polar64(averaged[name]) if np.any(averaged[name]) else 0.0
            point[name] = (1 - gamma) * point[name] - gamma * radius * vertex
        yield point.get("A", right), point["B"], eta, gap


def setting(sides, seed=0, budget=1.7):
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(COLUMNS, RANK, generator=generator))[0].mT.contiguous()
    goal = torch.randn(ROWS, COLUMNS, generator=generator)
    kind = OneSidedFactors if sides == "one" else TwoSidedFactors
    factors = kind(basis, ROWS, budget=budget)
    matrix = TrainedMatrix(name="w", factors=factors, budget=budget, sigma_k=SIGMA_K, sigma_max=2.0)
    return basis, goal, factors, FrankWolfe((matrix,), horizon=HORIZON)


@pytest.mark.parametrize("sides", ["one", "two"])
def test_ten_steps_equal_the_float64_reference(sides):
    basis, goal, factors, controller = setting(sides)
    expected = reference(basis.double().numpy(), goal.double().numpy(), 1.7, sides, 10)
    for step, (right, left, eta, gap) in enumerate(expected):
        factors.zero_grad()
        loss = 0.5 * (factors()[0] @ factors()[1] - goal).square().sum()
        loss.backward()
        report = controller.step(float(loss.detach()), step)
        assert np.allclose(factors()[0].detach().numpy(), left, atol=1e-5)
        assert np.allclose(factors()[1].detach().numpy(), right, atol=1e-5)
        assert report.eta_step[0] == pytest.approx(eta, rel=1e-5)
        assert report.gap == pytest.approx(gap, rel=1e-4)


def test_the_first_gap_is_the_duality_gap_of_the_gradient():
    _, goal, factors, controller = setting("one")
    loss = 0.5 * (factors()[0] @ factors()[1] - goal).square().sum()
    loss.backward()
    expected = duality_gap(factors.B.grad.double().numpy(), np.zeros((ROWS, RANK)), factors.radius("B"))
    assert controller.step(float(loss.detach()), 0).gap == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("sides", ["one", "two"])
def test_the_scale_of_the_loss_changes_nothing(make_problem, sides):
    plain = make_problem("frank-wolfe", sides=sides)
    scaled = make_problem("frank-wolfe", sides=sides, scale=1000.0)
    for step in range(10):
        one, other = plain.step(step), scaled.step(step)
        assert other.eta_step == pytest.approx(one.eta_step, rel=1e-6)
        assert other.gap == pytest.approx(1000 * one.gap, rel=1e-3)
    for one, other in zip(plain.changes(), scaled.changes(), strict=True):
        assert torch.allclose(one, other, atol=2e-5)


def test_the_loss_falls_and_the_last_step_is_short(make_problem):
    problem = make_problem("frank-wolfe", horizon=60)
    before = problem.value()
    reports = [problem.step(step) for step in range(60)]
    assert problem.value() < 0.9 * before
    assert max(reports[-1].eta_step) < 0.05 * max(reports[0].eta_step)


def test_a_long_push_fills_the_ball_and_stays_inside():
    generator = torch.Generator().manual_seed(2)
    basis = torch.linalg.qr(torch.randn(64, 24, generator=generator))[0].mT.contiguous()
    factors = OneSidedFactors(basis, 80, budget=1.0)
    matrix = TrainedMatrix(name="w", factors=factors, budget=1.0, sigma_k=1.0, sigma_max=1.0)
    controller = FrankWolfe((matrix,), horizon=1500)
    gradient = torch.randn(80, 24, generator=generator)
    for step in range(1500):
        factors.B.grad = gradient
        controller.step(1e9, step)
        if step % 50 == 49:
            assert factors.product_norm() <= 1.0
    assert factors.product_norm() > 0.9999


def test_an_attained_loss_floor_stops_the_step(make_problem):
    problem = make_problem("frank-wolfe", loss_floor=1e9)
    report = problem.step(0)
    assert report.eta_step == (0.0, 0.0) and report.binding() == ("sps", "sps")
    assert all(not change.any() for change in problem.changes())


def test_the_direction_leads_to_a_vertex_of_the_ball(make_problem):
    problem = make_problem("frank-wolfe")
    gradients = {name: torch.randn_like(leaf) for name, leaf in problem.leaves().items()}
    for name, move in problem.controller.direction(gradients).items():
        values = torch.linalg.svdvals((problem.leaves()[name] + move).detach().double())
        assert torch.allclose(values, torch.full_like(values, 0.8 * SAFE), atol=1e-6)


def test_other_factors_are_refused():
    matrix = TrainedMatrix(name="w", factors=FreeFactors(torch.eye(3), 3), budget=1.0, sigma_k=1.0, sigma_max=1.0)
    with pytest.raises(TypeError, match="points of a ball"):
        FrankWolfe((matrix,), horizon=5)
