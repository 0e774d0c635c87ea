"""Random adapters have the size they were asked for, and what is measured of them is what dense algebra says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.adapters.baseline import (
    RELATIVE_CHANGES,
    Baseline,
    BaseMatrix,
    calibrate_baseline,
    random_factors,
)
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from tests.families import write_tiny

Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny("llama", tmp_path_factory.mktemp("model") / "m", hidden_size=32, intermediate_size=48)


@pytest.fixture(scope="module")
def baseline(model):
    return calibrate_baseline(model, 3, draws=4, top_k=8)


SHAPES = st.tuples(st.integers(2, 12), st.integers(2, 12))


@given(SHAPES, st.integers(1, 5), st.floats(1e-4, 1e3), st.integers(0, 2**31))
def test_a_change_is_measured_as_the_definitions_say(shape, rank, size, seed):
    generator = np.random.default_rng(seed)
    weight = generator.standard_normal(shape)
    ((left, right),) = random_factors(shape, rank, frobenius=size, draws=1, seed=seed)
    change = left @ right
    top = min(4, *shape)
    found = BaseMatrix(weight).change(left, right, top_k=4)
    u, s, vt = np.linalg.svd(weight)
    amplification = [np.linalg.norm(change @ vt[k]) for k in range(top)]
    assert found.amplification_cv == pytest.approx(np.std(amplification) / np.mean(amplification), rel=1e-6, abs=1e-9)
    assert found.amplification_peak == pytest.approx(max(amplification) / np.mean(amplification), rel=1e-6)
    assert amplification[found.amplification_argmax - 1] == pytest.approx(max(amplification))
    energy = sum(one**2 for one in amplification) / np.linalg.norm(change) ** 2
    assert found.amplification_energy == pytest.approx(energy, rel=1e-6)
    shifts = np.abs(np.linalg.svd(weight + change, compute_uv=False) - s)
    assert found.weyl_utilisation == pytest.approx(shifts.max() / np.linalg.norm(change, 2), rel=1e-3, abs=1e-4)
    assert 0 <= found.weyl_utilisation <= 1
    written = [np.linalg.norm(u[:, i] @ change) ** 2 / np.linalg.norm(change) ** 2 for i in range(shape[0])]
    q = min(shape)
    assert found.energies == pytest.approx(written[:q], rel=1e-6, abs=1e-9)
    assert 1 <= found.projection_depth <= shape[0]
    reached = np.cumsum(written[:q])
    if abs(reached - 0.5).min() > 1e-9:
        if reached[-1] >= 0.5:
            assert reached[found.projection_depth - 1] >= 0.5
            assert found.projection_depth == 1 or reached[found.projection_depth - 2] < 0.5
        else:
            assert found.projection_depth > q


@given(SHAPES, st.integers(1, 15), st.floats(1e-6, 1e6))
def test_random_factors_have_rank_and_frobenius_norm(shape, rank, size):
    drawn = list(random_factors(shape, rank, frobenius=size, draws=3, seed=1, name="x"))
    assert len(drawn) == 3
    for left, right in drawn:
        assert left.shape == (shape[0], rank) and right.shape == (rank, shape[1])
        assert np.linalg.norm(left @ right) == pytest.approx(size)


def test_draws_are_told_apart_by_seed_and_name_and_come_again():
    def first(**given):
        return next(random_factors((4, 4), 2, frobenius=1.0, draws=1, **given))[0]

    assert np.array_equal(first(seed=1, name="a"), first(seed=1, name="a"))
    assert not np.array_equal(first(seed=1, name="a"), first(seed=2, name="a"))
    assert not np.array_equal(first(seed=1, name="a"), first(seed=1, name="b"))


def test_extremes_of_the_depth():
    # W writes along the axes in order; dW along one of them
    base = BaseMatrix(np.diag([4.0, 3.0, 2.0, 1.0]))
    for axis in range(4):
        left = np.eye(4)[:, axis : axis + 1]
        found = base.change(left, np.ones((1, 4)), top_k=4)
        assert found.projection_depth == axis + 1
        assert found.amplification_cv == pytest.approx(0, abs=1e-12) and found.amplification_energy == pytest.approx(1)
    # a tall W leaves half of the outputs in its null space, which have no order
    tall = BaseMatrix(np.eye(8)[:, :4] * [4.0, 3.0, 2.0, 1.0])
    assert tall.change(np.eye(8)[:, 5:6], np.ones((1, 4)), top_k=2).projection_depth == 4 + 2


def test_a_change_that_hears_no_top_direction_has_no_variation():
    base = BaseMatrix(np.diag([4.0, 3.0, 2.0, 1.0]))
    found = base.change(np.ones((4, 1)), np.array([[0.0, 0.0, 0.0, 1.0]]), top_k=3)
    assert np.isnan(found.amplification_cv) and found.amplification_argmax is None and found.amplification_energy == 0


def test_a_scaled_copy_of_the_base_moves_its_values_by_all_of_its_norm():
    weight = np.random.default_rng(0).standard_normal((5, 3))
    found = BaseMatrix(weight).change(weight * 0.1, np.eye(3), top_k=3)
    assert found.weyl_utilisation == pytest.approx(1.0)


def test_the_baseline_is_that_of_random_adapters_drawn_by_hand(model, baseline):
    checkpoint = Checkpoint.open(model)
    weight = checkpoint.read(checkpoint.ref(Q)).double().numpy()
    s = np.linalg.svd(weight, compute_uv=False)
    one = baseline.of(Q)
    for place, relative in enumerate(RELATIVE_CHANGES):
        shifts = []
        size = relative * np.linalg.norm(weight)
        for left, right in random_factors(weight.shape, 3, frobenius=size, draws=4, name=Q):
            moved = np.linalg.svd(weight + left @ right, compute_uv=False)
            shifts.append(np.abs(moved - s).max() / np.linalg.norm(left @ right, 2))
        assert one.weyl_utilisation[place] == pytest.approx((np.mean(shifts), np.std(shifts, ddof=1)), rel=1e-3)
    assert one.projection_depth[0] == pytest.approx(weight.shape[0] / 2, rel=0.4)
    assert 0 < one.amplification_cv[0] < 1 and one.shape == weight.shape


def test_it_covers_every_matrix_that_an_adapter_may_target(model, baseline):
    expected = {ref.name for ref in Checkpoint.open(model).refs if ref.targetable}
    assert {one.name for one in baseline.matrices} == expected and len(expected) == 14
    assert (baseline.digest, baseline.rank) == (Checkpoint.open(model).digest, 3) and baseline.of("none") is None


def test_the_same_seed_gives_the_same_file_and_it_reads_back(model, baseline, tmp_path):
    seen = []
    again = calibrate_baseline(
        model, 3, draws=4, top_k=8, output=tmp_path / "b.json", progress=lambda *step: seen.append(step[:2])
    )
    assert again == baseline == Baseline.load(tmp_path / "b.json") and seen[-1] == (14, 14)
    assert Q in baseline.to_text() and Q in baseline.to_html()


def test_misuse_is_refused_in_a_sentence(model, tmp_path):
    for rank in (0, 33):
        with pytest.raises(InputError, match=rf"the rank {rank} was given; allowed are 1 to 16"):
            calibrate_baseline(model, rank)
    with pytest.raises(InputError, match="1 draws were asked for; a spread needs two"):
        calibrate_baseline(model, 2, draws=1)
    with pytest.raises(InputError, match="top-k 1 was given; a variation needs two"):
        calibrate_baseline(model, 2, top_k=1)
    (tmp_path / "there.json").write_text("mine")
    with pytest.raises(InputError, match=r"there\.json exists; allowed is a new file"):
        calibrate_baseline(model, 2, output=tmp_path / "there.json")
    with pytest.raises(InputError, match="is a folder or lies in none"):
        calibrate_baseline(model, 2, output=tmp_path / "none" / "b.json")
    assert (tmp_path / "there.json").read_text() == "mine"
    for weight in (np.zeros((3, 3)), np.full((2, 2), np.nan)):
        with pytest.raises(InputError, match="is zero or holds NaN or infinity"):
            BaseMatrix(weight)
