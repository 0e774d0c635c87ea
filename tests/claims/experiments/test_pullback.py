"""The metric is what differentiating the chart gives; the Fisher is that of gradients computed one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geonb.claims.experiments import pullback as experiment
from geonb.claims.experiments.block_maps import block_maps, shipped_examples, text_windows
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.geometry import matrix_geometry
from geonb.models.runtime import TorchRuntime

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def runtime():
    return TorchRuntime.load(Checkpoint.open("embedded"), device="cpu")


def test_p_less_the_identity_is_the_square_that_the_formula_says():
    x, y = RNG.standard_normal((4, 4)), RNG.standard_normal((9, 4))
    z = x - x.T + y.T @ y
    expected = np.linalg.norm(2 * y.T @ y + z @ z.T) / 2
    assert experiment.metric_distance(x, y) == pytest.approx(expected)


def test_orthonormal_inputs_give_four_times_the_identity():
    y = np.linalg.qr(RNG.standard_normal((9, 4)))[0]
    assert experiment.metric_distance(np.zeros((4, 4)), y) == pytest.approx(3.0)


def test_the_metric_is_of_second_order_and_z_of_first():
    x, y = RNG.standard_normal((4, 4)), RNG.standard_normal((9, 4))
    scales = np.geomspace(1e-6, 1e-5, 5).tolist()
    assert experiment.slope(x, y, scales) == pytest.approx(2, abs=1e-3)
    assert experiment.slope(x, y, scales, experiment.z_norm) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("optimiser", ["mass", "adam"])
def test_a_run_records_every_step_and_leaves_the_model_alone(runtime, optimiser):
    maps = dict(list(block_maps(runtime).items())[:2])
    spectra = {name: matrix_geometry(runtime.checkpoint, one.ref).spectrum for name, one in maps.items()}
    examples = shipped_examples(runtime, "kjv", limit=8, tokens=12)
    before = {name: one.weight.clone() for name, one in maps.items()}
    options = {"start": "published", "optimiser": optimiser, "rank": 4, "steps": 3, "batch": 2, "seed": 0}
    run = experiment.train_chart(runtime, maps, spectra, examples, **options)
    assert run.distances.shape == (4, 2) and len(run.losses) == 3
    last = [experiment.metric_distance(*run.factors[name]) for name in maps]
    assert np.allclose(run.distances[-1], last) and (run.distances[-1] != run.distances[0]).all()
    assert all(torch.equal(maps[name].weight, one) for name, one in before.items())
    assert not any("factors" in name for name, _ in runtime.model.named_parameters())


def test_another_start_than_the_two_is_refused(runtime):
    maps = dict(list(block_maps(runtime).items())[:1])
    spectra = {name: matrix_geometry(runtime.checkpoint, one.ref).spectrum for name, one in maps.items()}
    with pytest.raises(InputError, match="allowed are published and spread"):
        experiment.train_chart(
            runtime, maps, spectra, [], start="other", optimiser="mass", rank=4, steps=1, batch=1, seed=0
        )


def test_gradients_of_many_texts_at_once_are_those_of_each(runtime):
    leaf = runtime.model.model.norm.weight
    windows = text_windows(runtime, "kjv", 6)[:5]
    found = experiment.text_gradients(runtime, [leaf], windows, seed=3)
    draws = torch.Generator().manual_seed(3)
    with torch.no_grad():
        chances = runtime.model(input_ids=torch.as_tensor(windows)).logits.softmax(-1)
    labels = torch.multinomial(chances.flatten(0, 1), 1, generator=draws).reshape(5, 6)
    leaf.requires_grad_(True)
    for row, window in enumerate(windows):
        logits = runtime.model(input_ids=torch.as_tensor(window)[None]).logits[0]
        loss = torch.nn.functional.cross_entropy(logits, labels[row], reduction="sum")
        (expected,) = torch.autograd.grad(loss, [leaf])
        assert np.allclose(found[row], expected.numpy(), rtol=1e-3, atol=1e-4)
    leaf.requires_grad_(False)


def test_the_share_of_small_eigenvalues_is_counted_of_the_fisher():
    gradients = np.diag([10.0, 1.0, 0.5, 0.0]) * 2.0
    share, values = experiment.degenerate_share(gradients)
    assert share == 0.5  # (1, 0.01, 0.0025, 0) of the largest: 0.01 is not below a hundredth
    assert np.allclose(values, [100.0, 1.0, 0.25, 0.0])


def test_a_rank_one_pair_goes_in_and_out(runtime):
    maps = block_maps(runtime)
    name = next(iter(maps))
    leaves, take_out = experiment.rank_one_leaves(runtime, name, maps, seed=0)
    assert [tuple(leaf.shape) for leaf in leaves] == [(1, 256), (256, 1)]
    take_out()
    assert name in dict(runtime.model.named_modules()) and not any(
        "factors" in n for n, _ in runtime.model.named_parameters()
    )
