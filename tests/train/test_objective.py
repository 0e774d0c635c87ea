"""The loss of counted tokens: what all logits would say, from no more of them than are judged."""

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from geonb.data.example import Example
from geonb.train.counted_logits import counted_logits
from geonb.train.objective import by_length, evaluate, forward_losses, to_tensors
from tests.families import CAUSAL, FAMILIES, write_tiny

CPU = torch.device("cpu")


def example(ids, mask):
    return Example(input_ids=tuple(ids), loss_mask=tuple(mask), text="", digest="", group=None, prompt_ids=(1,))


def examples(count=5, seed=0, words=2048):
    """Of lengths 2 to 11, each token but the first counted or not by a throw of a coin."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        length = int(draw.integers(2, 12))
        made.append(
            example(draw.integers(2, words, length).tolist(), [False, *(draw.random(length - 1) < 0.5).tolist()])
        )
    return made


def expected(model, batch):
    """Losses and entropies of each example from all logits, one token at a time, in double precision."""
    logits = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
    ).logits.double()
    nll, entropy = [], []
    for row, labels in zip(logits, batch["labels"], strict=True):
        judged = [
            (row[place - 1].log_softmax(-1), int(label))
            for place, label in enumerate(labels)
            if place and label != -100
        ]
        nll.append(sum((-told[label] for told, label in judged), torch.zeros((), dtype=torch.float64)))
        entropy.append(sum((-(told.exp() * told).sum() for told, _ in judged), torch.zeros((), dtype=torch.float64)))
    return torch.stack(nll), torch.stack(entropy)


def close(one, other):
    torch.testing.assert_close(one.double(), other.double(), rtol=2e-5, atol=2e-5)


@pytest.fixture(scope="module", params=CAUSAL)
def model(request, tmp_path_factory):
    folder = write_tiny(request.param, tmp_path_factory.mktemp("family") / request.param)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_losses_entropies_and_gradients_are_those_of_all_logits(model):
    batch = to_tensors(examples(), range(5), 0, CPU)
    leaf = model.get_input_embeddings().weight.requires_grad_(True)
    found, (nll, entropy) = forward_losses(model, batch, with_entropy=True), expected(model, batch)
    close(found.nll, nll)
    close(found.entropy, entropy)
    assert found.count.tolist() == [sum(one.loss_mask) for one in examples()]
    ours, theirs = (
        torch.autograd.grad((a.sum() + 0.3 * b.sum()), leaf)[0] for a, b in ((found.nll, found.entropy), (nll, entropy))
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_head_sees_the_counted_tokens_and_no_others(model):
    batch = to_tensors(examples(), range(5), 0, CPU)
    seen = []
    hook = model.get_output_embeddings().register_forward_hook(lambda module, given, out: seen.append(out.shape))
    forward_losses(model, batch)
    hook.remove()
    assert seen == [(1, sum(sum(one.loss_mask) for one in examples()), 2048)]
    # and a model that was asked once answers others in full
    assert model(input_ids=batch["input_ids"], use_cache=False).logits.shape == (*batch["input_ids"].shape, 2048)
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_a_cap_on_the_logits_is_kept(tmp_path):
    """Gemma 2 bends its logits after the head."""
    transformers = importlib.import_module("transformers")
    _, _, arguments = FAMILIES["gemma"]
    torch.manual_seed(0)
    model = transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**arguments, final_logit_softcapping=0.02)).eval()
    batch = to_tensors(examples(), range(5), 0, CPU)
    found, (nll, _) = forward_losses(model, batch), expected(model, batch)
    close(found.nll, nll)
    assert float(counted_logits(model, batch).logits.detach().abs().max()) < 0.02


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_an_adapter_on_the_head_learns_the_same(tmp_path):
    base = AutoModelForCausalLM.from_pretrained(write_tiny("llama", tmp_path / "m"), dtype=torch.float32)
    torch.manual_seed(0)
    wrapped = get_peft_model(base, LoraConfig(r=4, target_modules=["lm_head", "q_proj"], init_lora_weights=False))
    batch = to_tensors(examples(), range(5), 0, CPU)
    leaves = [p for p in wrapped.parameters() if p.requires_grad]
    ours = torch.autograd.grad(forward_losses(wrapped, batch).nll.sum(), leaves)
    theirs = torch.autograd.grad(expected(wrapped, batch)[0].sum(), leaves)
    assert len(leaves) > 4
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-4, atol=1e-5)


class Output:
    def __init__(self, logits):
        self.logits = logits


class Odd(nn.Module):
    """A model of another make: its head is called `times`, by position or by name, or is not named at all."""

    def __init__(self, times=1, *, is_named=True, by_name=False):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(2048, 8), nn.Linear(8, 2048, bias=False)
        self.times, self.is_named, self.by_name = times, is_named, by_name

    def get_output_embeddings(self):
        return self.head if self.is_named else None

    def forward(self, input_ids, attention_mask, use_cache):
        hidden = self.embedding(input_ids)
        for _ in range(self.times):
            logits = self.head(input=hidden) if self.by_name else self.head(hidden)
        return Output(logits if self.times else hidden @ self.head.weight.mT)


@pytest.mark.parametrize("odd", [Odd(), Odd(is_named=False), Odd(2), Odd(0), Odd(by_name=True)])
def test_a_model_whose_head_is_called_otherwise_gives_the_same_losses(odd):
    batch = to_tensors(examples(), range(5), 0, CPU)
    found, (nll, entropy) = forward_losses(odd, batch, with_entropy=True), expected(odd, batch)
    close(found.nll, nll)
    close(found.entropy, entropy)
    assert not odd.head._forward_pre_hooks


def test_a_model_that_fails_leaves_no_hook_behind():
    odd = Odd()
    odd.embedding = None
    with pytest.raises(TypeError):
        forward_losses(odd, to_tensors(examples(), range(5), 0, CPU))
    assert not odd.head._forward_pre_hooks


def test_a_batch_in_which_nothing_is_counted_has_no_loss_and_no_gradient():
    odd = Odd()
    batch = to_tensors([example([5, 6, 7], [False] * 3)] * 2, range(2), 0, CPU)
    found = forward_losses(odd, batch, with_entropy=True)
    assert found.nll.tolist() == found.entropy.tolist() == [0, 0] and found.count.tolist() == [0, 0]
    found.nll.sum().backward()
    assert float(odd.head.weight.grad.abs().max()) == 0


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 2**31))
def test_an_evaluation_is_the_examples_own_whatever_is_batched_with_what(count, size, seed):
    odd, given_examples = Odd(), examples(count, seed)
    if not any(map(any, (one.loss_mask for one in given_examples))):
        given_examples.append(example([5, 6], [False, True]))
    found = evaluate(odd, given_examples, pad=0, device=CPU, batch_size=size)
    alone = [expected(odd, to_tensors([one], [0], 0, CPU)) for one in given_examples]
    counts = np.array([sum(one.loss_mask) for one in given_examples])
    nll = np.array([float(told.detach()) for told, _ in alone])
    np.testing.assert_allclose(found.per_example, nll / np.maximum(counts, 1), rtol=1e-5, atol=1e-6)
    assert found.n_tokens == counts.sum()
    assert found.loss == pytest.approx(nll.sum() / counts.sum(), rel=1e-5)
    assert found.entropy == pytest.approx(sum(float(e.detach()) for _, e in alone) / counts.sum(), rel=1e-5)


@given(st.lists(st.integers(1, 30), max_size=20), st.integers(1, 7))
def test_by_length_every_index_comes_once_and_like_lengths_stand_together(lengths, size):
    made = [example(range(n), [False] * n) for n in lengths]
    parts = list(by_length(made, range(len(made)), size))
    assert sorted(index for part in parts for index in part) == list(range(len(made)))
    assert all(len(part) == size for part in parts[:-1])
    order = [lengths[index] for part in parts for index in part]
    assert order == sorted(order)
