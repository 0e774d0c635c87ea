"""Factorisation, noise scales, residual factors and tables of layers, against what is known of them."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from geonb.claims.experiments.cayley import cayley_run
from geonb.claims.experiments.critical_batch import _peak, fit, measure_point, plain_ratio, scale_of
from geonb.claims.experiments.factorisation import errors, make_problem
from geonb.claims.experiments.layer_values import layer_table
from geonb.claims.experiments.residual_factors import (
    block_names,
    branch_norms,
    distance_from_one,
    documented_factors,
    power_norm,
    scaled_blocks,
)
from geonb.claims.experiments.short_runs import ShortRuns
from geonb.errors import InputError
from geonb.workbench.benchmark.arm import adamw

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def test_a_problem_has_the_condition_number_and_the_distance_that_were_asked_for():
    problem = make_problem(100.0, 3)
    values = np.linalg.svd(problem.matrix, compute_uv=False)
    assert values[0] / values[4] == pytest.approx(100) and values[5] < 1e-12
    left = np.linalg.svd(problem.matrix)[0][:, :5] * np.sqrt(values[:5])
    # up to the signs of singular vectors: the distance of the column spaces' factors
    gram = problem.left @ problem.left.T - left @ left.T
    assert 0 < np.linalg.norm(gram, 2) < 0.3


def test_one_step_of_either_method_is_the_formula():
    problem = make_problem(4.0, 0, shape=(6, 5), rank=2)
    residual = problem.left @ problem.right.T - problem.matrix
    first = np.linalg.norm(residual)
    left = problem.left - 0.5 * residual @ problem.right / np.linalg.norm(problem.matrix, 2)
    right = problem.right - 0.5 * residual.T @ problem.left / np.linalg.norm(problem.matrix, 2)
    assert errors(problem, scaled=False, most=1)[1] == pytest.approx(
        np.linalg.norm(left @ right.T - problem.matrix) / first
    )
    left = problem.left - 0.5 * residual @ np.linalg.pinv(problem.right).T
    right = problem.right - 0.5 * residual.T @ np.linalg.pinv(problem.left).T
    assert errors(problem, scaled=True, most=1)[1] == pytest.approx(
        np.linalg.norm(left @ right.T - problem.matrix) / first
    )


def test_a_large_ridge_makes_scaled_descent_slow_again():
    problem = make_problem(100.0, 0)
    assert len(errors(problem, scaled=True, ridge=1.0, most=300)) == 301
    assert len(errors(problem, scaled=True, most=300)) < 40
    with pytest.raises(InputError, match=r"kappa 0\.5"):
        make_problem(0.5, 0)


def test_the_plain_ratio_saturates_where_the_debiased_scale_does_not():
    rng = np.random.default_rng(0)
    gradients = rng.standard_normal((20, 500))
    gradients[:, 0] += math.sqrt(500 / 200)  # a true scale of 200
    assert plain_ratio(gradients) < 25
    many = rng.standard_normal((4000, 500))
    many[:, 0] += math.sqrt(500 / 200)
    assert scale_of(many).scale == pytest.approx(200, rel=0.2)


def test_a_fit_recovers_the_critical_batch_of_its_own_law():
    critical, most = fit({size: 0.3 / (1 + 12 / size) for size in (1, 4, 16, 64)})
    assert critical == pytest.approx(12, rel=0.01) and most == pytest.approx(0.3, rel=0.01)
    with pytest.raises(InputError, match="all above 0"):
        fit({1: 0.1, 2: 0.1, 4: -1.0})


def test_the_peak_of_a_parabola_in_the_logarithm_is_found_from_either_side():
    for start in (1e-3, 50.0):
        length, height = _peak(lambda length: 3.0 - math.log(length / 0.7) ** 2, start)
        assert length == pytest.approx(0.7, rel=1e-6) and height == pytest.approx(3.0)


def test_a_measured_point_leaves_the_parameters_as_they_were():
    runs = ShortRuns("embedded", "arithmetic", steps=1, n_train=16, n_evaluation=4)
    inputs, seen = runs.inputs(0), {}

    def prepare(attached, plan):
        before = [parameter.detach().clone() for parameter in attached.trained]
        seen["point"] = measure_point(attached, inputs, pad=0, sizes=(1, 4, 16), draws=2, pool=8, held=4, seed=0)
        assert all(torch.equal(a, b) for a, b in zip(before, attached.trained, strict=True))

    runs.run(adamw(1e-3, "8"), 0, prepare=prepare)
    point = seen["point"]
    assert set(point.improvements) == {1, 4, 16} and point.flipped < 1


def test_a_layer_table_puts_each_matrix_in_its_cell():
    targets = [
        SimpleNamespace(name=f"{layer}.{role}", layer=layer, role=role) for layer in (0, 2) for role in ("q", "down")
    ]
    table, rows, columns = layer_table(SimpleNamespace(targets=targets), {"0.q": 1.0, "2.down": 4.0})  # type: ignore[arg-type]
    assert rows == ["layer 0", "layer 2"] and columns == ["q", "down"]
    assert table[0, 0] == 1.0 and table[1, 1] == 4.0 and np.isnan(table[0, 1])
    with pytest.raises(InputError, match="name no matrix"):
        layer_table(SimpleNamespace(targets=targets), {"other": 1.0})  # type: ignore[arg-type]


class Block(nn.Module):
    """x + 0.5 x."""

    def forward(self, hidden_states):
        return hidden_states * 1.5


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Block(), Block()])
        self.weight = nn.Parameter(torch.eye(4))

    def forward(self, input_ids, use_cache=False):
        hidden = self.weight[input_ids]
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


def test_factors_on_blocks_do_what_they_say_and_are_gone_afterwards():
    model, examples = Stack(), [SimpleNamespace(input_ids=[0, 1, 2])]
    paths = block_names(model, 2)
    norms = branch_norms(model, paths, examples)
    assert norms["layers.0"][0] == pytest.approx((1.0, 0.5)) and norms["layers.1"][0] == pytest.approx((1.5, 0.75))
    factors = documented_factors(norms)
    assert factors == pytest.approx({"layers.0": 2.0, "layers.1": 2.0})
    ids = torch.tensor([[0, 1]])
    with scaled_blocks(model, factors):
        assert torch.allclose(model(ids), 4 * model.weight[ids])
        assert distance_from_one(branch_norms(model, paths, examples)) == pytest.approx(1.0)
    assert torch.allclose(model(ids), 2.25 * model.weight[ids])
    with pytest.raises(InputError, match="0 lists of 7 blocks"):
        block_names(model, 7)


def test_power_iterations_from_ones_may_miss_the_norm():
    assert power_norm(torch.tensor([[1.0, -1.0], [1.0, -1.0]])) == 0.0
    assert power_norm(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(3.0, rel=1e-2)
    assert documented_factors({"x": [(1.0, 0.0)]})["x"] == pytest.approx(2**11.5)


def test_a_cayley_run_keeps_its_bound_with_and_without_moments():
    runs = ShortRuns("embedded", "arithmetic", steps=2, n_train=16, n_evaluation=4)
    moved = [cayley_run(runs, 0, rate=0.05, moments=moments) for moments in (True, False)]
    assert moved[0].training[0] == moved[1].training[0] and moved[0].training[1] != moved[1].training[1]
    with pytest.raises(InputError, match="the rate 0"):
        cayley_run(runs, 0, rate=0, moments=True)
