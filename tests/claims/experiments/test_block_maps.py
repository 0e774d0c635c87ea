"""Maps are read as (out, in), change for a while and come back to the bit, and learn."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from geonb.claims.experiments import block_maps as experiment
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.runtime import TorchRuntime
from tests.families import write_tiny

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def runtime():
    return TorchRuntime.load(Checkpoint.open("embedded"), device="cpu")


def test_every_linear_map_inside_the_blocks_is_there_and_nothing_else(runtime):
    maps = experiment.block_maps(runtime)
    linear = {
        name
        for name, module in runtime.model.named_modules()
        if isinstance(module, torch.nn.Linear) and "layers" in name
    }
    assert set(maps) == linear
    for name, one in maps.items():
        assert torch.equal(one.weight, runtime.model.get_submodule(name).weight)


def test_a_transposed_map_is_read_as_out_by_in(tmp_path):
    runtime = TorchRuntime.load(Checkpoint.open(write_tiny("gpt2", tmp_path / "m")), device="cpu")
    for name, one in experiment.block_maps(runtime).items():
        module = runtime.model.get_submodule(name)
        inputs = torch.randn(3, one.ref.shape[1])
        assert torch.allclose(module(inputs), inputs @ one.weight.mT + module.bias, atol=1e-5)


def test_a_change_shows_and_leaves_no_trace(runtime):
    maps = experiment.block_maps(runtime)
    name, one = next(iter(maps.items()))
    before = one.weight.clone()
    change = torch.randn(one.ref.shape)
    with experiment.changed(maps, {name: change}):
        assert torch.allclose(one.weight, before + change, atol=1e-6)
    assert torch.equal(one.weight, before)


def test_a_change_is_taken_back_where_the_block_raises(runtime):
    maps = experiment.block_maps(runtime)
    name, one = next(iter(maps.items()))
    before = one.weight.clone()
    with pytest.raises(ZeroDivisionError), experiment.changed(maps, {name: torch.ones(one.ref.shape)}):
        _ = 1 / 0
    assert torch.equal(one.weight, before)


def test_windows_are_the_beginnings_of_texts_that_are_long_enough(runtime):
    from geonb.assets import dataset_path

    windows = experiment.text_windows(runtime, "kjv", 20, evaluation=True)
    texts = [json.loads(line)["text"] for line in dataset_path("kjv", evaluation=True).read_text().splitlines()]
    encoded = [runtime.tokenizer(text)["input_ids"] for text in texts]
    assert windows.shape[1] == 20
    assert {tuple(row) for row in windows.tolist()} <= {tuple(ids[:20]) for ids in encoded}


def test_windows_longer_than_every_text_are_refused(runtime):
    with pytest.raises(InputError, match="ask for fewer"):
        experiment.text_windows(runtime, "chat", 250)


def test_training_lowers_the_loss_and_leaves_no_gradient_behind(runtime):
    maps = experiment.block_maps(runtime)
    leaves = [one.parameter for one in maps.values()]
    kept = [leaf.detach().clone() for leaf in leaves]
    examples = experiment.shipped_examples(runtime, "kjv", limit=4, tokens=16)
    before = experiment.loss_of(runtime, examples)
    seen: list[int] = []
    losses = experiment.train_leaves(runtime, leaves, examples, steps=6, rate=1e-3, batch=4, after=seen.append)
    assert experiment.loss_of(runtime, examples) < before
    assert np.isclose(losses[0], before, atol=1e-4)
    assert seen == list(range(6))
    assert all(leaf.grad is None and not leaf.requires_grad for leaf in leaves)
    with torch.no_grad():
        for leaf, start in zip(leaves, kept, strict=True):
            leaf.copy_(start)
