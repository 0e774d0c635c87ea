"""The row space and the projector against a dense computation from the activations themselves (numpy's SVD)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geonb.errors import InputError
from geonb.merge.projector import RULES, projector, response_norm, row_space


def activations(seed, tokens, width, rank):
    """Inputs that lie in `rank` directions, of sizes over three decades."""
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((tokens, rank)), rng.standard_normal((rank, width))
    return left @ (np.logspace(0, -3, rank)[:, None] * right)


def space_of(inputs):
    return row_space(torch.from_numpy(inputs.T @ inputs), len(inputs))


def dense(inputs, rule):
    """P from numpy's SVD of A: (d, d)."""
    values, right = np.linalg.svd(inputs, full_matrices=True)[1:]
    values = np.concatenate([values, np.zeros(inputs.shape[1] - len(values))])
    if rule == "hard":
        weights = (values < 1e-7 * values[0]).astype(float)
    else:
        n, d = inputs.shape
        kept = np.where(values < 1e-7 * values[0], 0.0, values)[: min(n, d)]
        # the median of the Marchenko-Pastur law, from simulated noise rather than from its integral
        noise = np.random.default_rng(0).standard_normal((12 * n, 12 * d))
        unit = np.median(np.linalg.svd(noise, compute_uv=False) ** 2) / (12 * max(n, d))
        sigma = math.sqrt(np.median(kept**2) / max(n, d) / unit)
        edge = n * (sigma * (1 + math.sqrt(d / n))) ** 2
        weights = edge / (values**2 + edge)
    return right.T @ np.diag(weights) @ right


sizes = st.tuples(st.integers(0, 10**6), st.integers(1, 60), st.integers(2, 24), st.integers(1, 24)).map(
    lambda drawn: (*drawn[:3], min(drawn[1:]))
)


@given(sizes)
def test_the_hard_rule_leaves_the_probes_outputs_alone(drawn):
    inputs = activations(*drawn)
    change = np.random.default_rng(drawn[0] + 1).standard_normal((5, inputs.shape[1]))
    safe = projector(space_of(inputs), "hard").apply(torch.from_numpy(change)).numpy()
    # the Gram matrix holds singular values to half of float64's digits
    scale = np.linalg.norm(inputs) * np.linalg.norm(change)
    assert np.linalg.norm(inputs @ safe.T) <= 1e-6 * scale
    # all that the probes leave free is kept: what is lost lies in their row space
    _, values, vectors = np.linalg.svd(inputs, full_matrices=False)
    basis, lost = vectors[: drawn[3]], change - safe
    # the weakest direction of a Gram matrix is known to its round-off over its gap (Davis & Kahan 1970)
    room = 1e-6 + inputs.shape[1] * np.finfo(float).eps * (values[0] / values[drawn[3] - 1]) ** 2
    assert np.linalg.norm(lost - lost @ basis.T @ basis) <= room * np.linalg.norm(change)


@given(sizes, st.sampled_from(sorted(RULES)))
def test_every_projector_lies_between_nothing_and_everything(drawn, rule):
    inputs = activations(*drawn)
    found = projector(space_of(inputs), rule)
    matrix = found.apply(torch.eye(inputs.shape[1], dtype=torch.float64)).numpy()
    assert np.allclose(matrix, matrix.T, atol=1e-12)
    values = np.linalg.eigvalsh(matrix)
    assert values.min() >= -1e-12 and values.max() <= 1 + 1e-12
    assert found.kept == pytest.approx(np.trace(matrix), abs=1e-9)
    change = np.random.default_rng(drawn[0]).standard_normal((7, inputs.shape[1]))
    preserved = np.linalg.norm(change @ matrix) / np.linalg.norm(change)
    assert -1e-12 <= preserved <= 1 + 1e-12 and 0 <= found.null_preserved <= 1
    # whatever the projector takes away, the probes feel the change no more than before
    assert np.linalg.norm(inputs @ matrix @ change.T) <= np.linalg.norm(inputs @ change.T) * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize(("tokens", "width", "rank"), [(60, 24, 24), (40, 40, 40), (10, 24, 10), (60, 24, 8)])
def test_the_soft_and_the_hard_projector_are_those_of_the_dense_computation(tokens, width, rank):
    inputs = activations(3, tokens, width, rank)
    space = space_of(inputs)
    eye = torch.eye(width, dtype=torch.float64)
    assert np.allclose(projector(space, "hard").apply(eye), dense(inputs, "hard"), atol=1e-6)
    if 2 * rank > min(tokens, width):
        # the simulated median is good to a few tenths of a per cent
        assert np.allclose(projector(space, "soft").apply(eye), dense(inputs, "soft"), atol=5e-3)
    else:
        # half of the spectrum is zero: there is no noise to measure, and the soft rule is the hard one
        assert space.noise_edge == 0.0
        assert np.array_equal(projector(space, "soft").weights, projector(space, "hard").weights)


def test_pure_noise_is_left_free_above_one_half_and_a_signal_is_not():
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((2000, 50))
    inputs[:, 0] *= 100
    found = projector(space_of(inputs), "soft")
    assert found.weights[:-1].min() > 0.45 and found.weights[-1] < 1e-3
    assert projector(space_of(inputs), "edge").kept == 49


def test_more_directions_than_tokens_leave_the_rest_free():
    found = projector(space_of(activations(1, 5, 40, 5)), "hard")
    assert found.kept == 35 and found.null_preserved == pytest.approx(math.sqrt(35 / 40))


def test_the_null_is_what_randomly_turned_directions_preserve():
    inputs = activations(2, 30, 16, 16)
    found = projector(space_of(inputs), "soft")
    rng = np.random.default_rng(4)
    change = rng.standard_normal((6, 16)) * np.logspace(0, -2, 16)
    shares = []
    for _ in range(4000):
        turned = np.linalg.qr(rng.standard_normal((16, 16)))[0]
        shares.append(np.linalg.norm(change @ turned @ np.diag(found.weights) @ turned.T) / np.linalg.norm(change))
    assert math.sqrt(np.mean(np.square(shares))) == pytest.approx(found.null_preserved, rel=0.02)


def test_the_response_is_the_norm_of_the_outputs():
    inputs, matrix = activations(5, 30, 12, 12), np.random.default_rng(1).standard_normal((4, 12))
    found = response_norm(torch.from_numpy(matrix), torch.from_numpy(inputs.T @ inputs))
    assert found == pytest.approx(np.linalg.norm(inputs @ matrix.T), rel=1e-10)


def test_no_projection_returns_the_change_itself():
    change = torch.randn(3, 12, dtype=torch.float64)
    assert projector(space_of(activations(0, 20, 12, 12)), "none").apply(change) is change


def test_what_makes_no_projector_is_refused_in_a_sentence():
    space = space_of(activations(0, 20, 12, 12))
    with pytest.raises(InputError, match="the rule 'tikhonov' was given; allowed are soft, hard, edge, none"):
        projector(space, "tikhonov")
    with pytest.raises(InputError, match="no activations at all"):
        row_space(torch.zeros(3, 3, dtype=torch.float64), 0)
    with pytest.raises(InputError, match="hold NaN or infinity"):
        row_space(torch.full((3, 3), math.nan, dtype=torch.float64), 4)
