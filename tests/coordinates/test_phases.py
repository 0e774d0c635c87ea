"""Phases, the kernel between coordinates, and how many of them can be orthogonal."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geonb.coordinates.phases import Directions, kernel, orthogonal_phases, theta_for, weights_of, welch_bound
from geonb.errors import InputError

ANGLES = st.lists(st.floats(-20, 20), min_size=4, max_size=4)


@given(ANGLES, ANGLES)
def test_the_kernel_is_the_cosine_between_weights(first, second):
    a, b = torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64)
    dot = weights_of(a) @ weights_of(b) / 4
    assert float(kernel(a, b)) == pytest.approx(float(dot), abs=1e-12)
    assert float(kernel(a, b)) == float(kernel(b, a)) and float(kernel(a, a)) == 1


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(1e-3, 10))
def test_a_step_at_one_coordinate_is_felt_at_another_by_the_kernel(seed, rate):
    # dW(theta) = -eta m k(theta, theta') G, exactly, for plain gradient steps on the cores
    rng = np.random.default_rng(seed)
    m = 8
    mine, other = rng.uniform(0, 7, m), rng.uniform(0, 7, m)
    gradient = rng.normal(size=(5, 5))
    phi = lambda a: np.concatenate([np.cos(a), np.sin(a)])  # noqa: E731
    cores = -rate * phi(other)[:, None, None] * gradient  # one step at `other`, from zero
    felt = np.einsum("j,jab->ab", phi(mine), cores)
    k = float(kernel(torch.tensor(mine), torch.tensor(other)))
    np.testing.assert_allclose(felt, -rate * m * k * gradient, atol=1e-12 * rate * m * np.abs(gradient).max())


@pytest.mark.parametrize("pairs", [1, 2, 8, 64])
def test_twice_as_many_coordinates_as_pairs_are_orthogonal_and_not_one_more(pairs):
    phases = torch.tensor(orthogonal_phases(pairs, 2 * pairs))
    gram = kernel(phases[:, None], phases[None]).numpy()
    np.testing.assert_allclose(gram, np.eye(2 * pairs), atol=1e-12)
    with pytest.raises(InputError, match=f"hold at most {2 * pairs}"):
        orthogonal_phases(pairs, 2 * pairs + 1)


def test_orthogonal_phases_are_reached_by_a_theta():
    made = Directions(16, 40, scale=4.0, generator=torch.Generator().manual_seed(0))
    matrix = made.directions.detach().double().numpy()
    wanted = orthogonal_phases(16, 32)
    theta = theta_for(wanted, matrix)
    np.testing.assert_allclose(theta @ matrix.T, wanted, atol=1e-10)
    # what lies in the kernel of C is not felt
    _, _, vt = np.linalg.svd(matrix)
    np.testing.assert_allclose((theta + 30 * vt[-1]) @ matrix.T, wanted, atol=1e-9)


def test_random_coordinates_are_uncorrelated_only_where_the_directions_are_long_enough():
    rng = torch.Generator().manual_seed(1)
    theta = torch.nn.functional.normalize(torch.randn(200, 1024, generator=rng), dim=-1) * 32
    mean = {}
    for scale in (1.0, 4.0):
        phases = Directions(64, 1024, scale=scale, generator=rng).phases(theta).detach()
        gram = kernel(phases[:, None], phases[None])
        mean[scale] = float(gram[~torch.eye(200, dtype=bool)].mean())
    # exp(-1) for directions of length one (random Fourier features), about zero at four
    assert mean[1.0] == pytest.approx(np.exp(-1), abs=0.03) and abs(mean[4.0]) < 0.01


@given(st.integers(1, 200))
def test_no_set_of_coordinates_beats_the_welch_bound(count):
    pairs = 4
    phases = torch.tensor(np.random.default_rng(count).uniform(0, 7, size=(count, pairs)))
    gram = kernel(phases[:, None], phases[None]).numpy() - np.eye(count)
    assert np.abs(gram).max() >= welch_bound(pairs, count) - 1e-12


def test_184_coordinates_on_64_pairs_must_interfere():
    assert welch_bound(64, 128) == 0 and welch_bound(64, 184) == pytest.approx(0.0489, abs=5e-5)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: orthogonal_phases(12, 3), "a power of two"),
        (lambda: orthogonal_phases(8, 0), "hold at most 16"),
        (lambda: theta_for(np.zeros(3), np.ones((3, 5))), "rank 1 of 3"),
    ],
)
def test_what_cannot_be_orthogonal_is_told(call, told):
    with pytest.raises(InputError, match=told):
        call()
