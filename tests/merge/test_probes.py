"""What the target's maps see: the streamed Gram matrices against activations that are written out in full."""

import json

import numpy as np
import pytest
import torch

from geonb.errors import InputError
from geonb.merge.probes import capture, gather_texts, gram_bytes, passes, shared_inputs
from geonb.models.checkpoint import Checkpoint
from geonb.models.runtime import TorchRuntime
from tests.families import write_tiny
from tests.tiny import sums


def write(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture(scope="module", params=["llama", "gpt2", "mixtral", "lfm2"])
def loaded(request, tmp_path_factory):
    folder = write_tiny(request.param, tmp_path_factory.mktemp("probes") / request.param)
    (folder.parent / "sums.jsonl").write_text(sums())
    checkpoint = Checkpoint.open(folder)
    texts = gather_texts(checkpoint, probes=folder.parent / "sums.jsonl")
    runtime = TorchRuntime.load(checkpoint, device="cpu")
    refs = [ref for ref in checkpoint.refs if ref.targetable]
    return runtime, refs, shared_inputs(runtime.model, refs, texts.probes[0], runtime.device), texts.probes[:12]


def test_the_gram_matrices_are_those_of_the_stacked_inputs(loaded):
    runtime, refs, shared, examples = loaded
    found = capture(runtime, refs, shared, examples)
    for ref in refs:
        if ref.expert is not None:
            continue
        rows = []
        handle = runtime.module(ref.module).register_forward_hook(
            lambda module, args, output, rows=rows: rows.append(args[0].flatten(0, -2).double())
        )
        for example in examples:
            runtime.logits(example.input_ids)
        handle.remove()
        stacked = torch.cat(rows).numpy()
        gram = found[shared[ref.name]]
        assert gram.tokens == len(stacked) == sum(len(example.input_ids) for example in examples)
        assert np.allclose(gram.gram, stacked.T @ stacked, rtol=1e-9, atol=1e-9)


def test_matrices_share_a_gram_matrix_only_where_they_read_the_same_input(loaded):
    _, refs, shared, _ = loaded
    by_name = {ref.name: ref for ref in refs}
    for name, first in shared.items():
        one, other = by_name[name], by_name[first]
        assert (one.layer, one.shape[1]) == (other.layer, other.shape[1])
    roles = {ref.role: shared[ref.name] for ref in refs if ref.layer == 1 and ref.expert is None}
    if {"q", "k", "v"} <= set(roles):
        assert roles["q"] == roles["k"] == roles["v"] != roles["o"]


def test_watching_changes_nothing_and_leaves_no_hook_behind(loaded):
    runtime, refs, shared, examples = loaded
    before = runtime.logits(examples[0].input_ids)
    capture(runtime, refs, shared, examples[:2])
    assert torch.equal(runtime.logits(examples[0].input_ids), before)
    assert not any(module._forward_pre_hooks for module in runtime.model.modules())


def test_each_expert_sees_the_tokens_that_the_router_sends_it(tmp_path):
    folder = write_tiny("mixtral", tmp_path / "mixtral")
    (tmp_path / "sums.jsonl").write_text(sums())
    checkpoint = Checkpoint.open(folder)
    examples = gather_texts(checkpoint, probes=tmp_path / "sums.jsonl").probes[:10]
    runtime = TorchRuntime.load(checkpoint, device="cpu")
    refs = [ref for ref in checkpoint.refs if ref.expert is not None and ref.layer == 0]
    found = capture(runtime, refs, {ref.name: ref.name for ref in refs}, examples)
    experts = runtime.module(refs[0].module)
    sent = {}

    def keep(module, args):
        hidden, index, _ = args
        for expert in range(experts.num_experts):
            sent.setdefault(expert, []).append(hidden.reshape(-1, hidden.shape[-1])[(index == expert).any(-1)].double())

    handle = experts.register_forward_pre_hook(keep)
    for example in examples:
        runtime.logits(example.input_ids)
    handle.remove()
    for expert, rows in sent.items():
        inputs = torch.cat(rows)
        first = found[f"{refs[0].module}.gate_up_proj[{expert}]"]
        assert first.tokens == len(inputs) and torch.allclose(first.gram, inputs.mT @ inputs, atol=1e-8)
        gate, up = (inputs @ experts.gate_up_proj[expert].double().mT).chunk(2, dim=-1)
        inner = torch.nn.functional.silu(gate) * up
        second = found[f"{refs[0].module}.down_proj[{expert}]"].gram
        assert torch.allclose(second, inner.mT @ inner, rtol=1e-4, atol=1e-5)


def test_passes_hold_no_more_than_the_memory_they_are_given(loaded):
    _, refs, shared, _ = loaded
    whole = gram_bytes(refs, shared)
    assert whole == sum(16 * size**2 for size in {shared[ref.name]: ref.shape[1] for ref in refs}.values())
    assert len(passes(refs, shared, memory=whole)) == 1
    for memory in (whole // 2, whole // 3, 1):
        groups = passes(refs, shared, memory=memory)
        assert sorted(ref.name for group in groups for ref in group) == sorted(ref.name for ref in refs)
        for group in groups:
            # what does not fit alone stands alone
            assert gram_bytes(group, shared) <= memory or len({shared[ref.name] for ref in group}) == 1


def test_a_fifth_of_the_contents_is_set_aside_and_equal_texts_stay_together(tmp_path):
    path = write(tmp_path / "texts.jsonl", [f"text number {index % 40} of many" for index in range(100)])
    checkpoint = Checkpoint.open("embedded")
    texts = gather_texts(checkpoint, probes=path)
    kept, held = ({example.digest for example in part} for part in (texts.probes, texts.held_out))
    assert len(held) == 8 and len(kept) == 32 and not kept & held
    assert len(texts.probes) + len(texts.held_out) == 100
    assert gather_texts(checkpoint, probes=path).digests == texts.digests
    assert gather_texts(checkpoint, probes=path, seed=1).digests != texts.digests


def test_embedded_brings_its_own_held_out_text():
    texts = gather_texts(Checkpoint.open("embedded"))
    assert texts.sources["probes"] == "embedded:retention" and len(texts.probes) == 154 and len(texts.held_out) == 38


def test_a_held_out_text_that_is_a_probe_is_left_out(tmp_path):
    probes = write(tmp_path / "a.jsonl", [f"text number {index}" for index in range(20)])
    held = write(tmp_path / "b.jsonl", [f"text number {index}" for index in range(18, 24)])
    texts = gather_texts(Checkpoint.open("embedded"), probes=probes, held_out=held)
    assert len(texts.held_out) == 4 and "2 of 6 held-out texts are probes too" in texts.notes[0]


def test_texts_that_cannot_serve_are_refused_in_a_sentence(tmp_path):
    checkpoint = Checkpoint.open("embedded")
    elsewhere = Checkpoint.open(write_tiny("llama", tmp_path / "llama"))
    with pytest.raises(InputError, match=r"no probes were given for .*: give --probes FILE"):
        gather_texts(elsewhere)
    few = write(tmp_path / "few.jsonl", [f"text {index}" for index in range(6)])
    one = write(tmp_path / "one.jsonl", ["just one"])
    with pytest.raises(InputError, match="6 different probes were given; to set a fifth aside it takes 10"):
        gather_texts(checkpoint, probes=few)
    with pytest.raises(InputError, match="which is the probes' own file"):
        gather_texts(checkpoint, probes=few, held_out=few)
    with pytest.raises(InputError, match="1 held-out texts are left; an interval needs 2"):
        gather_texts(checkpoint, probes=few, held_out=one)
    with pytest.raises(InputError, match="1 donor texts were given"):
        gather_texts(checkpoint, donor_text=one)
    with pytest.raises(InputError, match="1 tokens a text were given"):
        gather_texts(checkpoint, max_tokens=1)
    with pytest.raises(InputError, match="is not a file"):
        gather_texts(checkpoint, probes=tmp_path / "none.jsonl")
