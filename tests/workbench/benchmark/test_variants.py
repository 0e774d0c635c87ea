"""The forms of frank-wolfe that the product does not use: each against a computation of its own, all inside the ball."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geonb.adapters.factors import OneSidedFactors, TwoSidedFactors
from geonb.train.controllers.base import TrainedMatrix
from geonb.train.controllers.frank_wolfe import FrankWolfe
from geonb.workbench.benchmark.variants import (
    Variant,
    confirmed,
    singular,
    weighted_vertex,
)

T = 60
FORMS = [
    {"power": 0.25},
    {"power": 1.0},
    {"confirm": "agreement"},
    *({"decay": name} for name in ("constant", "cosine", "anytime")),
    *({"memory": name} for name in ("anytime", "noise")),
    {"average": "schedule-free"},
    {"polyak": 0.1},
    {"confirm": "agreement", "decay": "anytime", "memory": "anytime", "average": "schedule-free", "power": 0.5},
]
forms = pytest.mark.parametrize("form", FORMS, ids=lambda form: " ".join(f"{k}={v}" for k, v in form.items()))
seeds = st.integers(min_value=0, max_value=2**32 - 1)


def one_sided(out=12, rank=7, fan_in=10, budget=2.0):
    basis = torch.linalg.qr(torch.randn(fan_in, rank, generator=torch.Generator().manual_seed(1)))[0].T
    factors = OneSidedFactors(basis.contiguous(), out, budget=budget)
    return TrainedMatrix(name="w", factors=factors, budget=budget, sigma_k=1.0, sigma_max=3.0)


def leaf(matrix, name="B"):
    return matrix.factors.trained()[name]


def drive(controller, matrix, gradients, losses=None):
    """Give the controller each gradient as the one of its step; returns the reports."""
    found = []
    for number, gradient in enumerate(gradients):
        leaf(matrix).grad = torch.as_tensor(gradient, dtype=torch.float32).clone()
        found.append(controller.step(5.0 if losses is None else losses[number], number))
    return found


def draws(number, shape=(12, 7), *, signal=None, seed=0):
    made = np.random.default_rng(seed).standard_normal((number, *shape))
    return made if signal is None else made + signal


def numpy_norm(tensor):
    return np.linalg.norm(tensor.detach().double().numpy(), 2)


# -- the vertex ---------------------------------------------------------------------------------------------------------


@given(seeds, st.integers(1, 9), st.integers(1, 9), st.floats(-20, 20))
def test_a_weighted_vertex_is_what_numpys_svd_says_and_lies_in_the_unit_ball(seed, rows, columns, size):
    random = np.random.default_rng(seed)
    matrix = random.standard_normal((rows, columns)) * 10.0**size
    weights = random.random(min(rows, columns))
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    given_ = torch.from_numpy(matrix)
    found_values, vectors = singular(given_)
    vertex = weighted_vertex(given_, found_values, vectors, torch.from_numpy(weights)).numpy()
    assert np.linalg.norm(vertex, 2) <= 1 + 1e-6
    assert found_values.numpy() == pytest.approx(values, rel=1e-4, abs=1e-7 * values[0])
    # singular vectors are only defined as far as the gaps of the spectrum let them
    gaps = np.abs(np.diff(values)).min(initial=np.inf) / values[0]
    if gaps > 1e-3 and values[-1] > 1e-3 * values[0]:
        assert vertex == pytest.approx((left * weights) @ right, abs=1e-6)


@given(seeds, st.integers(1, 8), st.integers(1, 8))
def test_a_direction_that_is_round_off_is_no_direction(seed, rows, columns):
    # of rank one: the vertex may have one direction only, whatever the weights are
    random = np.random.default_rng(seed)
    matrix = torch.from_numpy(np.outer(random.standard_normal(rows), random.standard_normal(columns)))
    values, vectors = singular(matrix)
    vertex = weighted_vertex(matrix, values, vectors, torch.ones(min(rows, columns))).numpy()
    assert np.linalg.svd(vertex, compute_uv=False) == pytest.approx([1.0] + [0.0] * (min(rows, columns) - 1), abs=1e-6)


@pytest.mark.parametrize(("power", "share"), [(0.25, 0.1**0.25), (0.5, 0.1**0.5), (1.0, 0.1)])
def test_the_power_lies_between_the_polar_factor_and_the_gradient(power, share):
    matrix = one_sided(out=2, rank=2, fan_in=4)
    controller = Variant((matrix,), horizon=T, power=power)
    drive(controller, matrix, [np.diag([1.0, 0.1])])
    # B started at zero: what it is now is minus the vertex, times the length of the step
    assert (-leaf(matrix) / -leaf(matrix)[0, 0]).abs().detach().numpy() == pytest.approx(np.diag([1, share]), abs=1e-5)


# -- what a second look says of the directions ----------------------------------------------------------------------------


def test_a_direction_has_the_weight_one_where_both_looks_agree_and_none_where_they_do_not():
    own = torch.tensor([4.0, 4.0, 4.0, 4.0, 4.0, 0.0])
    fresh = torch.tensor([4.0, 8.0, 0.0, -4.0, 1.0, 1.0])
    assert confirmed(own, fresh).tolist() == [1.0, 1.0, 0.0, 0.0, 0.25, 0.0]


def test_half_of_the_last_gradient_confirms_half_of_every_direction_of_it():
    # already at the second step, where the moment is not yet a whole mean
    one = draws(1, seed=6)[0]
    matrix = one_sided()
    controller = Variant((matrix,), horizon=T, confirm="agreement")
    drive(controller, matrix, [one, one / 2])
    assert controller.weights["w/B"].tolist() == pytest.approx([0.5] * 7, rel=1e-4)


def test_equal_gradients_are_confirmed_in_every_direction():
    constant = draws(1, seed=3)[0]
    matrix = one_sided()
    controller = Variant((matrix,), horizon=T, confirm="agreement")
    drive(controller, matrix, [constant] * 50)
    assert float(controller.weights["w/B"].min()) > 1 - 1e-4


def test_gradients_that_are_noise_alone_are_not_confirmed():
    matrix = one_sided(out=60, rank=40, fan_in=50)
    controller = Variant((matrix,), horizon=T, confirm="agreement")
    seen = []
    for _ in range(3):
        drive(controller, matrix, draws(40, (60, 40), seed=len(seen)))
        seen.append(float(controller.weights["w/B"].mean()))
    assert np.mean(seen) < 0.15


def test_a_signal_of_rank_two_in_noise_is_found_as_two_directions():
    left, right = (
        np.linalg.qr(np.random.default_rng(n).standard_normal((size, 2)))[0] for n, size in ((1, 60), (2, 40))
    )
    matrix = one_sided(out=60, rank=40, fan_in=50)
    controller = Variant((matrix,), horizon=T, confirm="agreement")
    drive(controller, matrix, draws(60, (60, 40), signal=20 * left @ right.T))
    weights = controller.weights["w/B"]
    assert float(weights[:2].min()) > 0.8 and float(weights[2:].mean()) < 0.2


def test_what_a_second_look_says_of_a_direction_does_not_see_the_gradient_it_was_taken_from():
    # one huge gradient, then its negative: the second look says no, where the same gradient would say yes
    one = draws(1, seed=5)[0]
    matrix = one_sided()
    controller = Variant((matrix,), horizon=T, confirm="agreement")
    drive(controller, matrix, [one, -one])
    assert float(controller.weights["w/B"].max()) == 0.0


# -- the pace -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [1, 5, 30, 400])
def test_the_step_without_a_horizon_meets_that_of_a_run_which_is_now_half_over(half):
    # after step number `half - 1`, `half` steps were made: a run of 2 half steps stands at its middle
    anytime = Variant((one_sided(),), horizon=7, decay="anytime")
    known = FrankWolfe((one_sided(),), horizon=2 * half)
    assert anytime._fraction(half - 1) == pytest.approx(known._fraction(half))


def test_the_step_without_a_horizon_does_not_know_one():
    made = []
    for horizon in (5, 500):
        matrix = one_sided()
        drive(
            Variant((matrix,), horizon=horizon, decay="anytime", memory="anytime", average="schedule-free"),
            matrix,
            draws(5),
        )
        made.append(leaf(matrix).detach().clone())
    assert torch.equal(*made)


@pytest.mark.parametrize(("decay", "total"), [("linear", 0.5), ("cosine", 0.5), ("constant", 1.0)])
def test_how_far_a_run_can_go_in_all(decay, total):
    controller = Variant((one_sided(),), horizon=1000, decay=decay)
    assert sum(controller._fraction(n) for n in range(1000)) == pytest.approx(total * math.sqrt(1000), rel=2e-3)


# -- the memory ---------------------------------------------------------------------------------------------------------


def test_the_memory_without_a_horizon_is_that_of_the_steps_so_far():
    matrix = one_sided()
    controller = Variant((matrix,), horizon=T, memory="anytime", momentum=0.5)
    seen = []
    for number, gradient in enumerate(draws(4)):
        leaf(matrix).grad = torch.as_tensor(gradient, dtype=torch.float32)
        controller.step(5.0, number)
        seen.append(controller.beta)
    assert seen == pytest.approx([0.0, 1 - 2**-0.5, 1 - 3**-0.5, 0.5])


@pytest.mark.parametrize("ratio", [0.5, 4.0])
def test_the_measured_memory_is_as_long_as_the_noise_asks_for(ratio):
    # noise of `ratio` times the signal's energy: the average of 1 + ratio batches has equal parts of both
    signal = np.full((12, 7), 1.0)
    noisy = signal + math.sqrt(ratio) * draws(400)
    matrix = one_sided()
    controller = Variant((matrix,), horizon=400, memory="noise")
    drive(controller, matrix, noisy)
    assert controller.beta == pytest.approx(1 - 2 / (2 + ratio), abs=0.05)


def test_gradients_without_a_signal_are_averaged_over_all_steps():
    matrix = one_sided()
    controller = Variant((matrix,), horizon=T, memory="noise")
    one = draws(1)[0]
    drive(controller, matrix, [one, -one] * 10)
    assert controller.beta == pytest.approx(1 - 1 / 20)


# -- the average ----------------------------------------------------------------------------------------------------------


def test_the_average_weighs_the_points_by_their_number():
    mixed = 0.9  # gradients are taken at 0.1 of the point and 0.9 of the average (Defazio et al. 2024)
    matrix = one_sided()
    controller = Variant((matrix,), horizon=T, average="schedule-free")
    # the gradients here do not depend on where they are taken, so the points are those of the product
    plain = one_sided()
    product = FrankWolfe((plain,), horizon=T)
    points = [leaf(matrix).detach().clone()]
    for number, gradient in enumerate(draws(6)):
        leaf(matrix).grad = torch.as_tensor(gradient, dtype=torch.float32)
        controller.step(5.0, number)
        here = leaf(matrix).detach().clone()
        controller.evaluating(True)
        mean = leaf(matrix).detach().clone()
        leaf(plain).grad = torch.as_tensor(gradient, dtype=torch.float32)
        product.step(5.0, number)
        points.append(leaf(plain).detach().clone())
        assert torch.allclose(here, (1 - mixed) * points[-1] + mixed * mean, rtol=0, atol=1e-6)
        weights = range(1, len(points))
        expected = sum(weight * point for weight, point in zip(weights, points[1:], strict=True)) / sum(weights)
        assert torch.allclose(mean, expected, rtol=0, atol=1e-5)
        controller.evaluating(True)
        assert torch.equal(leaf(matrix), mean)
        controller.evaluating(False)
        assert torch.allclose(leaf(matrix), here, rtol=0, atol=1e-6)


# -- all of them ----------------------------------------------------------------------------------------------------------


def test_with_nothing_exchanged_it_is_the_product_to_the_bit():
    one, other = one_sided(), one_sided()
    drive(Variant((one,), horizon=T), one, draws(10))
    drive(FrankWolfe((other,), horizon=T), other, draws(10))
    assert torch.equal(leaf(one), leaf(other))


def test_a_share_of_the_polyak_bound_is_that_share_where_it_binds():
    whole, third = (one_sided(budget=50.0) for _ in range(2))
    gradients = draws(3, signal=30.0)
    # small losses under a large slope: the bound is the smallest of the three
    reports = [
        drive(Variant((matrix,), horizon=T, polyak=share), matrix, gradients, losses=[0.1, 0.1, 0.1])
        for matrix, share in ((whole, 1.0), (third, 1 / 3))
    ]
    assert all(report.binding() == ("sps",) for report in (*reports[0], reports[1][0]))
    assert reports[1][0].eta_step[0] == pytest.approx(reports[0][0].eta_step[0] / 3)
    assert numpy_norm(leaf(third)) < numpy_norm(leaf(whole))


@forms
@pytest.mark.parametrize("gradients", [draws(60), 1e6 * draws(60), np.zeros((60, 12, 7)), np.ones((60, 12, 7))],
                         ids=["noise", "huge", "zero", "rank one"])  # fmt: skip
def test_every_point_and_every_average_stays_in_the_ball(form, gradients):
    matrix = one_sided()
    controller = Variant((matrix,), horizon=20, unit=3.0, **form)  # goes on for three horizons, three times as fast
    for number, gradient in enumerate(gradients):
        leaf(matrix).grad = torch.as_tensor(gradient, dtype=torch.float32)
        controller.step(5.0, number)
        assert numpy_norm(leaf(matrix)) <= matrix.budget
        controller.evaluating(True)
        assert numpy_norm(leaf(matrix)) <= matrix.budget
        controller.evaluating(False)


@forms
def test_scaling_the_loss_changes_nothing(form):
    made = []
    for scale in (1.0, 1024.0):  # a power of two, so that nothing is rounded otherwise
        matrix = one_sided()
        drive(Variant((matrix,), horizon=T, **form), matrix, scale * draws(20), losses=[5.0 * scale] * 20)
        made.append(leaf(matrix).detach().clone())
    assert torch.allclose(*made, rtol=1e-4, atol=1e-6)


@forms
def test_a_run_that_is_taken_up_again_goes_on_as_if_it_had_not_stopped(form):
    gradients = draws(20)
    whole = one_sided()
    drive(Variant((whole,), horizon=T, **form), whole, gradients)

    matrix = one_sided()
    first = Variant((matrix,), horizon=T, **form)
    drive(first, matrix, gradients[:9])
    second = Variant((matrix,), horizon=T, **form)
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    for number in range(9, 20):
        leaf(matrix).grad = torch.as_tensor(gradients[number], dtype=torch.float32)
        second.step(5.0, number)
    assert torch.equal(leaf(matrix), leaf(whole))


@forms
def test_both_factors_of_a_two_sided_adapter_move(form):
    basis = torch.linalg.qr(torch.randn(10, 4, generator=torch.Generator().manual_seed(1)))[0].T.contiguous()
    factors = TwoSidedFactors(basis, 12, budget=2.0)
    matrix = TrainedMatrix(name="w", factors=factors, budget=2.0, sigma_k=1.0, sigma_max=3.0)
    before = {name: tensor.detach().clone() for name, tensor in factors.trained().items()}
    controller = Variant((matrix,), horizon=T, **form)
    for number in range(5):
        for index, tensor in enumerate(factors.trained().values()):
            tensor.grad = torch.as_tensor(draws(1, tuple(tensor.shape), seed=index)[0], dtype=torch.float32)
        controller.step(5.0, number)
    assert all(not torch.equal(before[name], tensor) for name, tensor in factors.trained().items())
    assert factors.product_norm() <= 2.0
