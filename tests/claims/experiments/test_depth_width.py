"""The partial correlation against its textbook formula, and shapes that are what was asked for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import spearmanr

from geonb.claims.experiments.depth_width import beyond_depth, partial_spearman, total_turning, untrained
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.runtime import TorchRuntime

SHAPES = list(itertools.product((2, 4, 8, 16), (64, 128, 192, 256)))


def test_the_partial_correlation_is_that_of_the_textbook():
    x, y, given = np.random.default_rng(0).standard_normal((3, 30))
    a, b, c = (spearmanr(*pair).statistic for pair in ((x, y), (x, given), (y, given)))
    assert partial_spearman(x, y, given) == pytest.approx((a - b * c) / np.sqrt((1 - b**2) * (1 - c**2)))


def test_a_dependence_on_the_ratio_is_found_and_one_on_depth_alone_is_not_taken_for_it():
    depths, widths = zip(*SHAPES, strict=True)
    rng = np.random.default_rng(0)
    ratio = [depth / width for depth, width in SHAPES]
    assert beyond_depth(depths, widths, ratio, resamples=200).value == pytest.approx(1.0)
    noise = 0.01 * rng.standard_normal((100, len(SHAPES)))
    alone = [partial_spearman(ratio, np.asarray(depths) + one, depths) for one in noise]
    assert abs(np.mean(alone)) < 0.1


def test_an_untrained_model_has_the_shape_that_was_asked_for_and_turns():
    base = TorchRuntime.load(Checkpoint.open("embedded"), device="cpu").model
    model = untrained(base, depth=3, width=128, seed=1)
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (3, 128)
    ids = [[5, 6, 7, 8], [9, 10, 11, 12]]
    assert 0 < total_turning(model, ids) < 3 * np.pi
    assert total_turning(model, ids) == total_turning(untrained(base, depth=3, width=128, seed=1), ids)


def test_a_width_that_no_head_fits_and_too_few_models_are_refused():
    base = TorchRuntime.load(Checkpoint.open("embedded"), device="cpu").model
    with pytest.raises(InputError, match="multiples of the head's size, 64"):
        untrained(base, depth=2, width=100)
    with pytest.raises(InputError, match="8 and more"):
        beyond_depth([1, 2], [64, 128], [0.0, 1.0])
