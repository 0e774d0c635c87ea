"""No pair of phases, drawn or searched for, moves a weight by more than the certified bound."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geonb.coordinates.lipschitz import HALF_STEP, ChangeBounds, pair_norms, small_cores, stack_norm
from geonb.coordinates.phases import weights_of
from geonb.coordinates.quantise import quantise_phases, restore_phases
from geonb.errors import InputError
from tests.coordinates.test_model import alive


def sized(size, seed=0):
    """A model whose cores are `size` times normal ones: small ones lie inside the budget, large ones far outside."""
    model = alive(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in model.uses:
            for linear in layer.changes.values():
                cores = linear.factors.cores
                cores.copy_(torch.randn(cores.shape, generator=generator) * size)
    return model


def differences(model, first, second):
    """||dW(a) - dW(b)||_2 / beta by whole weight matrices in float64: (layers, matrices, slots)."""
    found = []
    with torch.no_grad():
        for layer, a, b in zip(model.uses, first, second, strict=True):
            row = []
            for linear in layer.changes.values():
                sides = [linear.dense_change(weights_of(one)).double() for one in (a, b)]
                norm = torch.linalg.matrix_norm(linear.base.weight.double(), ord=2)
                row.append(torch.linalg.matrix_norm(sides[0] - sides[1], ord=2) / (linear.budget * norm))
            found.append(torch.stack(row))
    return torch.stack(found)


@settings(deadline=None)
@given(st.integers(0, 500), st.floats(-3, 0.5), st.floats(-4, 0.5))
def test_no_drawn_phases_move_a_weight_by_more_than_the_bound(seed, size, step):
    model = sized(10**size, seed % 5)
    generator = torch.Generator().manual_seed(seed)
    first = [torch.randn(4, 8, generator=generator) * 5 for _ in model.uses]
    second = [one + 10**step * torch.randn(one.shape, generator=generator) for one in first]
    moved = differences(model, first, second).amax(dim=-1)
    assert (moved <= ChangeBounds(model).between(first, second) + 1e-6).all()


@pytest.mark.parametrize("size", [0.002, 0.02, 0.2, 2.0])
def test_phases_that_are_searched_for_do_not_break_the_bound_either(size):
    model = sized(size)
    bounds = ChangeBounds(model)
    generator = torch.Generator().manual_seed(7)
    first = [torch.randn(1, 8, generator=generator) * 3 for _ in model.uses]
    second = [one + 0.05 * torch.randn(one.shape, generator=generator) for one in first]
    best = torch.zeros(2, 4)
    for _ in range(60):  # climb the ratio by random steps, the best one kept
        tried = [[one + 0.03 * torch.randn(one.shape, generator=generator) for one in side] for side in (first, second)]
        ratio = differences(model, *tried)[..., 0] / bounds.between(*tried).clamp_min(1e-12)
        if ratio.mean() > best.mean():
            best, (first, second) = ratio, tried
    assert (best <= 1 + 1e-5).all()
    assert best.max() > 0.2  # and it is no bound that anything meets


@pytest.mark.parametrize("size", [0.002, 0.2])
def test_eight_bit_phases_stay_within_what_is_certified_of_every_coordinate(size):
    model = sized(size)
    bounds = ChangeBounds(model)
    phases = [torch.randn(200, 8, generator=torch.Generator().manual_seed(n)) * 30 for n in range(2)]
    rounded = [restore_phases(quantise_phases(one)) for one in phases]
    moved = differences(model, phases, rounded)
    at_these = bounds.between(phases, rounded)
    assert (moved.amax(-1) <= at_these + 1e-6).all()
    # what holds for every coordinate holds for the worst that was drawn, and is the looser
    assert (at_these <= bounds.of_rounding(HALF_STEP * 1.001) * (1 + 1e-4)).all()


def test_the_norms_of_cores_are_those_of_whole_matrices():
    model = sized(0.1)
    linear = model.uses[1].changes["gate"]
    factors = linear.factors
    small = small_cores(linear)
    with torch.no_grad():
        whole = (factors.left.double() @ factors.cores.double() @ factors.right.double().T).unbind()
    pairs = [
        min(torch.linalg.matrix_norm(torch.cat([a, b], dim=d), ord=2) for d in (0, 1))
        for a, b in zip(whole[:8], whole[8:], strict=True)
    ]
    torch.testing.assert_close(pair_norms(small), torch.stack(pairs), rtol=1e-9, atol=0)
    stacked = min(torch.linalg.matrix_norm(torch.cat(whole, dim=d), ord=2) for d in (0, 1))
    torch.testing.assert_close(stack_norm(small), stacked, rtol=1e-9, atol=0)


def test_a_turn_by_two_pi_is_no_move_and_nothing_is_further_than_two_budgets():
    model = sized(3.0)
    bounds = ChangeBounds(model)
    first = [torch.randn(1, 8, dtype=torch.float64) for _ in model.uses]
    assert bounds.between(first, [one + 2 * math.pi for one in first]).max() < 1e-4
    assert bounds.between(first, [one + math.pi for one in first]).max() <= 2
    assert bounds.of_rounding().max() <= 2


def test_no_change_and_no_base_have_a_bound_of_zero():
    model = sized(0.0)
    first, second = ([torch.randn(1, 8) for _ in model.uses] for _ in range(2))
    assert ChangeBounds(model).between(first, second).max() == 0
    model = sized(0.1)
    with torch.no_grad():
        model.uses[0].block.q.weight.zero_()
    bounds = ChangeBounds(model)
    assert bounds.between(first, second)[0, 0] == 0 and bounds.of_rounding()[0, 0] == 0
    assert differences(model, first, second)[0, 1:].max() > 0


def test_literal_factors_have_no_small_core():
    with pytest.raises(InputError, match="literal factors"):
        ChangeBounds(alive(factors="independent"))
