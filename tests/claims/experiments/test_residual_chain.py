"""The residual chain against a plain forward pass, and the held-out fit against data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from geonb.claims.experiments.residual_chain import chain_of, held_out_errors, joined, mixed_prompts, prompts
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.runtime import TorchRuntime


@pytest.fixture(scope="module")
def runtime():
    return TorchRuntime.load(Checkpoint.open("embedded"), device="cpu")


def test_draws_share_no_prompt_and_all_have_the_length_that_was_asked_for(runtime):
    first, second = (prompts(runtime.tokenizer, "arithmetic", count=20, tokens=40, draw=draw) for draw in (0, 1))
    assert {len(one) for one in (*first, *second)} == {40}
    assert len(first) == len(second) == 20
    assert not {tuple(one) for one in first} & {tuple(one) for one in second}


def test_a_mixture_has_as_many_prompts_as_were_asked_for(runtime):
    assert len(mixed_prompts(runtime.tokenizer, count=7, tokens=8)) == 7


def test_the_angles_are_those_between_the_hidden_states_that_transformers_gives(runtime):
    import torch

    ids = prompts(runtime.tokenizer, "narrative", count=3, tokens=12)
    chain = chain_of(runtime, ids)
    with torch.no_grad():
        output = runtime.model(input_ids=torch.tensor(ids), output_hidden_states=True)
    before, after = (output.hidden_states[place][:, -1].double().numpy() for place in (1, 2))
    cosine = (before * after).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
    assert np.allclose(chain.turning[:, 1], np.arccos(cosine), atol=1e-4)
    # two turns on the way are never shorter than the turn from end to end
    assert (chain.attention + chain.mlp + 1e-6 >= chain.turning).all()
    assert chain.cumulative.shape == (3, 9) and (np.diff(chain.cumulative, axis=1) > 0).all()


def test_chains_of_two_draws_join_row_by_row(runtime):
    ids = prompts(runtime.tokenizer, "narrative", count=4, tokens=12)
    parts = [chain_of(runtime, ids[:2]), chain_of(runtime, ids[2:])]
    assert np.allclose(joined(parts).share, chain_of(runtime, ids).share, atol=1e-4)


def test_a_shared_slope_that_is_there_is_found_and_noise_is_not():
    rng = np.random.default_rng(0)
    within, shared = rng.standard_normal((2, 60, 4))
    target = np.array([1.0, 2, 3, 4]) * within + 2 * shared + 0.1 * rng.standard_normal((60, 4))
    without, having = held_out_errors(target, within, None), held_out_errors(target, within, shared)
    noise = held_out_errors(target, within, rng.permutation(shared))
    assert having.mean() == pytest.approx(0.01, rel=0.5)
    assert noise.mean() > 0.9 * without.mean() > 50 * having.mean()


def test_a_prompt_does_not_help_to_predict_itself():
    target = np.zeros((40, 1))
    target[7] = 1000.0
    # the level that is fitted without the odd prompt is 0, so that all of it is error
    assert held_out_errors(target, np.zeros((40, 1)), None)[7, 0] == pytest.approx(1000.0**2)


def test_an_unknown_source_and_too_little_text_are_refused_in_one_sentence(runtime):
    with pytest.raises(InputError, match="allowed are documentation, narrative, arithmetic"):
        prompts(runtime.tokenizer, "poetry", count=2, tokens=8)
    with pytest.raises(InputError, match="too little text"):
        prompts(runtime.tokenizer, "documentation", count=200, tokens=8)
