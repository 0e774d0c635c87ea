"""Sublayer figures of clouds whose answer is known, and rank agreement against scipy."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from geonb.claims.experiments.mean_field import rank_agreement, relabelled, sublayer_figures, sublayers_of
from geonb.claims.experiments.residual_chain import prompts
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.runtime import TorchRuntime


def test_a_sublayer_that_doubles_the_stream_has_alpha_and_chi_one_and_expands_nothing():
    cloud = np.random.default_rng(0).standard_normal((20, 5))
    assert sublayer_figures(cloud, 2 * cloud) == (pytest.approx(1.0), pytest.approx(1.0), pytest.approx(0.0, abs=1e-9))


def test_a_common_shift_has_no_chi_and_a_new_direction_expands():
    rng = np.random.default_rng(0)
    cloud = np.zeros((40, 6))
    cloud[:, 0] = rng.standard_normal(40) + 5
    assert sublayer_figures(cloud, cloud + 3.0)[1] == pytest.approx(0.0, abs=1e-12)
    wider = cloud.copy()
    wider[:, 1] = cloud[rng.permutation(40), 0]
    assert sublayer_figures(cloud, wider)[2] == pytest.approx(np.log(2), abs=0.1)


def test_the_agreement_is_scipys_spearman_row_by_row():
    from scipy.stats import spearmanr

    first, second = np.random.default_rng(0).standard_normal((2, 7, 8))
    expected = [spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)]
    assert np.allclose(rank_agreement(first, second), expected)


def test_relabelling_takes_away_an_agreement_that_is_there():
    table = np.tile(np.arange(8.0), (30, 1))
    null = relabelled(table, table, draws=500)
    assert rank_agreement(table, table).mean() == pytest.approx(1.0)
    assert abs(null.mean()) < 0.1 and np.quantile(null, 0.95) < 0.8


def test_a_model_of_four_blocks_has_eight_sublayers():
    runtime = TorchRuntime.load(Checkpoint.open("embedded"), device="cpu")
    found = sublayers_of(runtime, prompts(runtime.tokenizer, "narrative", count=3, tokens=16))
    assert found.predictor.shape == found.expansion.shape == (3, 8)
    assert (found.predictor > 0).all() and np.isfinite(found.expansion).all()


def test_unequal_clouds_are_refused():
    with pytest.raises(InputError, match="equal ones of 3 or more tokens"):
        sublayer_figures(np.ones((4, 2)), np.ones((5, 2)))


def test_a_relabelling_moves_whole_columns():
    first, second = np.random.default_rng(1).standard_normal((2, 9, 4))
    expected = {
        round(float(rank_agreement(first, second[:, list(order)]).mean()), 9) for order in permutations(range(4))
    }
    assert {round(float(one), 9) for one in relabelled(first, second, draws=200)} <= expected
