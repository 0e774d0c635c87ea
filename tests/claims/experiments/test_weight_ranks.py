"""Data ranks, update ranks, the selector, and the alignment of heads, each against a computation of its own."""

from __future__ import annotations

import numpy as np
import pytest

from geonb.claims.experiments import data_rank, head_alignment, update_rank
from geonb.claims.experiments.block_maps import block_maps, shipped_examples
from geonb.claims.experiments.null_space import probe_inputs
from geonb.errors import InputError
from geonb.geometry.spectrum import Spectrum
from geonb.models.checkpoint import Checkpoint
from geonb.models.runtime import TorchRuntime
from tests.families import write_tiny


@pytest.fixture(scope="module")
def runtime():
    return TorchRuntime.load(Checkpoint.open("embedded"), device="cpu")


def test_data_ranks_are_those_of_all_inputs_put_together(runtime):
    maps = block_maps(runtime)
    examples = shipped_examples(runtime, "chat", limit=5)
    found = data_rank.data_ranks(runtime, maps, examples)
    name = "model.layers.1.mlp.down_proj"
    rows = np.concatenate(
        [probe_inputs(runtime, maps, np.array([one.input_ids]))[name].double().numpy() for one in examples]
    )
    values = np.linalg.svd(rows, compute_uv=False)
    assert found[name].tokens == len(rows) == sum(len(one.input_ids) for one in examples)
    assert found[name].numerical == (values > max(rows.shape) * 2.0**-23 * values[0]).sum()
    assert found[name].effective == pytest.approx(Spectrum.of(values).effective_rank, rel=1e-3)


def test_gradients_lie_inside_the_span_and_noise_does_not(runtime):
    examples = shipped_examples(runtime, "chat", limit=2)
    for own, noise in data_rank.gradient_outside(runtime, block_maps(runtime), examples).values():
        assert own < 1e-4 < 0.3 < noise
    assert all(one.parameter.grad is None for one in block_maps(runtime).values())


def test_fine_tuning_moves_every_matrix_and_is_the_same_for_equal_seeds():
    options = {"steps": 2, "rate": 1e-3, "batch": 2, "tokens": 12}
    first, traces = update_rank.fine_tuned_ranks("embedded", "kjv", seeds=[0, 0, 1], **options)
    for values in first.values():
        assert values[0] == values[1] and 0 < values.min() and values.max() <= 1
    assert traces[0] == traces[1] != traces[2]


def test_the_table_leaves_out_nothing_but_vectors_and_zeros():
    table = update_rank.spectrum_table("embedded")
    checkpoint = Checkpoint.open("embedded")
    assert set(table.names) == {ref.module for ref in checkpoint.refs}
    ref = checkpoint.refs[3]
    values = np.linalg.svd(checkpoint.read(ref).double().numpy(), compute_uv=False)
    place = table.names.index(ref.module)
    assert table.stable_rank[place] == pytest.approx((values**2).sum() / values[0] ** 2, rel=1e-4)
    assert table.full_rank[place] == min(ref.shape)


def test_the_selector_leaves_out_no_matrix_that_is_not_zero():
    spectra = update_rank.extreme_spectra(np.random.default_rng(1), 200)
    assert update_rank.selected_share(list(spectra.values())) == (0, 212)
    assert update_rank.selected_share([Spectrum.of([0.0, 0.0]), Spectrum.of([1.0])]) == (0, 0)


def test_independent_heads_have_an_alignment_of_one_and_equal_heads_much_more():
    rng = np.random.default_rng(0)
    query = rng.standard_normal((64, 256))
    assert head_alignment.query_key_alignment(query, rng.standard_normal((32, 256)), 4, 2) == pytest.approx(1, abs=0.1)
    assert head_alignment.query_key_alignment(query, query, 4, 4) > 2


def test_alignment_pairs_each_query_head_with_its_key_head():
    query = np.kron(np.eye(4)[[0, 0, 1, 1]], np.ones((1, 1)))
    key = np.eye(4)[[0, 1]]
    # heads of size 1: the first two share a key, and point where it points
    assert head_alignment.query_key_alignment(query, key, 4, 2) == pytest.approx(2.0)
    assert head_alignment.query_key_alignment(query, key[::-1], 4, 2) == 0


@pytest.mark.parametrize(("family", "group"), [("llama", 2), ("gpt2", 1)])
def test_a_checkpoint_tells_its_heads_and_a_fused_map_is_taken_apart(tmp_path, family, group):
    folder = write_tiny(family, tmp_path / "m")
    found, value = head_alignment.alignment_of(str(folder))
    assert found == group and 0.5 < value < 2
    query, key = head_alignment.first_layer(Checkpoint.open(folder))
    assert query.shape == (64, 64) and len(key) == 64 // group


def test_heads_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="heads of one size"):
        head_alignment.query_key_alignment(np.zeros((6, 4)), np.zeros((4, 4)), 4, 2)
