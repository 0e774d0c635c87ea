"""What is remembered of tensors is theirs as they are now, however they were changed and whoever had their place before."""

import copy

import numpy as np
import pytest
import torch

from geonb.coordinates.known import Known
from tests.coordinates.test_layer_cores import TEXT, alive


def summed(known, tensors):
    return float(known.once("sum", tensors, lambda: sum(one.sum() for one in tensors)))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_a_step_of_an_optimiser_is_seen_also_where_it_leaves_no_trace_on_the_tensor(fused, training):
    model = alive(0.3).train(training)
    factors = model.uses[0].changes["q"].factors
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05, fused=fused)
    with torch.no_grad():
        before = model(TEXT).logits
    model(TEXT).logits.square().mean().backward()
    with torch.no_grad():
        model(TEXT)  # between the gradient and the step too
    version = factors.cores._version
    optimiser.step()
    if fused:
        assert factors.cores._version == version  # else the test shows nothing
    with torch.no_grad():
        after = model(TEXT).logits
        fresh = alive(0.3).train(training)
        fresh.load_state_dict(model.state_dict())
        torch.testing.assert_close(after, fresh(TEXT).logits, rtol=1e-5, atol=1e-6)
    assert (after - before).abs().max() > 1e-3
    with torch.no_grad():
        for layer in model.uses:
            for linear in layer.changes.values():
                norm = np.linalg.norm(linear.base.weight.detach().double().numpy(), 2)
                assert linear.allowed() == pytest.approx(linear.budget * norm, rel=1e-6)


def test_what_is_frozen_is_not_computed_again_because_others_are_trained():
    known, calls, frozen = Known(), [], torch.ones(3)
    other = torch.nn.Parameter(torch.ones(2))
    optimiser = torch.optim.SGD([other], lr=0.1)
    for _ in range(3):
        known.once("sum", [frozen], lambda: calls.append(1))
        other.grad = torch.ones(2)
        optimiser.step()
    assert len(calls) == 1


def test_a_tensor_in_the_place_of_one_that_is_gone_is_another():
    known = Known()
    for value in range(50):
        tensor = torch.full((3,), float(value))
        assert summed(known, [tensor]) == 3 * value
        del tensor


def test_a_copy_of_a_model_remembers_nothing_of_the_first_ones():
    model = alive(0.3).eval()
    with torch.no_grad():
        first = model(TEXT).logits
        twin = copy.deepcopy(model)
        for layer in model.uses:
            for linear in layer.changes.values():
                linear.factors.cores.zero_()
        torch.testing.assert_close(twin(TEXT).logits, first, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(model(TEXT).logits, model(TEXT, modulate=False).logits, rtol=1e-5, atol=1e-6)
