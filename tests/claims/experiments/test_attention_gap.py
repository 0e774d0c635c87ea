"""Attention maps are softmax weights; the law holds for noise, and the causal average is what an even head shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geonb.claims.experiments import attention_gap as experiment
from geonb.models.checkpoint import Checkpoint
from geonb.models.runtime import TorchRuntime


@pytest.fixture(scope="module")
def runtime():
    return TorchRuntime.load(Checkpoint.open("embedded"), device="cpu")


def test_rows_sum_to_one_and_look_only_back(runtime):
    windows = np.random.default_rng(0).integers(2, 2000, size=(3, 10))
    kept = runtime.model.config._attn_implementation
    maps = experiment.attention_maps(runtime, windows)
    assert maps.shape == (3, 4, 4, 10, 10)
    assert np.allclose(maps.sum(-1), 1, atol=1e-5) and np.abs(np.triu(maps, 1)).max() == 0
    assert runtime.model.config._attn_implementation == kept


def test_a_model_without_queries_attends_evenly(runtime):
    import copy

    even = copy.deepcopy(runtime.model)
    with torch.no_grad():
        for name, leaf in even.named_parameters():
            if "q_proj" in name:
                leaf.zero_()
    flat = TorchRuntime(runtime.checkpoint, even, runtime.tokenizer, runtime.device, runtime.dtype)
    maps = experiment.attention_maps(flat, np.arange(2, 10)[None])
    assert np.allclose(maps, experiment.causal_average(8), atol=1e-6)


def test_gaps_are_ratios_of_the_first_two_singular_values():
    assert np.allclose(experiment.gaps(np.stack([np.diag([6.0, 2.0, 1.0]), np.diag([1.0, 3.0, 2.0])])), [3.0, 1.5])


def test_the_law_covers_noise_of_any_variance():
    law = experiment.noise_gap(16, draws=3000)
    noise = 7.0 * np.random.default_rng(1).standard_normal((2000, 16, 16))
    share, (low, high) = experiment.share_inside(law.holds(experiment.gaps(noise)))
    assert 0.93 < share < 0.97 and low < share < high
    assert law.low < law.mean < law.high


def test_a_mean_far_above_the_noise_has_the_predicted_gap():
    rng = np.random.default_rng(0)
    maps = 1.0 + 0.2 * rng.standard_normal((20, 64, 64))
    assert np.allclose(experiment.spiked_gap(maps), experiment.gaps(maps), rtol=0.1)
