"""The documented MASS: its published vectors, a three-step trace worked by hand, and what it refuses."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geonb.adapters.factors import CayleyFactors, FreeFactors
from geonb.errors import DerivationError
from geonb.geometry.spectrum import EPS
from geonb.train.controllers.base import TrainedMatrix
from geonb.train.controllers.mass import Mass, back_off, mass_ceiling, mass_rates

POSITIVE = st.floats(1e-6, 1e6)


@pytest.mark.parametrize(
    ("loss", "norm", "sigma_k", "ceiling", "step", "binding"),
    [
        (2.0, 1.0, 0.5, 0.01, 0.01, "ceiling"),
        (1e-6, 1.0, 0.5, 1.0, 1e-6, "sps"),
        (10.0, 100.0, 0.01, 1.0, 1e-4, "weyl"),
        (1.0, 0.0, 0.5, 0.01, 0.01, "ceiling"),
    ],
)
def test_documented_vectors(loss, norm, sigma_k, ceiling, step, binding):
    rates = mass_rates(loss, norm, sigma_k, ceiling)
    assert rates.step == pytest.approx(step, rel=1e-12)
    assert rates.binding == binding


def test_documented_margin():
    assert mass_rates(1.0, 2.0, 9.0, 9.0, remaining=0.1).margin == pytest.approx(0.05)
    assert mass_rates(1.0, 2.0, 9.0, 9.0, remaining=0.0).step == 0.0
    assert mass_rates(1.0, 2.0, 9.0, 9.0, remaining=-3.0).step == 0.0
    # 0.40 of budget left, ||d|| = 11.45 and 964 steps to go
    spread = mass_rates(1e3, 11.45, 9.0, 9.0, remaining=0.40, steps_left=964)
    assert spread.margin == pytest.approx(0.001125, rel=1e-3) and spread.binding == "margin"


@pytest.mark.parametrize(("sigma_k", "sigma_max", "ceiling"), [(0.1, 10, 0.01), (1, 1, 1), (5, 10, 0.5)])
def test_documented_ceilings(sigma_k, sigma_max, ceiling):
    assert mass_ceiling(sigma_k, sigma_max) == pytest.approx(ceiling, rel=1e-12)
    assert mass_ceiling(sigma_k, sigma_max, 4) == pytest.approx(ceiling / 2)
    assert mass_ceiling(sigma_k, sigma_max, 100) == pytest.approx(ceiling / 10)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_a_ceiling_needs_positive_finite_geometry(bad):
    for pair in ((bad, 1.0), (1.0, bad)):
        with pytest.raises(DerivationError, match="positive and finite"):
            mass_ceiling(*pair)


def test_documented_back_off():
    assert back_off(0.01, 1.0, 2.0) == pytest.approx(0.005)
    assert back_off(0.01, 2.0, 1.0) == 0.01
    assert back_off(0.01, 1e-10, 1e10) == pytest.approx(0.01 * EPS**0.5)


@given(ceiling=POSITIVE, losses=st.lists(POSITIVE, min_size=2, max_size=8))
def test_back_off_never_raises_and_never_reaches_zero(ceiling, losses):
    now = ceiling
    for before, after in pairwise(losses):
        lowered = back_off(now, before, after)
        assert 0 < lowered <= now and (lowered < now or after <= before * (1 + 1e-15))
        now = lowered


@given(loss=st.floats(0, 1e6), norm=POSITIVE, sigma_k=POSITIVE, ceiling=POSITIVE)
def test_the_step_is_the_least_bound(loss, norm, sigma_k, ceiling):
    rates = mass_rates(loss, norm, sigma_k, ceiling)
    assert 0 <= rates.step <= min(rates.ceiling, rates.sps, rates.weyl)
    assert rates.step * norm <= sigma_k * (1 + 1e-15)
    assert mass_rates(2 * loss, norm, sigma_k, ceiling).sps == pytest.approx(2 * rates.sps)
    assert mass_rates(loss, 2 * norm, sigma_k, ceiling).sps == pytest.approx(rates.sps / 4)


def test_three_steps_worked_by_hand():
    """One 1 x 1 matrix: Q = ((1-y^2)/(1+y^2), -2y/(1+y^2)), dW = 2 S Q_out Q_in, sigma_k 2, sigma_max 4, N 4, T 4."""
    factors = CayleyFactors(1, 1, 1, budget=4.0, generator=torch.Generator().manual_seed(0))
    matrix = TrainedMatrix(name="w", factors=factors, budget=4.0, sigma_k=2.0, sigma_max=4.0)
    controller = Mass((matrix,), horizon=4, batches_per_epoch=4)
    assert controller.ceiling == 0.25  # 2 / 4 / sqrt 4

    def step(index, loss, slope_y, slope_s):
        factors.X.grad = torch.zeros(1, 1)
        factors.Y.grad, factors.S.grad = torch.tensor([[slope_y]]), torch.tensor([slope_s])
        return controller.step(loss, index)

    # ||d|| = 5: sps 10/25 = .4, weyl 2/5 = .4, margin 2/(5 sqrt 4) = .2 binds; y 0 - .6, S 2 - .8
    report = step(0, 10.0, 3.0, 4.0)
    assert controller.rates.binding == "margin" and controller.rates.step == pytest.approx(0.2)
    assert (float(factors.Y.detach()), float(factors.S.detach())) == pytest.approx((-0.6, 1.2), abs=1e-5)
    assert report.eta_step[0] == pytest.approx(1.0) and report.binding() == ("weyl",)
    # 2 x 1.2 x (15/17) x (8/17)
    assert factors.product_norm() == pytest.approx(288 / 289, abs=1e-5)

    # ||d|| = 5: margin (2 - 288/289)/(5 sqrt 3) = .116, sps 1.25/25 = .05 binds; y -.6 + .25
    report = step(1, 1.25, -5.0, 0.0)
    assert controller.rates.margin == pytest.approx((2 - 288 / 289) / (5 * 3**0.5), rel=1e-5)
    assert controller.rates.binding == "sps" and report.eta_step[0] == pytest.approx(0.25)
    assert float(factors.Y.detach()) == pytest.approx(-0.35, abs=1e-6)

    # validation rose from 1 to 5: the ceiling falls from .25 to .05 and binds; y -.35 - .005
    controller.observe_validation(1.0)
    controller.observe_validation(5.0)
    report = step(2, 2.0, 0.1, 0.0)
    assert controller.rates.binding == "ceiling" and controller.rates.step == pytest.approx(0.05)
    assert float(factors.Y.detach()) == pytest.approx(-0.355, abs=1e-6)
    assert report.unit == "length of the step in parameter space"


def test_a_spent_budget_stops_the_step_and_says_so():
    factors = CayleyFactors(1, 1, 1, budget=4.0, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        factors.Y.fill_(-0.4)
        factors.S.fill_(3.5)
    matrix = TrainedMatrix(name="w", factors=factors, budget=4.0, sigma_k=2.0, sigma_max=4.0)
    controller = Mass((matrix,), horizon=4)
    for leaf in factors.trained().values():
        leaf.grad = torch.ones_like(leaf)
    report = controller.step(10.0, 0)
    assert report.eta_weyl == report.eta_step == (0.0,)
    assert float(factors.S.detach()) == 3.5


def test_s_never_goes_negative(make_problem):
    problem = make_problem("mass")
    for matrix in problem.matrices:
        for leaf in matrix.factors.trained().values():
            leaf.grad = torch.full_like(leaf, 1e3)
    problem.controller.horizon = 1
    problem.controller.step(1e12, 0)
    assert all(float(matrix.factors.S.detach().min()) >= 0 for matrix in problem.matrices)


def test_other_factors_are_refused():
    matrix = TrainedMatrix(name="w", factors=FreeFactors(torch.eye(3), 3), budget=1.0, sigma_k=1.0, sigma_max=1.0)
    with pytest.raises(TypeError, match="Cayley chart"):
        Mass((matrix,), horizon=5)
