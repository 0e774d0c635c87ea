"""What the probes cannot see leaves them alone, and other texts do see it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from geonb.claims.experiments import null_space as experiment
from geonb.claims.experiments.block_maps import block_maps
from geonb.models.checkpoint import Checkpoint
from geonb.models.runtime import TorchRuntime


@pytest.fixture(scope="module")
def runtime():
    found = TorchRuntime.load(Checkpoint.open("embedded"), device="cpu")
    return TorchRuntime(
        found.checkpoint, copy.deepcopy(found.model).double(), found.tokenizer, found.device, torch.float64
    )


def test_inputs_are_what_the_maps_read(runtime):
    maps = block_maps(runtime)
    windows = np.random.default_rng(0).integers(2, 2000, size=(2, 6))
    inputs = experiment.probe_inputs(runtime, maps, windows)
    hidden = runtime.model.model.embed_tokens(torch.as_tensor(windows))
    expected = runtime.model.model.layers[0].input_layernorm(hidden).flatten(0, 1)
    assert torch.allclose(inputs["model.layers.0.self_attn.q_proj"], expected)
    assert set(inputs) == set(maps)


def test_used_directions_are_an_orthonormal_basis_of_the_rows():
    rows = torch.randn(5, 20, dtype=torch.float64)
    basis = experiment.used_directions(torch.cat([rows, rows[:2] * 3]))
    assert basis.shape == (20, 5)
    assert torch.allclose(basis.mT @ basis, torch.eye(5, dtype=torch.float64))
    assert torch.allclose(rows @ basis @ basis.mT, rows)


def test_a_projected_change_keeps_its_norm_and_ignores_the_rows():
    change, rows = torch.randn(4, 20, dtype=torch.float64), torch.randn(5, 20, dtype=torch.float64)
    free = experiment.without(change, experiment.used_directions(rows))
    assert float((free @ rows.mT).abs().max()) < 1e-12
    assert float(free.norm()) == pytest.approx(float(change.norm()))
    assert float(experiment.without(change, torch.eye(20, dtype=torch.float64)).norm()) == 0


def test_the_divergence_is_that_of_the_definition(runtime):
    windows = np.random.default_rng(1).integers(2, 2000, size=(1, 4))
    base = experiment.log_chances(runtime, windows)
    assert experiment.mean_kl(runtime, base, windows) == pytest.approx(0, abs=1e-12)
    other = (base + torch.randn(base.shape, dtype=base.dtype)).log_softmax(-1)
    expected = torch.nn.functional.kl_div(base, other, log_target=True, reduction="sum") / 4
    assert experiment.mean_kl(runtime, other, windows) == pytest.approx(float(expected))


def test_only_the_probes_are_spared(runtime):
    maps = block_maps(runtime)
    windows = np.random.default_rng(2).integers(2, 2000, size=(4, 8))
    probes, held = windows[:2], windows[2:]
    bases = {
        name: experiment.used_directions(one) for name, one in experiment.probe_inputs(runtime, maps, probes).items()
    }
    found = experiment.damage(runtime, maps, bases, {"probes": probes, "held": held}, relative=0.1, seed=0)
    assert found["projected", "probes"] < 1e-9 * found["plain", "probes"]
    assert found["projected", "held"] > 1e-3 and found["random", "probes"] > 1e-3
