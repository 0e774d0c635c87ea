"""EWC's penalty against an independent Fisher, replay's memory, and updates that earlier tasks cannot feel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from geonb.coordinates.continual.pilot import Perceptron, Teacher
from geonb.coordinates.continual.protection import FISHER_SAMPLES, ElasticPenalty, Memory, Projection, fisher_diagonal


def softmax(z):
    raised = np.exp(z - z.max())
    return raised / raised.sum()


def test_the_fisher_is_the_mean_of_squared_gradients_of_single_questions():
    """Backpropagation through relu and softmax written out in numpy, one question at a time."""
    network, task = Perceptron(1, 0), Teacher(0)
    parameters = network.base_parameters()
    for one in parameters:
        one.requires_grad_(True)
    got = fisher_diagonal(network, task, None, parameters, np.random.default_rng(3))
    first, second = (one.detach().double().numpy() for one in parameters)
    expected = [np.zeros_like(first), np.zeros_like(second)]
    rng = np.random.default_rng(3)
    for _ in range(FISHER_SAMPLES):
        x, labels = task.batch(rng, 1)
        inputs = x[0].double().numpy()
        hidden = np.maximum(first @ inputs, 0)
        wrong = softmax(second @ hidden)
        wrong[int(labels[0])] -= 1
        expected[1] += np.outer(wrong, hidden) ** 2 / FISHER_SAMPLES
        back = (second.T @ wrong) * (hidden > 0)
        expected[0] += np.outer(back, inputs) ** 2 / FISHER_SAMPLES
    for one, two in zip(got, expected, strict=True):
        assert np.allclose(one.numpy(), two, rtol=1e-3, atol=1e-8)


@given(st.lists(st.tuples(st.floats(0, 4), st.floats(-2, 2)), min_size=1, max_size=5), st.floats(-2, 2))
def test_the_penalty_is_the_sum_of_the_tasks_own_parabolas(held, now):
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    penalty = ElasticPenalty([parameter], strength=3.0)
    assert float(penalty().detach()) == 0
    for fisher, place in held:
        with torch.no_grad():
            parameter.fill_(place)
        penalty.remember([torch.tensor([fisher], dtype=torch.float64)])
    with torch.no_grad():
        parameter.fill_(now)
    expected = 1.5 * sum(fisher * (now - place) ** 2 for fisher, place in held)
    assert float(penalty().detach()) == pytest.approx(expected, abs=1e-6)
    # its gradient is what pulls back
    pull = torch.autograd.grad(penalty(), parameter)[0]
    assert float(pull) == pytest.approx(3.0 * sum(fisher * (now - place) for fisher, place in held), abs=1e-6)


def test_a_hundredth_of_the_batches_is_kept_and_one_at_least():
    memory = Memory()
    assert memory.loss(None, None, None) is None  # type: ignore[arg-type]
    memory.keep(0, list(range(300)))
    memory.keep(1, list(range(20)))
    assert [place for place, _ in memory.batches] == [0, 0, 0, 1]


def test_what_is_replayed_is_read_as_the_task_it_came_from():
    memory, told = Memory(), []

    class Listening:
        def loss(self, batch, weights):
            told.append((batch, weights))
            return torch.tensor(1.0)

    memory.keep(2, ["a"])
    memory.loss(Listening(), lambda place: f"as {place}", np.random.default_rng(0))  # type: ignore[arg-type]
    assert told == [("a", "as 2")]


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(0, 99))
def test_a_projected_step_moves_nothing_that_an_earlier_task_reads(count, seed):
    generator = torch.Generator().manual_seed(seed)
    cores = nn.Parameter(torch.randn(6, 2, 2, generator=generator))
    used = torch.randn(count, 6, generator=generator)
    projection = Projection([cores])
    for one in used:
        projection.use(one[None, None])
    before = torch.einsum("kj,jab->kab", used, cores.detach())
    old = cores.detach().clone()
    projection.begin()
    with torch.no_grad():
        cores += torch.randn(6, 2, 2, generator=generator)
    projection.end()
    assert torch.allclose(torch.einsum("kj,jab->kab", used, cores.detach()), before, atol=1e-4)
    # and it moves, as there is room
    assert float((cores.detach() - old).abs().max()) > 1e-3


def test_when_all_directions_are_used_nothing_moves_and_one_used_twice_costs_nothing():
    cores = nn.Parameter(torch.ones(2, 1, 1))
    projection = Projection([cores])
    for row in ([1.0, 0.0], [1.0, 0.0], [1.0, 1.0]):
        projection.use(torch.tensor(row)[None, None])
    assert len(projection.used) == 2
    projection.begin()
    with torch.no_grad():
        cores += 5.0
    projection.end()
    assert torch.allclose(cores.detach(), torch.ones(2, 1, 1), atol=1e-6)
