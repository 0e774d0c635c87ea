"""Where a change lies is read from its projections, and a random change lies where its null lies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import subspace_angles

from geonb.analysis import adapter_geometry
from geonb.errors import InputError

SHAPES = st.tuples(st.integers(0, 1000), st.integers(5, 14), st.integers(5, 14), st.integers(1, 4))


def pair(made):
    seed, rows, columns, rank = made
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((rows, columns)) * rng.uniform(0.2, 2, columns)
    return weight, rng.standard_normal((rows, rank)), rng.standard_normal((rank, columns))


@given(SHAPES, st.integers(1, 4))
def test_energies_are_those_of_dense_projections(made, k):
    weight, left, right = pair(made)
    found = adapter_geometry(weight, (left, right), k=k, draws=2)
    change = left @ right
    u, values, vt = np.linalg.svd(weight)
    total, q = np.linalg.norm(change) ** 2, len(values)
    by_hand = {
        "norm": np.linalg.norm(change, 2),
        "over_sigma_k": np.linalg.norm(change, 2) / values[k - 1],
        "scale_bound": values[k - 1] / np.linalg.norm(change, 2),
        "over_sigma_max": np.linalg.norm(change, 2) / values[0],
        "relative_change": np.linalg.norm(change) / np.linalg.norm(weight),
        "stable_rank": total / np.linalg.norm(change, 2) ** 2,
        "head_energy_out": np.linalg.norm(u[:, :k].T @ change) ** 2 / total,
        "head_energy_in": np.linalg.norm(change @ vt[:k].T) ** 2 / total,
        "head_energy_both": np.linalg.norm(u[:, :k].T @ change @ vt[:k].T) ** 2 / total,
        "tail_energy_out": np.linalg.norm(u[:, k:q].T @ change) ** 2 / total,
        "tail_energy_in": np.linalg.norm(change @ vt[k:q].T) ** 2 / total,
        "null_energy_out": np.linalg.norm(u[:, q:].T @ change) ** 2 / total,
        "null_energy_in": np.linalg.norm(change @ vt[q:].T) ** 2 / total,
        "overlap_out": (np.cos(subspace_angles(left, u[:, :k])) ** 2).mean(),
        "overlap_in": (np.cos(subspace_angles(right.T, vt[:k].T)) ** 2).mean(),
    }
    for name, value in by_hand.items():
        assert found[name].value == pytest.approx(value, rel=1e-6, abs=1e-9), name


@given(SHAPES)
def test_a_dense_change_and_its_factors_are_one_change(made):
    weight, left, right = pair(made)
    factors, dense = (adapter_geometry(weight, one, draws=2) for one in ((left, right), left @ right))
    for name, one in factors.measured.items():
        assert dense[name].value == pytest.approx(one.value, rel=1e-5, abs=1e-8), name


@given(SHAPES, st.floats(1e-3, 1e3))
def test_a_scale_moves_sizes_and_no_place(made, scale):
    weight, left, right = pair(made)
    first, second = (
        adapter_geometry(weight, (left, right), draws=2),
        adapter_geometry(weight, (left, right), scale=scale, draws=2),
    )
    assert second["norm"].value == pytest.approx(scale * first["norm"].value)
    assert second["scale_bound"].value == pytest.approx(first["scale_bound"].value / scale)
    for name in ("stable_rank", "head_energy_out", "overlap_in", "rank_used"):
        assert second[name].value == pytest.approx(first[name].value, rel=1e-6), name


def test_a_random_change_lies_within_its_null_and_one_along_the_head_beyond():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((40, 30)) * np.linspace(3, 0.1, 30)
    random = adapter_geometry(weight, (rng.standard_normal((40, 4)), rng.standard_normal((4, 30))), k=8, draws=40)
    for name in ("head_energy_out", "overlap_in", "stable_rank"):
        low, high = random.null_interval(name)
        assert low - (high - low) / 2 < random[name].value < high + (high - low) / 2, name
    # Gaussian rows spread their energy evenly over any fixed k of n directions
    assert random["head_energy_in"].null == pytest.approx(8 / 30, abs=0.05)
    assert random["head_energy_out"].null == pytest.approx(8 / 40, abs=0.05)
    u, _, vt = np.linalg.svd(weight)
    head = adapter_geometry(weight, (u[:, :4], vt[:4]), k=8, draws=40)
    assert head["overlap_in"].value == pytest.approx(1) and head.p_value("head_energy_both") == pytest.approx(1 / 41)


def test_the_bound_is_the_scale_at_which_the_change_reaches_sigma_k():
    weight, left, right = pair((1, 12, 9, 3))
    bound = adapter_geometry(weight, (left, right), draws=2)["scale_bound"].value
    at_bound = adapter_geometry(weight, (left, right), scale=bound, radius=2.0, draws=2)
    assert at_bound["over_sigma_k"].value == pytest.approx(1) and at_bound["scale_bound"].value == pytest.approx(1)
    assert at_bound["over_radius"].value == pytest.approx(at_bound["norm"].value / 2)


@pytest.mark.parametrize(
    ("weight", "change", "options", "sentence"),
    [
        (np.eye(3), np.zeros((3, 3)), {}, "dW is zero"),
        (np.zeros((3, 3)), np.eye(3), {}, "W is zero"),
        (np.eye(3), np.ones((2, 3)), {}, r"dW has the shape \(2, 3\) and W \(3, 3\)"),
        (np.eye(3), (np.ones((2, 3)), np.ones((3, 1))), {}, "allowed are \\(out, r\\) and \\(r, in\\)"),
        (np.eye(3), np.eye(3), {"k": 4}, "k = 4 was given for a matrix of 3 singular values"),
        (np.eye(3), np.eye(3), {"scale": 0.0}, "the scale 0.0 was given"),
        (np.eye(3), np.eye(3), {"radius": -1.0}, "the radius -1.0 was given"),
        (np.eye(3), np.full((3, 3), np.nan), {}, "dW holds NaN"),
        (np.eye(3), np.eye(3), {"draws": 1}, "1 draws of the null"),
    ],
)
def test_what_does_not_fit_is_refused(weight, change, options, sentence):
    with pytest.raises(InputError, match=sentence):
        adapter_geometry(weight, change, **options)
