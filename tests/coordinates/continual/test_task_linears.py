"""FiLM, superposed changes and mixtures of LoRAs against the same sums written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from geonb.coordinates.continual.task_linears import (
    FilmLinear,
    MixtureFactors,
    StackedFactors,
    SuperposedLinear,
    contexts,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_scale_and_shift_start_as_no_change_and_are_then_what_the_formula_says():
    linear, x = nn.Linear(3, 4, bias=False), torch.randn(2, 3, generator=generator())
    film = FilmLinear(linear)
    assert torch.equal(film(x), linear(x)) and film.weight is linear.weight
    with torch.no_grad():
        film.scale.copy_(torch.tensor([0.5, 0.0, -1.0, 1.0]))
        film.shift.fill_(2.0)
    expected = linear(x).detach().numpy() * np.array([1.5, 1.0, 0.0, 2.0]) + 2.0
    assert np.allclose(film(x).detach().numpy(), expected, atol=1e-6)


@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 99))
def test_contexts_are_signs_that_undo_themselves(tasks, inputs, seed):
    signs = contexts(tasks, inputs, generator(seed))
    assert signs.shape == (tasks, inputs) and bool((signs.abs() == 1).all())
    assert torch.equal(signs * signs, torch.ones(tasks, inputs))
    assert torch.equal(signs, contexts(tasks, inputs, generator(seed)))


def test_a_matrix_stored_alone_comes_back_exactly_and_among_others_with_the_noise_of_theirs():
    inputs, outputs, tasks = 4096, 3, 8
    signs = contexts(tasks, inputs, generator())
    matrices = torch.randn(tasks, outputs, inputs, generator=generator(1))
    stored = (matrices * signs[:, None]).sum(dim=0)
    linear = nn.Linear(inputs, outputs, bias=False)
    with torch.no_grad():
        linear.weight.zero_()
    x = torch.randn(1, inputs, generator=generator(2))
    alone = SuperposedLinear(linear, nn.Parameter(matrices[0] * signs[0]), signs[0])
    assert torch.allclose(alone(x), x @ matrices[0].T, atol=1e-3)
    # Cheung et al.: every other matrix adds a random walk of `inputs` signs
    others = SuperposedLinear(linear, nn.Parameter(stored), signs[0])(x) - x @ matrices[0].T
    size = float(others.detach().pow(2).mean().sqrt()) / (inputs * (tasks - 1)) ** 0.5
    assert 0.3 < size < 2.0


def test_a_superposed_change_leaves_the_frozen_map_alone_and_starts_at_nothing():
    linear, x = nn.Linear(5, 2, bias=False), torch.randn(3, 5, generator=generator())
    made = SuperposedLinear(linear, nn.Parameter(torch.zeros(2, 5)), contexts(1, 5, generator())[0])
    assert torch.equal(made(x), linear(x)) and made.weight is linear.weight


def test_a_mixture_weighs_each_inputs_experts_by_its_own_softmax():
    factors, x = MixtureFactors(4, 3, 2, generator()), torch.randn(1, 5, 4, generator=generator(1))
    with torch.no_grad():
        factors.router.normal_(generator=generator(2))
    got = factors.change(x, torch.eye(2)[None, None])[0]
    for row, one in zip(got.detach().numpy(), x[0].numpy(), strict=True):
        scores = np.exp(one @ factors.router.detach().numpy())
        left, right = factors.left.detach().numpy(), factors.right.detach().numpy()
        expected = sum(scores[e] / scores.sum() * left[:, e] * (right[:, e] @ one) for e in range(2))
        assert np.allclose(row, expected, atol=1e-5)


def test_an_untrained_router_is_indifferent():
    factors = MixtureFactors(4, 3, 5, generator())
    x = torch.randn(1, 2, 4, generator=generator(1))
    even = x @ factors.right @ torch.eye(5) @ factors.left.T / 5
    assert factors.change(x, torch.eye(5)[None, None]).detach().numpy() == pytest.approx(
        even.detach().numpy(), abs=1e-6
    )


def stacked(tasks=3, rank=2):
    made = StackedFactors(6, 4, tasks, rank, generator())
    with torch.no_grad():
        made.left.normal_(generator=generator(1))
    return made


def test_stacked_loras_are_added_up_to_the_one_that_is_learned():
    made, x = stacked(), torch.randn(1, 5, 6, generator=generator(2))
    for made.learning in range(3):
        expected = sum(
            x.numpy() @ made.right[k].detach().numpy() @ made.left[k].detach().numpy().T
            for k in range(made.learning + 1)
        )
        assert np.allclose(made.change(x, torch.eye(1)[None, None]).detach().numpy(), expected, atol=1e-5)


def test_only_the_lora_that_is_learned_feels_a_loss_or_the_overlap():
    made, x = stacked(), torch.randn(1, 5, 6, generator=generator(2))
    made.learning = 1
    (made.change(x, torch.eye(1)[None, None]).square().sum() + made.overlap()).backward()
    for gradient in (made.left.grad, made.right.grad):
        assert [bool(one.any()) for one in gradient] == [False, True, False]


def test_the_overlap_is_the_cosines_between_what_a_lora_reads_and_what_earlier_ones_read():
    made = stacked()
    made.learning = 2
    rights = made.right.detach().numpy()
    expected = sum(float(((rights[j].T @ rights[2]) ** 2).sum()) for j in range(2))
    assert float(made.overlap().detach()) == pytest.approx(expected, rel=1e-5)
    made.learning = 0
    assert float(made.overlap().detach()) == 0


def test_the_bound_of_a_stack_is_above_its_norm():
    made = stacked()
    whole = sum(made.left[k] @ made.right[k].T for k in range(3)).detach()
    assert float(made.small(torch.eye(1)).detach()) >= float(torch.linalg.matrix_norm(whole, ord=2))
