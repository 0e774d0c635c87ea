"""An adapter at its bound has the norm sigma_k, and where a curve breaks is read off as on paper."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from geonb.claims.experiments import scale_bound as experiment
from geonb.claims.experiments.block_maps import block_maps, losses_of, shipped_examples
from geonb.errors import InputError
from geonb.geometry.spectrum import Spectrum
from geonb.models.checkpoint import Checkpoint
from geonb.models.runtime import TorchRuntime


@pytest.fixture(scope="module")
def runtime():
    return TorchRuntime.load(Checkpoint.open("embedded"), device="cpu")


@pytest.fixture(scope="module")
def trained(runtime):
    maps = dict(list(block_maps(runtime).items())[:3])
    examples = shipped_examples(runtime, "chat", limit=16)
    spectra = {
        name: Spectrum.of(np.linalg.svd(one.weight.double().numpy(), compute_uv=False), shape=one.ref.shape)
        for name, one in maps.items()
    }
    options = {"rank": 4, "steps": 3, "rate": 1e-2, "batch": 4, "seed": 0}
    return maps, spectra, experiment.train_adapter(runtime, maps, examples, **options), options, examples


def test_training_gives_changes_of_that_rank_and_leaves_the_model_alone(runtime, trained):
    maps, _, changes, options, examples = trained
    assert all(torch.linalg.matrix_rank(one.double()) == 4 for one in changes.values())
    assert set(dict(runtime.model.named_modules())) & set(changes) == set(changes)
    assert not any("factors" in name for name, _ in runtime.model.named_parameters())
    again = experiment.train_adapter(runtime, maps, examples, **options)
    assert all(torch.equal(changes[name], again[name]) for name in changes)


def test_at_the_bound_the_norm_is_a_multiple_of_sigma_k(trained):
    _, spectra, changes, _, _ = trained
    scales = experiment.matrix_scales(spectra, changes)
    for name, one in experiment.at_bound(changes, scales, 2.0).items():
        assert np.linalg.norm(one.double().numpy(), 2) == pytest.approx(2 * spectra[name].sigma_k, rel=1e-4)


def test_no_singular_value_moves_further_than_weyl_allows(trained):
    maps, spectra, changes, _, _ = trained
    bound = experiment.at_bound(changes, experiment.matrix_scales(spectra, changes))
    assert 0 < experiment.weyl_share(maps, spectra, bound) <= 1 + 1e-6


def test_noise_has_the_norm_and_rank_of_what_it_stands_for(trained):
    _, _, changes, _, _ = trained
    for name, one in experiment.random_like(changes, rank=4, seed=1).items():
        assert experiment.spectral_norm(one) == pytest.approx(experiment.spectral_norm(changes[name]), rel=1e-5)
        assert torch.linalg.matrix_rank(one.double(), rtol=1e-5) == 4


def test_the_loss_is_that_of_evaluate_and_the_sweep_begins_at_it(runtime, trained):
    maps, _, changes, _, examples = trained
    loss, right = experiment.task_figures(runtime, examples)
    assert loss == pytest.approx(losses_of(runtime, examples).loss, rel=1e-5) and 0 <= right <= 1
    losses, rights = experiment.sweep(runtime, maps, changes, examples, [0.0, 1.0])
    assert losses[0] == pytest.approx(loss) and rights[0] == pytest.approx(right)
    assert losses[1] != losses[0]


def test_a_zero_change_has_no_bound(trained):
    _, spectra, changes, _, _ = trained
    name = next(iter(changes))
    with pytest.raises(InputError, match="train it for at least one step"):
        experiment.matrix_scales(spectra, {name: torch.zeros_like(changes[name])})


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 0, 2], math.sqrt(8)), ([2, 0, 0], 1.0), ([0, 0, 0], 4.0), ([0, math.nan, 0], 2.0), ([0, 4, 0], 2**0.25)],
)
def test_the_first_crossing_is_interpolated_on_a_log_axis(values, expected):
    assert experiment.first_crossing([1.0, 2.0, 4.0], values, 1.0) == pytest.approx(expected)


def test_the_last_scale_that_is_good_enough_may_lie_behind_a_dip():
    assert experiment.last_above([1, 2, 4, 8], [0.9, 0.1, 0.6, 0.2], 0.5) == 4
    assert experiment.last_above([1, 2], [0.0, 0.0], 0.5) == 1
