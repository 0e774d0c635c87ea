"""Matrices computed together are the matrices computed apart; what is kept from step to step is forgotten when it must be."""

import numpy as np
import pytest
import torch

from geonb.coordinates.configuration import Configuration, preset
from geonb.coordinates.known import Known
from geonb.coordinates.layer_cores import bounded_cores, together
from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.phases import weights_of

TEXT = torch.randint(0, 512, (2, 18), generator=torch.Generator().manual_seed(0))


def alive(size, **changes):
    model = CoordinateModel(Configuration.from_dict({**preset("tiny").to_dict(), **changes}), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in model.uses:
            for place, linear in enumerate(layer.changes.values()):
                # U and V no longer orthonormal, and each matrix of another size: some bind, some do not
                linear.factors.left.mul_(1 + 0.3 * torch.rand(linear.factors.left.shape, generator=generator))
                linear.factors.cores.normal_(std=size * 4.0**-place, generator=generator)
    return model


@pytest.mark.parametrize("size", [1e-4, 0.02, 0.3])
def test_cores_together_are_the_cores_one_by_one(size):
    model = alive(size)
    phases = [torch.rand(2, 5, 8, generator=torch.Generator().manual_seed(n)) * 6 for n in range(2)]
    weights = [weights_of(one) for one in phases]
    rows = [list(layer.changes.values()) for layer in model.uses]
    found = bounded_cores(rows, weights, Known())
    assert found.shape == (2, 2, 5, 4, 4, 4)
    for number, row in enumerate(rows):
        for place, linear in enumerate(row):
            torch.testing.assert_close(
                found[number, :, :, place], linear.bounded_core(weights[number]), rtol=1e-5, atol=1e-7
            )
            change = (linear.factors.left @ found[number, :, :, place] @ linear.factors.right.T).detach().numpy()
            assert np.linalg.norm(change, 2, axis=(-2, -1)).max() <= linear.allowed() * (1 + 1e-6)


@pytest.mark.parametrize("size", [1e-4, 0.02, 0.3])
def test_a_pass_without_a_graph_says_what_one_with_a_graph_says(size):
    model = alive(size).eval()
    with_graph = model(TEXT).logits.detach()
    with torch.no_grad():
        torch.testing.assert_close(model(TEXT).logits, with_graph, rtol=1e-5, atol=1e-6)
    with torch.inference_mode():
        torch.testing.assert_close(model(TEXT).logits, with_graph, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["token", "sequence"])
def test_every_length_of_text_has_the_same_logits_to_the_bit_where_the_budget_binds(mode):
    model = alive(0.3).eval()
    theta = torch.randn(2, 18 if mode == "token" else 1, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        whole = model(TEXT, theta=theta, mode=mode).logits
        for place in (1, 5, 17):
            changed = TEXT.clone()
            changed[:, place:] = (changed[:, place:] + 3) % 512
            later = theta.clone()
            if mode == "token":
                later[:, place:] *= -2
            assert torch.equal(model(changed, theta=later, mode=mode).logits[:, :place], whole[:, :place])


def test_what_was_asked_for_in_inference_mode_serves_a_gradient_afterwards():
    model = alive(0.3).eval()
    with torch.inference_mode():
        model(TEXT)
    for one in model.parameters():
        one.requires_grad_(False)
    theta = torch.randn(2, 1, 64).requires_grad_(True)
    model(TEXT, theta=theta, mode="sequence").logits.sum().backward()
    assert theta.grad is not None and theta.grad.abs().sum() > 0


def test_a_model_made_in_inference_mode_is_read_and_follows_its_weights():
    with torch.inference_mode():
        model = alive(0.3).eval()
        first = model(TEXT).logits
        torch.testing.assert_close(first, alive(0.3).eval()(TEXT).logits, rtol=1e-5, atol=1e-6)
        for layer in model.uses:
            for linear in layer.changes.values():
                linear.factors.cores.zero_()
        torch.testing.assert_close(model(TEXT).logits, model(TEXT, modulate=False).logits, rtol=1e-5, atol=1e-6)


def test_what_is_known_is_computed_again_when_a_tensor_changes_and_not_before():
    known, calls = Known(), []
    tensor = torch.ones(3)

    def total():
        calls.append(1)
        return tensor.sum()

    assert (
        float(known.once("sum", [tensor], total)) == float(known.once("sum", [tensor], total)) == 3 and len(calls) == 1
    )
    tensor.add_(1)
    assert float(known.once("sum", [tensor], total)) == 6 and len(calls) == 2
    known.clear()
    known.once("sum", [tensor], total)
    assert len(calls) == 3


def test_matrices_with_literal_factors_or_a_core_of_their_own_are_not_put_together():
    literal = CoordinateModel(Configuration.from_dict({**preset("tiny").to_dict(), "factors": "independent"}))
    assert not together(list(literal.uses[0].changes.values()))
    model = alive(0.02).eval()
    linears = list(model.uses[0].changes.values())
    assert together(linears)
    asked = []
    own = linears[0].bounded_core
    linears[0].bounded_core = lambda weights: asked.append(1) or own(weights)
    assert not together(linears)
    with torch.no_grad():
        model(TEXT)
    assert asked
