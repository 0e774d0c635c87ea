"""int8 rows and 8-bit phases lose what their step says, and the model still says nearly the same."""

import math

import pytest
import torch

from geonb.coordinates.configuration import preset
from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.quantise import quantise_phases, quantise_rows, quantise_weights, restore_phases, stored_bytes
from tests.coordinates.test_model import TEXT, alive


def test_a_row_is_off_by_at_most_half_a_step_and_by_less_than_a_percent_in_norm():
    weight = torch.randn(448, 448, generator=torch.Generator().manual_seed(0))
    codes, scale = quantise_rows(weight)
    back = codes.float() * scale
    assert codes.dtype == torch.int8
    assert ((back - weight).abs() <= scale / 2 * (1 + 1e-5)).all()
    assert float((back - weight).norm() / weight.norm()) == pytest.approx(0.0074, abs=0.001)
    assert torch.equal(quantise_rows(torch.zeros(2, 3))[0], torch.zeros(2, 3, dtype=torch.int8))


def test_phases_come_back_within_half_a_step_modulo_two_pi():
    phases = torch.randn(1000, generator=torch.Generator().manual_seed(1)) * 20
    error = (restore_phases(quantise_phases(phases)) - phases + math.pi) % (2 * math.pi) - math.pi
    assert error.abs().max() <= math.pi / 256 * 1.001


def test_a_quantised_model_is_small_and_stays_inside_its_budget():
    model = alive(seed=4)
    with torch.no_grad():
        before = model(TEXT).logits
        errors = quantise_weights(model)
        after = model(TEXT).logits
    assert set(errors) == {"output"} | {
        f"blocks.{i}.{n}" for i in range(2) for n in ("q", "k", "v", "gate", "o", "up", "down")
    }
    assert max(errors.values()) < 0.012
    assert float((after - before).norm() / before.norm()) < 0.05
    weights = model.uses[0].directions(torch.randn(4, 64))
    linear = model.uses[0].changes["q"]
    norms = torch.linalg.matrix_norm(linear.dense_change(weights), ord=2)
    assert (norms <= 0.3 * torch.linalg.matrix_norm(linear.base.weight, ord=2) * (1 + 1e-5)).all()


@pytest.mark.slow
def test_preset_b_falls_from_forty_megabytes_to_less_than_half():
    model = CoordinateModel(preset("B"))
    before = stored_bytes(model)
    quantise_weights(model)
    assert before == 4 * 9_999_232 and stored_bytes(model) < 0.52 * before
