"""The comparison arms: torch's own optimisers give the same bytes, ScaledGD its float64 reference."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from geonb.adapters.factors import FreeFactors
from geonb.errors import InputError
from geonb.geometry.spectrum import EPS
from geonb.train.controllers.base import TrainedMatrix
from geonb.train.controllers.baselines import ScaledGD


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("adamw", lambda leaves: torch.optim.AdamW(leaves, lr=0.0, weight_decay=0.0)),
        ("muon", lambda leaves: torch.optim.Muon(leaves, lr=0.0, weight_decay=0.0)),
    ],
)
def test_a_baseline_is_the_library_optimiser(make_problem, name, make):
    ours, theirs = make_problem(name, rate=0.02), make_problem(name, rate=0.02)
    leaves = list(theirs.leaves().values())
    optimizer = make(leaves)
    for step in range(6):
        ours.step(step)
        optimizer.zero_grad()
        theirs.loss().backward()
        torch.nn.utils.clip_grad_norm_(leaves, 1.0)
        optimizer.param_groups[0]["lr"] = 0.02 * (1 if step == 0 else 0.5 * (1 + np.cos(np.pi * (step - 1) / 19)))
        optimizer.step()
    for one, other in zip(ours.leaves().values(), leaves, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("name", "rate"), [("adamw", 0.05), ("muon", 0.05), ("scaled-gd", 0.05)])
def test_the_loss_falls(make_problem, name, rate):
    problem = make_problem(name, rate=rate, horizon=40)
    before = problem.value()
    for step in range(40):
        problem.step(step)
    assert problem.value() < 0.95 * before


@pytest.mark.parametrize(("cosine", "last"), [(True, 0.0068), (False, 1.0)])
def test_the_schedule_warms_up_and_falls_unless_told(make_problem, cosine, last):
    problem = make_problem("adamw", horizon=20, rate=1.0, cosine=cosine)
    rates = [problem.step(step).eta_step[0] for step in range(20)]
    assert rates[0] == 1.0 and rates[-1] == pytest.approx(last, abs=1e-3)
    assert all(later <= earlier for earlier, later in pairwise(rates))


def test_a_horizon_of_one_step_is_allowed(make_problem):
    assert make_problem("adamw", horizon=1).step(0).eta_step[0] > 0


def test_an_old_torch_without_muon_is_named(make_problem, monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(InputError, match=r"muon.*torch 2\.9"):
        make_problem("muon")


def test_scaled_gd_equals_its_float64_reference():
    rate, horizon, sigma_k, sigma_max = 0.3, 10, 0.4, 2.0
    generator = torch.Generator().manual_seed(0)
    start, goal = torch.randn(3, 7, generator=generator) / 7**0.5, torch.randn(6, 7, generator=generator)
    factors = FreeFactors(start.clone(), 6)
    matrix = TrainedMatrix(name="w", factors=factors, budget=1.0, sigma_k=sigma_k, sigma_max=sigma_max)
    controller = ScaledGD((matrix,), horizon=horizon, rate=rate)
    left, right, target = np.zeros((6, 3)), start.double().numpy(), goal.double().numpy()
    ridge = max(sigma_k**2, np.sqrt(EPS) * sigma_max**2) * np.eye(3)
    for step in range(10):
        factors.zero_grad()
        (0.5 * (factors.B @ factors.A - goal).square().sum()).backward()
        controller.step(1.0, step)
        residual, now = left @ right - target, rate * (1 - step / horizon)
        for_left = residual @ right.T @ np.linalg.inv(right @ right.T + ridge)
        for_right = np.linalg.inv(left.T @ left + ridge) @ (left.T @ residual)
        shrink = 1 - now * sigma_k / sigma_max
        left, right = shrink * left - now * for_left, shrink * right - now * for_right
        assert np.allclose(factors.B.detach().numpy(), left, atol=1e-5)
        assert np.allclose(factors.A.detach().numpy(), right, atol=1e-5)
