"""The scalars are those of the matrix, and pure noise is like its twins while structure is not."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geonb.analysis import spectra
from geonb.errors import InputError
from geonb.models import Checkpoint

SCALE_FREE = (
    "effective_rank",
    "stable_rank",
    "participation_ratio",
    "decay_ratio",
    "mp_distance",
    "edge_ratio",
    "gap_first",
)


@given(st.integers(0, 1000), st.integers(3, 20), st.integers(3, 20))
def test_scalars_are_those_of_the_singular_values(seed, rows, columns):
    matrix = np.random.default_rng(seed).standard_normal((rows, columns))
    found = spectra(matrix, draws=2)
    values = np.linalg.svd(matrix, compute_uv=False)
    assert found["sigma_max"].value == pytest.approx(values[0], rel=1e-6)
    assert found["frobenius"].value == pytest.approx(np.linalg.norm(matrix), rel=1e-6)
    assert found["stable_rank"].value == pytest.approx((values**2).sum() / values[0] ** 2, rel=1e-6)
    assert found["participation_ratio"].value == pytest.approx((values**2).sum() ** 2 / (values**4).sum(), rel=1e-6)
    assert found["gap_first"].value == pytest.approx(values[0] / values[1], rel=1e-6)
    assert found["edge_ratio"].value == pytest.approx(
        values[0] / (np.linalg.norm(matrix) / np.sqrt(rows * columns) * (np.sqrt(rows) + np.sqrt(columns))), rel=1e-6
    )
    low, high = found["sigma_max"].interval
    assert low <= values[0] <= high


@given(st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_ranks_know_neither_scale_nor_rotation_nor_transposition(seed, scale):
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((9, 6)) * rng.uniform(0.1, 2, 6)
    other = (np.linalg.qr(rng.standard_normal((9, 9)))[0] @ matrix * scale).T
    first, second = spectra(matrix, draws=2), spectra(other, draws=2)
    for name in SCALE_FREE:
        assert second[name].value == pytest.approx(first[name].value, rel=1e-5), name


def test_noise_lies_within_its_twins_and_structure_beyond():
    rng = np.random.default_rng(4)
    noise = rng.standard_normal((80, 50))
    found = spectra(noise, seed=1)
    for name in ("sigma_max", "effective_rank", "stable_rank", "mp_distance"):
        low, high = found.null_interval(name)
        assert low - (high - low) / 2 < found[name].value < high + (high - low) / 2, name
    assert found["frobenius"].null == pytest.approx(found["frobenius"].value)
    spiked = spectra(noise + 3 * np.outer(rng.standard_normal(80), rng.standard_normal(50)), seed=1)
    assert spiked.p_value("edge_ratio") == pytest.approx(1 / 21) and spiked["noise_rank"].value == 1
    assert spiked["energy_above_edge"].value > 0.5 and spiked.p_value("effective_rank", above=False) == pytest.approx(
        1 / 21
    )


def test_a_twin_is_what_real_gaussian_matrices_are():
    matrix = np.diag(np.arange(1.0, 31.0))
    found = spectra(matrix, draws=60)
    rng, real = np.random.default_rng(1), []
    for _ in range(60):
        drawn = rng.standard_normal((30, 30))
        values = np.linalg.svd(drawn, compute_uv=False)
        real.append((values**2).sum() / values[0] ** 2)
    assert found["stable_rank"].null == pytest.approx(np.mean(real), rel=0.05)
    assert np.std(found.nulls["stable_rank"]) == pytest.approx(np.std(real), rel=0.5)


def test_a_matrix_of_a_checkpoint_is_given_by_reference_or_name():
    checkpoint = Checkpoint.open("embedded")
    name = "model.layers.1.mlp.down_proj.weight"
    by_name, by_ref = (
        spectra(name, checkpoint="embedded", draws=2),
        spectra(checkpoint.ref(name), checkpoint=checkpoint, draws=2),
    )
    dense = spectra(checkpoint.read(checkpoint.ref(name)).to(torch.float64), draws=2)
    assert by_name == by_ref and by_name.subject == name
    assert dense["effective_rank"].value == pytest.approx(by_name["effective_rank"].value, rel=1e-5)
    assert by_name["mp_distance"].value > 3 * by_name["mp_distance"].null


@pytest.mark.parametrize(
    ("given", "options", "sentence"),
    [
        (np.zeros((3, 3)), {}, "is zero, so it has no scale and no twin"),
        (np.ones(3), {}, r"W has the shape \(3,\)"),
        ("some.weight", {}, "given by its name without its checkpoint"),
        (np.eye(3), {"draws": 1}, "1 draws of the null were asked for"),
        ("no.such.weight", {"checkpoint": "embedded"}, "has no matrix 'no.such.weight'"),
    ],
)
def test_what_has_no_spectrum_is_refused(given, options, sentence):
    with pytest.raises(InputError, match=sentence):
        spectra(given, **options)
