"""Pretraining of the models that are trained here: the same bits whenever and however often interrupted it is run."""

import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from geonb.assets import embedded_model_folder
from geonb.assets.build.pretrain import PEAK_RATE, pretrain, rate_at
from geonb.errors import InputError


def small():
    torch.manual_seed(3)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=2048, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=128, tie_word_embeddings=True,
        )
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train.txt").write_text("\n\n".join(f"Call number {i} returns the value {i * i}." for i in range(400)))
    return tmp_path


def trained(folder, steps, **more):
    path = pretrain(folder, embedded_model_folder(), steps=steps, make=small, log_every=2, **more)
    return torch.load(path, weights_only=True)


def same(one, other):
    return all(torch.equal(tensor, other["model"][name]) for name, tensor in one["model"].items())


def test_a_run_gives_the_same_bits_whatever_the_machine_does_beside_it(folder):
    first = trained(folder, 6, name="first")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert same(first, trained(folder, 6, name="second"))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert not same(first, trained(folder, 7, name="longer"))


def test_a_run_that_was_killed_goes_on_to_the_bits_of_one_that_was_not(folder):
    whole = trained(folder, 6, name="whole")
    made = small()
    given = []

    def dies_at_the_fourth():
        forward = made.forward

        def counted(**inputs):
            given.append(1)
            if len(given) == 4:
                raise KeyboardInterrupt
            return forward(**inputs)

        made.forward = counted
        return made

    with pytest.raises(KeyboardInterrupt):
        pretrain(folder, embedded_model_folder(), steps=6, make=dies_at_the_fourth, name="parts", save_every=0)
    assert torch.load(folder / "parts.pt", weights_only=True)["step"] == 3
    parts = trained(folder, 6, name="parts")
    assert same(whole, parts) and parts["step"] == 6
    # what is done is not done again
    before = (folder / "parts.pt").read_bytes()
    trained(folder, 6, name="parts")
    assert (folder / "parts.pt").read_bytes() == before


def test_a_checkpoint_of_a_run_of_another_length_is_refused_and_kept(folder):
    trained(folder, 4)
    before = (folder / "pretrain.pt").read_bytes()
    with pytest.raises(InputError, match="is of a run of 4 steps, and 6 were asked for"):
        trained(folder, 6)
    assert (folder / "pretrain.pt").read_bytes() == before


def test_its_log_names_the_step_the_loss_and_the_rate(folder):
    trained(folder, 6)
    lines = [json.loads(line) for line in (folder / "pretrain.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6] and all(line["of"] == 6 for line in lines)
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_every_step_is_told_with_its_loss_and_those_of_before_are_not_told_again(folder):
    told = []
    trained(folder, 4, progress=lambda *said: told.append(said))
    logged = [json.loads(line) for line in (folder / "pretrain.jsonl").read_text().splitlines()]
    assert [said[:2] for said in told] == [(step, 4) for step in (1, 2, 3, 4)]
    assert [said[2] for said in told[1::2]] == [line["loss"] for line in logged]
    trained(folder, 4, progress=lambda *said: told.append(said))
    assert len(told) == 4


def test_the_rate_rises_holds_and_falls_to_zero():
    assert rate_at(0, 1000) == pytest.approx(PEAK_RATE / 100)
    assert rate_at(99, 1000) == rate_at(500, 1000) == rate_at(749, 1000) == PEAK_RATE
    assert rate_at(875, 1000) == pytest.approx(PEAK_RATE / 2)
    assert 0 < rate_at(999, 1000) < PEAK_RATE / 100
