"""One base, several adapters: each gives the logits that PEFT alone gives, and the base stays what it was."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from geonb.errors import InputError
from geonb.workbench.bench import Bench, adapter_folder

# transformers warns about itself whenever PEFT loads an adapter
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
IDS = list(range(5, 25))


@pytest.fixture(scope="module")
def stronger(adapter, tmp_path_factory):
    """The same adapter with twice the scale."""
    folder = shutil.copytree(adapter, tmp_path_factory.mktemp("stronger") / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["lora_alpha"] *= 2
    config["alpha_pattern"] = {key: 2 * value for key, value in config["alpha_pattern"].items()}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def logits(network):
    with torch.no_grad():
        return network(input_ids=torch.tensor([IDS]), use_cache=False).logits[0]


def rewritten(adapter, folder, rename=lambda key: key, add=None, **changes):
    """A copy of the adapter with other keys, more tensors, or other fields in its config."""
    shutil.copytree(adapter, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
    tensors = {rename(key): value for key, value in load_file(folder / "adapter_model.safetensors").items()}
    save_file({**tensors, **(add or {})}, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def test_each_adapter_gives_the_logits_that_it_gives_alone(model, adapter, alone, stronger):
    bench = Bench.open(model, {"once": adapter, "twice": stronger}, device="cpu")
    assert bench.labels == ("once", "twice")
    for label, folder in (("twice", stronger), (None, None), ("once", adapter), ("twice", stronger), (None, None)):
        with bench.using(label):
            assert torch.equal(bench.runtime.logits(IDS), logits(alone(model, folder))), label


def test_outside_the_block_no_adapter_is_on(model, adapter, alone, stronger):
    bench = Bench.open(model, {"once": adapter}, device="cpu")
    bare = logits(alone(model, None))
    assert torch.equal(bench.runtime.logits(IDS), bare)
    with pytest.raises(RuntimeError, match="in the block"), bench.using("once"):
        raise RuntimeError("in the block")
    assert torch.equal(bench.runtime.logits(IDS), bare)
    bench.add("twice", stronger)
    assert torch.equal(bench.runtime.logits(IDS), bare)


def test_a_run_stands_for_its_adapter(adapter):
    assert adapter_folder(adapter.parent) == adapter


def test_what_is_no_adapter_is_refused_in_a_sentence(model, adapter, tmp_path):
    with pytest.raises(InputError, match=r"holds no adapter_config\.json"):
        Bench.open(model, {"a": tmp_path})
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match="as a pickle"):
        Bench.open(model, {"a": tmp_path})
    bench = Bench.open(model, {"a": adapter}, device="cpu")
    with pytest.raises(InputError, match="two adapters were called 'a'"):
        bench.add("a", adapter)
    with pytest.raises(InputError, match="there is no adapter 'b'; loaded are a"), bench.using("b"):
        pass


def test_an_adapter_of_another_model_is_refused(adapter):
    with pytest.raises(InputError, match="does not fit embedded"):
        Bench.open("embedded", {"a": adapter}, device="cpu")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        *(({"init_lora_weights": start}, f"init_lora_weights '{start}'") for start in ("pissa", "olora", "corda", "loftq")),
        ({"init_lora_weights": "PiSSA_niter_4"}, "init_lora_weights 'PiSSA_niter_4'"),
        ({"init_lora_weights": "lora_ga"}, "init_lora_weights 'lora_ga'"),
        ({"layer_replication": [[0, 2], [0, 2]]}, "layer_replication"),
        ({"kasa_config": {}}, "kasa_config"),
    ],
)  # fmt: skip
def test_an_adapter_that_changes_the_base_is_refused_by_its_field(model, adapter, tmp_path, changes, field):
    bench = Bench.open(model, {"once": adapter}, device="cpu")
    with bench.using(None):
        before = bench.runtime.logits(IDS)
    with pytest.raises(InputError, match=rf"changes its base as it is loaded \({field}\): a bench needs one"):
        bench.add("other", rewritten(adapter, tmp_path / "a", **changes))
    assert bench.labels == ("once",)
    with bench.using(None):
        assert torch.equal(bench.runtime.logits(IDS), before)


@pytest.mark.parametrize("start", [True, False, "gaussian", "eva", "orthogonal", "mica"])
def test_an_adapter_whose_start_leaves_the_base_alone_is_loaded(model, adapter, alone, tmp_path, start):
    folder = rewritten(
        adapter,
        tmp_path / "a",
        init_lora_weights=start,
        eva_config={} if start == "eva" else None,
        r=14,
        rank_pattern={".*": 14},
    )
    tensors = load_file(folder / "adapter_model.safetensors")
    for key, value in tensors.items():
        # PEFT's orthogonal start needs an even rank; zeros in the new places change nothing
        wide = torch.zeros((14, value.shape[1]) if "lora_A" in key else (value.shape[0], 14))
        wide[: value.shape[0], : value.shape[1]] = value
        tensors[key] = wide
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    bench = Bench.open(model, {"a": folder}, device="cpu")
    with bench.using(None):
        assert torch.equal(bench.runtime.logits(IDS), logits(alone(model)))
    with bench.using("a"):
        assert torch.allclose(bench.runtime.logits(IDS), logits(alone(model, folder)))


def test_a_file_that_writes_over_the_base_is_refused_and_the_base_put_back(model, adapter, alone, tmp_path):
    key = "base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight"
    own = alone(model).state_dict()["model.layers.0.self_attn.q_proj.weight"]
    bench = Bench.open(model, {"once": adapter}, device="cpu")
    for name in ("first", "second"):  # on a bare base and beside another adapter
        bench = Bench.open(model, {"once": adapter} if name == "second" else {}, device="cpu")
        with pytest.raises(
            InputError, match=r"changes its base or another adapter as it is loaded \(its file holds base_mod"
        ):
            bench.add("bad", rewritten(adapter, tmp_path / name, add={key: own + 1}))
        with bench.using(None):
            assert torch.equal(bench.runtime.logits(IDS), logits(alone(model)))
        bench.add("same", rewritten(adapter, tmp_path / f"{name} same", add={key: own.clone()}))
        with bench.using("same"):
            assert torch.equal(bench.runtime.logits(IDS), logits(alone(model, adapter)))


def test_a_file_that_writes_over_another_adapter_is_refused_and_that_one_put_back(model, adapter, alone, tmp_path):
    bench = Bench.open(model, {"once": adapter}, device="cpu")
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.adapter0.weight"
    other = torch.ones_like(load_file(adapter / "adapter_model.safetensors")[key.replace(".adapter0", "")])
    with pytest.raises(InputError, match="changes its base or another adapter"):
        bench.add("bad", rewritten(adapter, tmp_path / "bad", add={key: other}))
    with bench.using("once"):
        assert torch.equal(bench.runtime.logits(IDS), logits(alone(model, adapter)))


def test_a_bench_is_as_it_was_after_an_adapter_that_does_not_fit(model, adapter, alone, stronger, tmp_path):
    wrong = rewritten(adapter, tmp_path / "wrong", r=3, rank_pattern={}, init_lora_weights=False)
    gone = rewritten(
        adapter, tmp_path / "gone", rename=lambda key: key.replace("q_proj", "x_proj"), init_lora_weights=False
    )
    bench = Bench.open(model, device="cpu")
    for label, folder in (("once", adapter), ("twice", stronger)):
        for bad in (wrong, gone):
            with pytest.raises(InputError, match=r"does not fit|lacks factors"):
                bench.add(label, bad)
            with bench.using(None):
                assert torch.equal(bench.runtime.logits(IDS), logits(alone(model)))
        bench.add(label, folder)
    for label, folder in (("once", adapter), ("twice", stronger)):
        with bench.using(label):
            assert torch.equal(bench.runtime.logits(IDS), logits(alone(model, folder)))


def test_keys_with_pefts_default_name_are_read_as_peft_reads_them(model, adapter, alone, stronger, tmp_path):
    named = rewritten(adapter, tmp_path / "named", rename=lambda key: key.replace(".weight", ".default.weight"))
    expected = logits(alone(model, named))
    assert torch.equal(expected, logits(alone(model, adapter)))
    bench = Bench.open(model, {"named": named, "twice": stronger, "again": named}, device="cpu")
    for label in ("named", "again"):
        with bench.using(label):
            assert torch.equal(bench.runtime.logits(IDS), expected)
    with bench.using("twice"):
        assert torch.equal(bench.runtime.logits(IDS), logits(alone(model, stronger)))


def test_keys_with_another_name_or_with_two_are_refused_in_a_sentence(model, adapter, tmp_path):
    other = rewritten(adapter, tmp_path / "other", rename=lambda key: key.replace(".weight", ".mine.weight"))
    with pytest.raises(InputError, match="lacks factors that its config promises"):
        Bench.open(model, {"a": other}, device="cpu")
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.default.weight"
    twice = rewritten(adapter, tmp_path / "twice", add={key: torch.zeros(32, 13)})
    with pytest.raises(InputError, match="stored twice"):
        Bench.open(model, {"a": twice}, device="cpu")


@pytest.mark.parametrize("tokens", [{"x": None}, "ab", [], ["a"], 5, [True]])
def test_invocation_tokens_that_are_no_list_of_tokens_are_refused(model, adapter, tmp_path, tokens):
    with pytest.raises(InputError, match="alora_invocation_tokens that are no list of token ids: save"):
        Bench.open(model, {"a": rewritten(adapter, tmp_path / "a", alora_invocation_tokens=tokens)}, device="cpu")


def test_an_adapter_that_acts_after_its_invocation_tokens_is_loaded(model, adapter, alone, tmp_path):
    folder = rewritten(adapter, tmp_path / "a", alora_invocation_tokens=IDS[3:5])
    bench = Bench.open(model, {"a": folder}, device="cpu")
    with bench.using("a"):
        assert torch.equal(bench.runtime.logits(IDS), logits(alone(model, folder)))


def test_a_model_that_holds_an_adapter_is_not_loaded_with_it_unseen(model, adapter, tmp_path):
    both = shutil.copytree(model, tmp_path / "both")
    for path in adapter.iterdir():
        shutil.copy(path, both)
    with pytest.raises(InputError, match="holds an adapter beside its weights, and transformers would apply it unseen"):
        Bench.open(both, device="cpu")
