"""Every architecture: roles, orientation against the real model, ties, experts; and a run whose adapter PEFT loads."""

import json

import numpy as np
import pytest
import torch

from geonb.models import Checkpoint, TorchRuntime, checkpoint_geometry, model_capacity, model_info
from tests.families import CAUSAL, FAMILIES, write_tiny

ROLES = {
    "llama": {"q", "k", "v", "o", "gate", "up", "down", "embed", "head"},
    "qwen2": {"q", "k", "v", "o", "gate", "up", "down", "embed", "head"},
    "qwen3": {"q", "k", "v", "o", "gate", "up", "down", "embed", "head"},
    "mistral": {"q", "k", "v", "o", "gate", "up", "down", "embed", "head"},
    "gemma": {"q", "k", "v", "o", "gate", "up", "down", "embed"},
    "phi": {"q", "k", "v", "o", "up", "down", "embed", "head"},
    "phi3": {"fused", "o", "down", "embed", "head"},
    "gpt2": {"fused", "o", "up", "down", "embed"},
    "gpt_neox": {"fused", "o", "up", "down", "embed", "head"},
    "mixtral": {"q", "k", "v", "o", "fused", "down", "router", "embed", "head"},
    "lfm2": {"q", "k", "v", "o", "gate", "up", "down", "conv", "embed"},
    "bert": {"q", "k", "v", "o", "up", "down", "embed", "other"},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def get(family):
        if family not in made:
            made[family] = write_tiny(family, tmp_path_factory.mktemp(family))
        return made[family]

    return get


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_roles_come_from_the_architecture(family, folders):
    checkpoint = Checkpoint.open(folders(family))
    assert {ref.role for ref in checkpoint.refs} == ROLES[family]
    inside = [ref for ref in checkpoint.refs if ref.targetable]
    assert {ref.layer for ref in inside} == {0, 1}
    assert not {ref.role for ref in inside} & {"embed", "head", "router"}
    assert len({ref.name for ref in checkpoint.refs}) == len(checkpoint.refs)
    assert checkpoint.is_causal == (family != "bert") and checkpoint.context_length == 256


@pytest.mark.parametrize("family", CAUSAL)
def test_every_matrix_reads_as_the_model_uses_it(family, folders):
    checkpoint = Checkpoint.open(folders(family))
    model = TorchRuntime.load(checkpoint, device="cpu").model
    parameters = dict(model.named_parameters())
    for ref in checkpoint.refs:
        if ref.expert is not None:
            stored = parameters[ref.name.partition("[")[0]][ref.expert]
        else:
            module = model.get_submodule(ref.module)
            stored = module.weight.mT if type(module).__name__ == "Conv1D" else module.weight.flatten(1)
        assert torch.equal(checkpoint.read(ref).float(), stored), ref.name
        assert tuple(stored.shape) == ref.shape


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_info_and_capacity_accept_every_family(family, folders):
    info = model_info(folders(family))
    assert sum(info.roles.values()) == len(info.matrices) and info.layers == 2
    capacity = model_capacity(folders(family), sort_by="recommended-rank")
    assert all(matrix.recommended_rank < min(matrix.shape) or min(matrix.shape) == 1 for matrix in capacity.matrices)
    assert info.to_html() and capacity.to_html() and "sigma_k" in capacity.to_text()


def test_a_tied_head_is_counted_once(folders):
    refs = Checkpoint.open(folders("gemma")).refs
    assert [ref.role for ref in refs].count("embed") == 1 and "head" not in {ref.role for ref in refs}


def test_shards_read_as_one_model(tmp_path, folders):
    whole = Checkpoint.open(folders("llama"))
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folders("llama"))
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    sharded = Checkpoint.open(tmp_path)
    assert [ref.name for ref in sharded.refs] == [ref.name for ref in whole.refs]
    assert all(torch.equal(sharded.read(ref), whole.read(ref)) for ref in whole.refs)


def test_an_unknown_architecture_still_has_spectra(tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "config.json").write_text(json.dumps({"model_type": "never-heard-of", "architectures": ["Strange"]}))
    save_file({"deep.3.thing": torch.randn(6, 4), "stack": torch.randn(2, 5, 3), "bias": torch.zeros(6)},
              tmp_path / "model.safetensors")  # fmt: skip
    checkpoint = Checkpoint.open(tmp_path)
    assert {ref.role for ref in checkpoint.refs} == {"other"} and len(checkpoint.refs) == 3
    assert not any(ref.targetable for ref in checkpoint.refs)
    for geometry in checkpoint_geometry(checkpoint):
        exact = np.linalg.svd(checkpoint.read(geometry.ref).double().numpy(), compute_uv=False)
        np.testing.assert_allclose(geometry.spectrum.values, exact, rtol=1e-6)


def test_greedy_continuation_is_the_naive_one(folders):
    runtime = TorchRuntime.load(Checkpoint.open(folders("llama")), device="cpu")
    prompts = [[5, 9, 300], [7, 7, 7], [11, 400, 2, 90]]
    for prompt, found in zip(prompts, runtime.generate(prompts, max_new_tokens=6), strict=True):
        ids = list(prompt)
        for _ in range(len(found)):
            ids.append(int(runtime.logits(ids)[-1].argmax()))
        assert ids[len(prompt) :] == found


@pytest.mark.slow
@pytest.mark.parametrize("family", CAUSAL)
def test_a_run_on_every_causal_family_leaves_an_adapter_that_peft_reproduces(family, folders, tmp_path):
    from geonb.plan import build_plan
    from geonb.train import run_training

    data = tmp_path / "sums.jsonl"
    rows = [{"text": f"{i} and {i % 7} make {i + i % 7}."} for i in range(170)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = build_plan(folders(family), data, max_steps=12, calibrate=False)
    run = run_training(plan, output=tmp_path / "run")
    gates = {gate.name: gate for gate in run.verification.gates}
    assert gates["reload through PEFT"].status == "passed", gates["reload through PEFT"].because
    assert gates["reload through PEFT"].value == 0.0
    assert gates["spectral bound"].status == gates["merged = adapter"].status == "passed"
    assert gates["weyl and interlacing"].status == "passed"


@pytest.mark.slow
def test_named_experts_are_trained_and_reload_through_peft(folders, tmp_path):
    from geonb.plan import build_plan
    from geonb.train import run_training

    data = tmp_path / "sums.jsonl"
    rows = [{"text": f"{i} and {i % 7} make {i + i % 7}."} for i in range(170)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = build_plan(folders("mixtral"), data, max_steps=8, calibrate=False, target_experts="L0.E1")
    assert {(target.layer, target.expert) for target in plan.chosen() if target.expert is not None} == {(0, 1)}
    run = run_training(plan, output=tmp_path / "run")
    gates = {gate.name: gate for gate in run.verification.gates}
    assert gates["reload through PEFT"].status == "passed", gates["reload through PEFT"].because
    moved = {layer.name: layer.norm for layer in run.verification.layers if "experts" in layer.name}
    assert len(moved) == 2 and all(norm > 0 for norm in moved.values())
