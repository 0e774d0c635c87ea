"""Spectra: worked values, invariants, certification and the noise edge."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.errors import InputError
from geonb.geometry.singular_values import TIERS, full_precision, singular_values, spectrum
from geonb.geometry.spectrum import Spectrum, marchenko_pastur_median

seeds = st.integers(0, 2**31)
sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))


def gaussian(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize(
    ("values", "effective", "k", "sigma_k", "inside", "boundary", "tail", "knee"),
    [
        ((5, 3, 1), 1.996010, 1, 5, 5, 2, 2, 2),
        (tuple(2.0**-i for i in range(8)), 2.116144, 2, 0.5, 0.5, 0.25, 6, 1),
        (tuple(1 / i for i in range(1, 17)), 3.868086, 3, 1 / 3, 1 / 6, 1 / 12, 13, 1),
        ((10, 9.5, 9, 1, 0.9), 3.102122, 3, 9, 0.5, 8, 2, 3),
        ((100, 100, 1, 1, 1, 1, 1, 1), 2.006134, 2, 100, 0, 99, 6, 2),
    ],
)
def test_worked_spectra(values, effective, k, sigma_k, inside, boundary, tail, knee):
    found = Spectrum.of(values)
    assert found.effective_rank == pytest.approx(effective, abs=1e-6)
    assert (found.structural_rank, found.tail_dims, found.knee_rank) == (k, tail, knee)
    assert (found.sigma_k, found.gap_inside, found.gap_boundary) == pytest.approx((sigma_k, inside, boundary))


def test_the_guarded_floor_gives_three_in_any_precision():
    for dtype in (np.float64, np.float32):
        assert Spectrum.of(np.array([1, 1, 1, 0, 0], dtype=dtype)).structural_rank == 3


def test_edges():
    zero = spectrum(np.zeros((4, 3)))
    assert zero.is_zero and zero.tail_dims == 0 and zero.structural_rank == 0 and zero.k_certified
    one = spectrum(np.array([[3.0, 4.0]]))
    assert (one.structural_rank, one.tail_dims, one.sigma_k) == (1, 0, pytest.approx(5.0))
    flat = Spectrum.of([2.0, 2.0, 2.0])
    assert (flat.structural_rank, flat.tail_dims, flat.gap_boundary) == (2, 1, 0.0)


@given(seeds, sizes, st.floats(1e-150, 1e150))
def test_effective_rank_lies_in_one_to_q_and_ignores_scale_transpose_and_order(seed, shape, scale):
    matrix = gaussian(seed, shape)
    found = spectrum(matrix)
    assert 1 - 1e-9 <= found.effective_rank <= min(shape) + 1e-9
    shuffled = np.random.default_rng(seed).permutation(matrix, axis=0)
    for other in (matrix.T, matrix * scale, shuffled):
        assert spectrum(other).effective_rank == pytest.approx(found.effective_rank, rel=1e-9)


@given(seeds)
def test_effective_rank_ignores_rotations(seed):
    matrix = gaussian(seed, (6, 9))
    rotation = np.linalg.qr(gaussian(seed + 1, (6, 6)))[0]
    assert spectrum(rotation @ matrix).effective_rank == pytest.approx(spectrum(matrix).effective_rank, rel=1e-9)


@given(seeds, sizes)
def test_every_tier_agrees_with_lapack_within_its_own_bound(seed, shape):
    matrix = gaussian(seed, shape)
    exact = np.linalg.svd(matrix, compute_uv=False)
    for tier in TIERS[1:]:
        found = spectrum(matrix, tier=tier)
        assert np.abs(found.values**2 - exact**2).max() <= found.error_bound + 1e-13 * exact[0] ** 2
        assert found.values.dtype == np.float64 and (np.diff(found.values) <= 0).all()


def test_bfloat16_takes_the_fast_tier_and_its_k_is_that_of_lapack():
    import torch

    for seed in range(40):
        rows, columns = 64 + seed, 64 + 3 * seed
        decay = torch.logspace(0, -1.5, rows, dtype=torch.float64)[:, None]
        weight = (decay * torch.from_numpy(gaussian(seed, (rows, columns)))).bfloat16()
        found = spectrum(weight)
        exact = Spectrum.of(torch.linalg.svdvals(weight.double()).numpy(), shape=(rows, columns))
        assert found.k_certified and found.structural_rank == exact.structural_rank
        assert found.tier in ("bf16-gram", "float64-gram")
        np.testing.assert_allclose(found.sigma_k, exact.sigma_k, rtol=1e-5)


def test_a_small_sigma_k_escalates_to_the_full_decomposition():
    values = np.array([1.0] * 2 + [1e-7] * 6)
    left, right = (np.linalg.qr(gaussian(seed, (8, 8)))[0] for seed in (1, 2))
    assert spectrum(left * values @ right).structural_rank == 2
    tiny = np.diag([1.0, 1e-9])
    assert full_precision(tiny).tier == "float64-gram" or full_precision(tiny).values[1] == pytest.approx(1e-9)
    np.testing.assert_allclose(spectrum(tiny, tier="float64-svd").values, [1.0, 1e-9], rtol=1e-12)


def test_an_uncertain_k_says_so():
    close = Spectrum(values=np.array([1.0, 1.0, 1.0, 1e-9]), shape=(4, 4), error_bound=1e-4)
    assert not close.k_certified
    assert Spectrum(values=close.values, shape=(4, 4), error_bound=1e-14).k_certified


@given(seeds)
def test_weyl_and_interlacing_hold_for_a_low_rank_change(seed):
    weight, left, right = gaussian(seed, (8, 10)), gaussian(seed + 1, (8, 2)), gaussian(seed + 2, (2, 10))
    before, after = singular_values(weight), singular_values(weight + left @ right)
    assert np.abs(after - before).max() <= np.linalg.norm(left @ right, 2) * (1 + 1e-9)
    assert (after[2:] <= before[:-2] + 1e-9).all() and (before[2:] <= after[:-2] + 1e-9).all()


@pytest.mark.parametrize("shape", [(64, 64), (32, 256), (200, 50), (128, 512)])
def test_pure_noise_shows_hardly_any_signal(shape):
    signals = [spectrum(gaussian(seed, shape)).noise_rank for seed in range(20)]
    assert np.mean(signals) < 0.01 * min(shape)


def test_planted_signals_are_found_above_the_noise():
    noise = gaussian(0, (100, 300))
    spikes = np.linalg.qr(gaussian(1, (100, 5)))[0] @ np.linalg.qr(gaussian(2, (300, 5)))[0].T
    assert spectrum(noise + 80 * spikes).noise_rank == 5


@pytest.mark.parametrize(("ratio", "median"), [(0.125, 0.9582), (0.25, 0.916), (1.0, 0.6528)])
def test_the_median_of_the_law(ratio, median):
    assert marchenko_pastur_median(ratio) == pytest.approx(median, abs=2e-3)


@pytest.mark.parametrize("wrong", [np.zeros((0, 3)), np.zeros(4), np.zeros((2, 2, 2))])
def test_what_is_no_matrix_is_refused(wrong):
    with pytest.raises(InputError, match="two dimensions that are not empty"):
        spectrum(wrong)
    with pytest.raises(InputError, match="allowed are auto"):
        spectrum(np.eye(2), tier="fast")


def test_a_spectrum_survives_its_json():
    found = spectrum(gaussian(3, (5, 4)))
    assert Spectrum.from_json(found.to_json()) == found
    assert "tail_dims" in found.to_text()
