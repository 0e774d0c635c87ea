"""What every controller promises, over all of the registry (MATH.md section 8)."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geonb.errors import InputError
from geonb.train.controllers.registry import CONTROLLERS, make_controller, make_factors

BOUNDED = [("frank-wolfe", "one"), ("frank-wolfe", "two"), ("mass", "one"), ("mass-layer", "one")]
EVERY = [*BOUNDED, ("adamw", "one"), ("muon", "one"), ("scaled-gd", "one")]


def test_the_registry_names_every_controller_once():
    assert list(CONTROLLERS) == ["frank-wolfe", "mass", "mass-layer", "adamw", "muon", "scaled-gd"]
    assert all(kind.name == name for name, kind in CONTROLLERS.items())


@pytest.mark.parametrize("name", ["", "sgd", "Frank-Wolfe"])
def test_an_unknown_name_is_answered_with_the_allowed_ones(name):
    allowed = "frank-wolfe, mass, mass-layer, adamw, muon, scaled-gd"
    with pytest.raises(InputError, match=allowed):
        make_controller(name, (), horizon=3)
    with pytest.raises(InputError, match=allowed):
        make_factors(name, basis=torch.eye(2), in_features=2, out_features=2, rank=2, budget=1.0)


def test_unknown_sides_are_refused():
    with pytest.raises(InputError, match="one and two"):
        make_factors(
            "frank-wolfe", basis=torch.eye(2), in_features=2, out_features=2, rank=2, budget=1.0, sides="three"
        )


@pytest.mark.parametrize(("name", "sides"), EVERY)
def test_nothing_changes_before_the_first_step(make_problem, name, sides):
    problem = make_problem(name, sides=sides)
    assert all(not change.any() for change in problem.changes())
    for adapter, hidden in zip(problem.adapters, problem.inputs, strict=True):
        assert torch.equal(adapter(hidden), adapter.base(hidden))


@pytest.mark.parametrize(("name", "sides"), BOUNDED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(
    seed=st.integers(0, 10_000),
    budget=st.floats(1e-3, 1e3),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    horizon=st.integers(1, 12),
)
@settings(max_examples=15, deadline=None)
def test_the_budget_holds_after_every_step(make_problem, name, sides, dtype, seed, budget, scale, horizon):
    problem = make_problem(name, sides=sides, seed=seed, budget=budget, scale=scale, horizon=horizon, dtype=dtype)
    for step in range(horizon):
        report = problem.step(step)
        for matrix, change in zip(problem.matrices, problem.changes(), strict=True):
            norm = float(torch.linalg.matrix_norm(change, 2))
            assert norm <= budget
            assert matrix.factors.product_norm() == pytest.approx(norm, rel=1e-6, abs=1e-9 * budget)
        assert report.gap >= 0 and report.gradient_norm >= 0
        for ceiling, sps, weyl, taken in zip(
            report.eta_ceiling, report.eta_sps, report.eta_weyl, report.eta_step, strict=True
        ):
            assert 0 <= taken <= min(ceiling, sps, weyl)
            if name == "frank-wolfe":
                assert taken / budget <= 1


@pytest.mark.parametrize(("name", "sides"), EVERY)
def test_a_restored_controller_goes_on_to_the_bit(make_problem, name, sides):
    whole = make_problem(name, sides=sides)
    first, second = make_problem(name, sides=sides), make_problem(name, sides=sides)
    for step in range(4):
        whole.step(step)
        first.step(step)
    whole.controller.observe_validation(1.0)
    first.controller.observe_validation(1.0)
    # what a checkpoint holds: copies of the leaves and of the controller's tensors
    leaves = {key: leaf.detach().clone() for key, leaf in first.leaves().items()}
    state = copy.deepcopy(first.controller.state())
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    with torch.no_grad():
        for key, leaf in second.leaves().items():
            leaf.copy_(leaves[key])
    second.controller.restore(state)
    for problem in (whole, second):
        problem.controller.observe_validation(2.0)
    reports = [[problem.step(step) for step in range(4, 9)] for problem in (whole, second)]
    assert reports[0] == reports[1]
    for key, leaf in whole.leaves().items():
        assert torch.equal(leaf, second.leaves()[key])


@pytest.mark.parametrize(("name", "sides"), EVERY)
def test_a_leaf_without_a_gradient_is_no_error(make_problem, name, sides):
    problem = make_problem(name, sides=sides)
    report = problem.controller.step(1.0, 0)
    assert report.gradient_norm == 0
    assert all(not change.any() for change in problem.changes())


@pytest.mark.parametrize(("name", "sides"), EVERY)
def test_directions_cover_every_leaf(make_problem, name, sides):
    problem = make_problem(name, sides=sides)
    gradients = {key: torch.ones_like(leaf) for key, leaf in problem.leaves().items()}
    found = problem.controller.direction(gradients)
    assert list(found) == list(problem.leaves())
    slope = sum(float((gradients[key] * move).sum()) for key, move in found.items())
    assert slope < 0
