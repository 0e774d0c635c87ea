"""Rounding keeps to its grid, a correction is the best of its rank, and bytes are counted as they are stored."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geonb.claims.experiments import rounding as experiment
from geonb.errors import InputError

DRAWS = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(12, 30, generator=DRAWS, dtype=torch.float64)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_row_has_no_more_values_than_codes_and_errs_by_half_a_step(bits):
    found = experiment.rounded(WEIGHT, bits)
    for row, before in zip(found, WEIGHT, strict=True):
        step = float(before.abs().max()) / (2 ** (bits - 1) - 1)
        assert len(row.unique()) <= 2**bits
        # the scale itself is rounded to 16 bits
        assert float((row - before).abs().max()) <= step / 2 + 2**bits * step * 2**-11


def test_more_groups_err_less():
    errors = [float((experiment.rounded(WEIGHT, 4, groups) - WEIGHT).norm()) for groups in (1, 3, 10)]
    assert errors == sorted(errors, reverse=True) and errors[0] > errors[-1]


def test_a_row_of_zeros_stays_zero():
    assert float(experiment.rounded(torch.zeros(2, 5), 4).abs().max()) == 0


def test_the_correction_is_the_best_of_its_rank():
    values = np.linalg.svd(WEIGHT.numpy(), compute_uv=False)
    left = WEIGHT - experiment.correction(WEIGHT, 3)
    assert float(left.norm()) == pytest.approx(np.sqrt((values[3:] ** 2).sum()))
    assert float((experiment.correction(WEIGHT, 3) - experiment.correction(WEIGHT, 3, half=True)).norm()) < 1e-2


def test_a_random_correction_has_its_norm_and_rank():
    found = experiment.random_correction(WEIGHT, 3, DRAWS)
    assert torch.linalg.matrix_rank(found) == 3
    assert float(found.norm()) == pytest.approx(float(experiment.correction(WEIGHT, 3).norm()))


def test_bytes_are_codes_scales_and_factors():
    assert experiment.bytes_of((10, 32), 4) == 10 * 16 + 2 * 10
    assert experiment.bytes_of((10, 32), 8, groups=4) == 10 * 32 + 2 * 10 * 4
    assert experiment.bytes_of((10, 32), 4, rank=2) == 10 * 16 + 2 * 10 + 2 * 2 * 42


@pytest.mark.parametrize("shape", [(256, 256), (128, 256), (640, 256), (256, 640)])
def test_equal_groups_take_no_more_than_the_correction_and_one_more_would(shape):
    groups = experiment.equal_groups(shape, 4, 8)
    budget = experiment.bytes_of(shape, 4, rank=8)
    assert experiment.bytes_of(shape, 4, groups=groups) <= budget
    size = -(-shape[1] // groups)
    more = next(one for one in range(groups, shape[1] + 1) if -(-shape[1] // one) < size)
    assert experiment.bytes_of(shape, 4, groups=more) > budget


def test_one_bit_is_refused():
    with pytest.raises(InputError, match="2 bits and more"):
        experiment.rounded(WEIGHT, 1)
