"""The polar factor against NumPy's singular value decomposition, on both routes, down to where round-off begins."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geonb.geometry.ball import polar
from geonb.train import Training
from geonb.train.controllers.polar import Workspace, _by_iteration, polar_factor
from geonb.train.gradient import batch_gradient
from tests.tiny import tiny_plan

LARGEST = 1 + 1e-7  # of a singular value of the result, always


def by_iteration(matrix):
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT
    result = _by_iteration(tall / tall.abs().max())
    return result if tall is matrix else result.mT


def singular_values(matrix):
    return np.linalg.svd(matrix.double().numpy(), compute_uv=False)


def with_values(values, rows, seed, *, wide=False):
    """A float32 matrix with these singular values, and as many columns (rows where it is wide)."""
    rng = np.random.default_rng(seed)
    left = np.linalg.qr(rng.standard_normal((rows, len(values))))[0]
    right = np.linalg.qr(rng.standard_normal((len(values), len(values))))[0]
    made = torch.from_numpy((left * values) @ right.T).float()
    return made.mT.contiguous() if wide else made


def assert_is_polar(moment, result):
    """The promise of the CPU's route, with NumPy's decomposition of the same float32 matrix as the judge."""
    left, values, right = np.linalg.svd(moment.double().numpy(), full_matrices=False)
    share = values / values[0]
    found = singular_values(result)
    least, most = np.sum(share > 2e-7), np.sum(share > 5e-8)
    assert found[0] <= LARGEST
    assert np.all(found[:least] >= 1 - 1e-6)
    assert np.all(found[most:] <= 1e-6)
    assert np.all((found >= 1 - 1e-6) | (found <= 1e-6))
    # the directions that float32 knows: away from the cut, and from there on only as a whole
    clear = share > 1e-4
    core = left[:, clear].T @ result.double().numpy() @ right[clear].T
    assert np.allclose(core, np.eye(clear.sum()), atol=2e-6)
    assert np.sum(moment.double().numpy() * result.double().numpy()) >= (1 - 3e-6) * values.sum()


@pytest.mark.parametrize("route", [polar_factor, by_iteration])
@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (1, 5), (6, 6), (40, 12), (12, 40)])
def test_polar_is_the_product_of_singular_vectors(route, shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    left, _, right = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    assert np.allclose(route(matrix).numpy(), left @ right, atol=2e-5)


def test_polar_agrees_with_the_float64_reference():
    matrix = torch.randn(9, 4, generator=torch.Generator().manual_seed(3))
    assert np.allclose(polar_factor(matrix).numpy(), polar(matrix.numpy()), atol=1e-6)


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 30),
    columns=st.integers(1, 20),
    inner=st.integers(1, 20),
    exponent=st.floats(-30, 30),
)
@settings(max_examples=60, deadline=None)
def test_polar_never_leaves_the_unit_ball(seed, rows, columns, inner, exponent):
    # float32 products of fewer than min(m, n) directions have round-off where exact ones have zeros
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, inner, generator=generator) @ torch.randn(inner, columns, generator=generator)
    for result in (polar_factor(matrix * 10**exponent), by_iteration(matrix)):
        assert singular_values(result)[0] <= LARGEST


@given(
    seed=st.integers(0, 10_000),
    exponents=st.lists(st.floats(-9, 0), min_size=1, max_size=24),
    more_rows=st.integers(0, 40),
    wide=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_every_direction_is_kept_whole_or_dropped(seed, exponents, more_rows, wide):
    values = 10.0 ** np.array([0.0, *exponents])
    moment = with_values(values, len(values) + more_rows, seed, wide=wide)
    assert_is_polar(moment, polar_factor(moment))


@given(seed=st.integers(0, 10_000), small=st.floats(1.5e-8, 1e-6), n_small=st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_a_cluster_at_the_cut_is_kept_whole_or_dropped(seed, small, n_small):
    values = np.concatenate([np.ones(8), np.full(n_small, small)])
    # in powers of two float32 holds the columns exactly, however small they are
    moment = torch.from_numpy(np.diag(2.0 ** np.round(np.log2(values)))).float()
    assert_is_polar(moment, polar_factor(moment))
    moment = with_values(values, 50, seed)
    assert_is_polar(moment, polar_factor(moment))


@pytest.mark.parametrize(("rows", "columns"), [(300, 100), (100, 300), (256, 221), (1024, 64)])
@pytest.mark.parametrize("decades", [0.0, 3.0, 6.3, 20.0])
def test_matrices_of_the_sizes_of_a_model(rows, columns, decades):
    values = np.logspace(0, -decades, min(rows, columns))
    moment = with_values(values, max(rows, columns), rows + columns, wide=columns > rows)
    assert_is_polar(moment, polar_factor(moment))


@given(seed=st.integers(0, 10_000), tokens=st.integers(1, 4), rows=st.integers(5, 40), columns=st.integers(5, 20))
@settings(max_examples=40, deadline=None)
def test_what_a_few_tokens_do_not_touch_stays_untouched(seed, tokens, rows, columns):
    # small whole numbers: the product has the rank of its factors exactly
    rng = np.random.default_rng(seed)
    left, right = rng.integers(-3, 4, (rows, tokens)), rng.integers(-3, 4, (tokens, columns))
    moment = torch.from_numpy(left @ right).float()
    rank = np.linalg.matrix_rank(left @ right)
    result = polar_factor(moment)
    found = singular_values(result)
    assert np.allclose(found[:rank], 1, atol=1e-6) and np.allclose(found[rank:], 0, atol=1e-6)
    projector = np.eye(columns) - np.linalg.pinv(right) @ right
    assert np.allclose(result.double().numpy() @ projector, 0, atol=1e-6)


def test_zero_rows_and_columns_and_repeated_columns_get_no_direction_of_their_own():
    moment = torch.randn(40, 12, generator=torch.Generator().manual_seed(5))
    moment[7] = 0
    moment[:, 3] = 0
    moment[:, 5] = moment[:, 6]
    moment[:, 8] = -2 * moment[:, 6]
    result = polar_factor(moment)
    assert np.sum(singular_values(result) > 0.5) == 9
    assert result[7].abs().max() <= 1e-7 and result[:, 3].abs().max() <= 1e-7
    assert torch.allclose(result[:, 5], result[:, 6], atol=1e-7)
    assert_is_polar(moment, result)


def test_directions_near_the_cut_are_not_too_long():
    generator = torch.Generator().manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(60, 20, generator=generator), full_matrices=False)
    graded = (left * torch.logspace(0, -9, 20)) @ right
    assert singular_values(polar_factor(graded))[0] <= LARGEST


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_the_moments_of_a_run_have_polar_factors(tmp_path_factory):
    training = Training(tiny_plan(tmp_path_factory), device="cpu")
    controller = training.equipment.controller
    workspace = Workspace()
    for step in range(3):
        done = batch_gradient(
            training.equipment, training.leaves, training.equipment.batch(step), micro=4, measure=False
        )
        controller.step(done.loss, step)
        moments = {name: value for name, value in controller.state().items() if name.startswith("moment/")}
        assert len(moments) == len(training.leaves)
        for moment in moments.values():
            assert_is_polar(moment, polar_factor(moment, workspace))


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), -float("inf")])
def test_polar_of_nothing_usable_is_zero(value):
    assert torch.equal(polar_factor(torch.full((4, 3), value)), torch.zeros(4, 3))
    if value != 0:
        moment = torch.ones(4, 3)
        moment[2, 1] = value
        assert torch.equal(polar_factor(moment), torch.zeros(4, 3))


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e38])
def test_the_ends_of_float32_are_matrices_like_any_other(scale):
    moment = torch.tensor([[2.0, 0.0], [0.0, -1.0], [0.0, 0.0]]) * scale
    assert torch.allclose(polar_factor(moment), torch.tensor([[1.0, 0.0], [0.0, -1.0], [0.0, 0.0]]))


def test_what_a_workspace_held_before_changes_no_bit():
    moments = [with_values(np.logspace(0, -7, n), rows, n, wide=wide) for n, rows, wide in ((9, 30, 0), (12, 12, 1))]
    fresh = [polar_factor(moment) for moment in moments]
    workspace = Workspace()
    polar_factor(torch.full((50, 20), float("nan")), workspace)
    for _ in range(2):
        for moment, expected in zip(moments, fresh, strict=True):
            given = moment.clone()
            assert torch.equal(polar_factor(moment, workspace), expected)
            assert torch.equal(moment, given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_result_outlives_the_workspace_it_was_made_in(dtype):
    first = torch.randn(9, 4, generator=torch.Generator().manual_seed(1), dtype=dtype)
    workspace = Workspace()
    result = polar_factor(first, workspace)
    kept = result.clone()
    polar_factor(2 - first, workspace)
    assert torch.equal(result, kept)


def test_iteration_reaches_directions_above_a_thousandth():
    generator = torch.Generator().manual_seed(1)
    left, _, right = torch.linalg.svd(torch.randn(50, 10, generator=generator), full_matrices=False)
    values = singular_values(by_iteration((left * torch.logspace(0, -2.5, 10)) @ right))
    assert values.min() > 1 - 1e-6 and values.max() <= LARGEST
