"""Models under a condition: each is the base but for the one change that its name says, and always the same bytes."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.geometry import stream_geometry
from geonb.models.runtime import TorchRuntime
from geonb.plan.inputs import load_inputs
from geonb.train.objective import evaluate
from geonb.workbench.benchmark import derived
from geonb.workbench.benchmark.arm import OPEN
from geonb.workbench.benchmark.conditions import WEIGHTS, parted
from geonb.workbench.benchmark.derived import derived_source
from geonb.workbench.benchmark.job import Job
from geonb.workbench.benchmark.models import model_source, models_folder
from geonb.workbench.benchmark.plans import plan_of
from geonb.workbench.benchmark.queue import of_models_here
from tests.families import write_tiny
from tests.tiny import tiny_model
from tests.workbench.benchmark.small import row_of, small_sets

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
IDS = list(range(7, 60))


@pytest.fixture
def base(tmp_path_factory):
    return tiny_model(tmp_path_factory)


def tensors(folder):
    return load_file(f"{folder}/model.safetensors")


def logits(folder):
    return TorchRuntime.load(Checkpoint.open(folder), device="cpu").logits(IDS)


def spectra(folder):
    return {one.ref.name: one.spectrum for one in stream_geometry(Checkpoint.open(folder))}


@pytest.mark.parametrize("condition", [name for name in WEIGHTS if name != "after-chat"])
def test_a_condition_is_made_once_and_from_the_same_base_always_the_same_bytes(condition, base, tmp_path):
    first, second = (derived_source(str(base), condition, tmp_path / place) for place in ("a", "b"))
    assert Checkpoint.open(first).digest == Checkpoint.open(second).digest != Checkpoint.open(base).digest
    before = [path.stat().st_mtime_ns for path in sorted((tmp_path / "a").rglob("*"))]
    assert derived_source(str(base), condition, tmp_path / "a") == first
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "a").rglob("*"))] == before
    assert len(list((tmp_path / "a").iterdir())) == 1
    assert Checkpoint.open(first).load_tokenizer().get_vocab() == Checkpoint.open(base).load_tokenizer().get_vocab()
    assert {name: value.shape for name, value in tensors(first).items()} == {
        name: value.shape for name, value in tensors(base).items()
    }


def test_a_look_at_the_rows_makes_no_model(base, tmp_path, monkeypatch):
    monkeypatch.setenv("GEONB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="was not made on this machine"):
        model_source(f"{base}+after-chat", make=False)
    row = row_of(Job(model=f"{base}+bf16", domain="chat", horizon=4, batch=4, seed=0, arm=OPEN), 1.0)
    assert of_models_here({row.key: row}) == {row.key: row}
    assert not list(tmp_path.rglob("config.json"))
    # once it is there, a row of another one is not its
    model_source(f"{base}+bf16")
    assert of_models_here({row.key: row}) == {}


def test_bf16_is_every_weight_as_torch_rounds_it_and_stored_so(base, tmp_path):
    found, whole = tensors(derived_source(str(base), "bf16", tmp_path)), tensors(base)
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    assert all(torch.equal(found[name], whole[name].bfloat16()) for name in whole)
    config = json.loads(next(tmp_path.glob("*/config.json")).read_text())
    assert config["dtype"] == "bfloat16" and "torch_dtype" not in config
    gap = (logits(next(tmp_path.iterdir())) - logits(base)).abs().max()
    assert 0 < gap < 0.05 * logits(base).abs().max()


@pytest.mark.parametrize(("condition", "factor"), [("gains-up", 8.0), ("gains-down", 0.125)])
def test_rescaled_gains_leave_the_function_and_move_every_spectrum_behind_them(condition, factor, base, tmp_path):
    source = derived_source(str(base), condition, tmp_path)
    assert (logits(source) - logits(base)).abs().max() < 1e-4
    before, after = spectra(base), spectra(source)
    moved = {name: before[name].sigma_k / after[name].sigma_k for name in before}
    for name, ratio in moved.items():
        behind = name.split(".")[-2] in {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"}
        assert ratio == pytest.approx(factor if behind else 1.0, rel=1e-5), name
    gains = [name for name in tensors(base) if "layernorm" in name]
    assert len(gains) == 4
    for name in gains:
        assert torch.equal(tensors(source)[name], tensors(base)[name] * factor)


def test_gains_are_rescaled_in_families_alone_where_that_changes_nothing(tmp_path):
    with pytest.raises(InputError, match="it is a gpt2; allowed are llama, mistral, qwen2"):
        derived_source(str(write_tiny("gpt2", tmp_path / "gpt2")), "gains-up", tmp_path / "made")
    assert list((tmp_path / "made").iterdir()) == []


def test_a_dead_layer_hands_on_what_it_gets_and_one_more_matrix_is_zero(base, tmp_path):
    source = derived_source(str(base), "dead", tmp_path)
    found, whole = tensors(source), tensors(base)
    zero = {name for name, tensor in found.items() if not tensor.any()}
    assert zero == {
        "model.layers.0.self_attn.o_proj.weight",
        "model.layers.0.mlp.down_proj.weight",
        "model.layers.1.self_attn.q_proj.weight",
    }
    assert all(torch.equal(found[name], whole[name]) for name in whole if name not in zero)
    model = TorchRuntime.load(Checkpoint.open(source), device="cpu").model
    with torch.no_grad():
        states = model(torch.tensor([IDS]), output_hidden_states=True, use_cache=False).hidden_states
    assert torch.equal(states[0], states[1]) and not torch.equal(states[1], states[2])


def test_random_weights_have_the_bases_config_and_nothing_of_its_weights(base, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    state = torch.random.get_rng_state()
    source = derived_source(str(base), "random", tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state)
    found, whole = tensors(source), tensors(base)
    config = json.loads((base / "config.json").read_text())
    matrices = [name for name, tensor in found.items() if tensor.ndim == 2 and "embed" not in name]
    for name in matrices:
        assert float(found[name].std()) == pytest.approx(config["initializer_range"], rel=0.1)
        assert abs(float(torch.corrcoef(torch.stack([found[name].flatten(), whole[name].flatten()]))[0, 1])) < 0.15
    torch.manual_seed(17)
    expected = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base)).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.fixture
def after_chat(base, tmp_path, monkeypatch):
    """The tiny model after twenty steps on chat."""
    small_sets(monkeypatch)
    monkeypatch.setattr(derived, "_BEFORE", 20)
    monkeypatch.setenv("GEONB_CACHE", str(tmp_path / "cache"))
    return model_source(f"{base}+after-chat")


def test_after_chat_only_the_targets_moved_each_within_its_radius_and_chat_is_learnt(base, after_chat, tmp_path):
    found, whole = tensors(after_chat), tensors(base)
    moved = {name for name in whole if not torch.equal(found[name], whole[name])}
    plan = plan_of(str(base), "chat", 20, 16, 0, tmp_path / "cache" / "benchmark-data")
    assert moved == {target.name for target in plan.chosen()}
    for target in plan.chosen():
        change = torch.linalg.svdvals((found[target.name] - whole[target.name]).double())
        assert 0 < float(change[0]) <= target.sigma_max * (1 + 1e-5)
        assert int((change > 1e-5 * change[0]).sum()) <= target.tail_dims
    inputs = load_inputs(plan)
    losses = [
        evaluate(
            TorchRuntime.load(Checkpoint.open(folder), device="cpu").model, inputs.evaluation, pad=0, device="cpu"
        ).loss
        for folder in (base, after_chat)
    ]
    assert losses[1] < 0.9 * losses[0]
    assert not [
        path.name for path in (tmp_path / "cache" / "benchmark-models" / "derived").iterdir() if "." in path.name
    ]


def test_a_base_that_was_trained_anew_has_conditions_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("GEONB_CACHE", str(tmp_path / "cache"))
    folder = models_folder() / "llama-1m-3k"
    write_tiny("llama", folder)
    first = model_source("llama-1m-3k+bf16")
    changed = {name: tensor * 1.5 for name, tensor in tensors(folder).items()}
    save_file(changed, folder / "model.safetensors", {"format": "pt"})
    second = model_source("llama-1m-3k+bf16")
    assert first != second
    assert all(torch.equal(tensors(second)[name], changed[name].bfloat16()) for name in changed)


def test_a_condition_that_fails_leaves_nothing_behind(base, tmp_path, monkeypatch):
    def half(checkpoint, folder):
        (folder / "config.json").write_text("{}")
        raise OSError("the disk is full")

    monkeypatch.setitem(derived._MAKE, "half", half)
    with pytest.raises(OSError, match="full"):
        derived_source(str(base), "half", tmp_path / "made")
    assert list((tmp_path / "made").iterdir()) == []


def test_every_condition_that_has_a_name_can_be_made():
    assert set(derived._MAKE) == set(WEIGHTS)


def test_a_name_is_parted_at_a_known_condition_and_an_unknown_one_is_a_sentence():
    assert parted("llama-1m-3k+bf16") == ("llama-1m-3k", "bf16")
    assert parted("llama-1m-3k") == ("llama-1m-3k", "")
    # a folder may be called as it likes
    assert parted("/models/a+b") == ("/models/a+b", "") and model_source("/models/a+b") == "/models/a+b"
    with pytest.raises(InputError, match=f"'louder' of a model was given; the benchmark has {', '.join(WEIGHTS)}"):
        model_source("embedded+louder")


def test_a_condition_of_a_model_that_is_not_trained_here_says_how_to_train_it():
    with pytest.raises(InputError, match="llama-9m-2k is not trained on this machine yet: run `geonb benchmark models"):
        model_source("llama-9m-2k+bf16")
