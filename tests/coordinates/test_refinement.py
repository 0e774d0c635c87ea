"""A refinement never makes the seen text less likely, and does nothing where it is asked to."""

import pytest
import torch
from torch.nn import functional

from geonb.coordinates.refinement import refine
from geonb.errors import InputError
from tests.coordinates.test_model import TEXT, alive


def scored(model, theta):
    with torch.no_grad():
        logits = model(TEXT, theta=theta, mode="sequence").logits[:, :-1]
    return functional.cross_entropy(logits.flatten(0, 1), TEXT[:, 1:].flatten()).item()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_objective_falls_at_every_step_and_the_refined_theta_is_the_one_that_was_scored(seed):
    model = alive(seed=seed, budget=3.0)
    with torch.no_grad():
        start = model.predict(model.embedding(TEXT), "sequence")
    found = refine(model, TEXT, steps=4)
    assert found.accepted >= 1 and found.objective == sorted(found.objective, reverse=True)
    drift = float((found.theta - start).square().sum(dim=(1, 2)).mean() / 64)
    assert found.objective[-1] == pytest.approx(scored(model, found.theta) + 0.1 * drift, rel=1e-5)
    assert found.objective[0] == pytest.approx(scored(model, start), rel=1e-6)
    # no gradient is left anywhere, and the length is kept
    assert all(one.grad is None for one in model.parameters())
    torch.testing.assert_close(found.theta.norm(dim=-1), torch.full((2, 1), 8.0))


def test_no_steps_and_an_endless_penalty_leave_the_prediction():
    model = alive()
    with torch.no_grad():
        start = model.predict(model.embedding(TEXT), "sequence")
    assert torch.equal(refine(model, TEXT, steps=0).theta, start)
    far = refine(model, TEXT, steps=3, penalty=1e9).theta
    assert float((far - start).norm() / start.norm()) < 1e-2


def test_a_model_that_theta_cannot_move_is_left_alone():
    from geonb.coordinates.configuration import preset
    from geonb.coordinates.model import CoordinateModel

    found = refine(CoordinateModel(preset("tiny")), TEXT)
    assert found.accepted == 0


def test_misuse_is_told():
    with pytest.raises(InputError, match="needs at least two"):
        refine(alive(), TEXT[:, :1])
    with pytest.raises(InputError, match="none below zero"):
        refine(alive(), TEXT, steps=-1)
