"""The innovation is no clock: a constant coordinate surprises nobody, from the first token on."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geonb.coordinates.uncertainty import RunningContext, calibrated, innovations


def test_a_constant_coordinate_has_no_uncertainty_and_is_its_own_context():
    theta = torch.randn(2, 1, 16).expand(2, 30, 16)
    assert innovations(theta).abs().max() < 1e-10
    context = RunningContext()
    for one in theta.unbind(1):
        context.innovation(one)
        torch.testing.assert_close(context.value(), one, rtol=1e-5, atol=1e-6)


@given(st.integers(0, 100), st.floats(0.5, 0.99))
def test_it_is_the_variance_of_the_step_away_from_the_weighted_past(seed, decay):
    theta = np.random.default_rng(seed).normal(size=(1, 6, 9))
    found = innovations(torch.tensor(theta), decay=decay)[0].numpy()
    for t in range(6):
        weights = np.array([decay ** (t - 1 - s) for s in range(t)])
        past = (weights[:, None] * theta[0, :t]).sum(0) / weights.sum() if t else theta[0, 0]
        assert found[t] == pytest.approx(np.var(theta[0, t] - past), rel=1e-6, abs=1e-9)


def test_rows_of_a_batch_do_not_see_each_other():
    theta = torch.randn(3, 8, 16)
    torch.testing.assert_close(innovations(theta)[1], innovations(theta[1:2])[0])


def test_a_threshold_is_a_quantile_of_held_out_tokens():
    values = torch.rand(4, 500)
    assert float((values > calibrated(values, share=0.1)).float().mean()) == pytest.approx(0.1, abs=0.002)
