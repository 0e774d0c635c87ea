"""What is collected is what transformers itself says of its hidden states, wherever it is kept and however it is pooled."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from geonb.analysis import Activations, collect
from geonb.analysis.blocks import find_blocks, parts_of
from geonb.errors import InputError
from geonb.models import Checkpoint, TorchRuntime
from geonb.workbench.bench import Bench
from tests.families import CAUSAL, write_tiny

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
TEXTS = ["In the beginning was the word", "Hello", "and it came to pass", "Hello there, and it was so"]


@pytest.fixture(scope="module", params=["llama", "gpt2", "lfm2"])
def family(request, tmp_path_factory):
    folder = write_tiny(request.param, tmp_path_factory.mktemp("families") / request.param)
    return TorchRuntime.load(Checkpoint.open(folder), device="cpu")


def hidden_states(runtime, text):
    """transformers' own hidden states: what the first block reads, and what each block writes but the last, which it norms."""
    ids = torch.tensor([runtime.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        found = runtime.model(
            input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True
        ).hidden_states
    return [one[0].numpy() for one in found]


def test_every_layer_is_what_transformers_says(family):
    found = collect(family, TEXTS, pool="tokens")
    assert found.layers == (-1, 0, 1) and found.facts.blocks == 2
    for number, text in enumerate(TEXTS):
        own = hidden_states(family, text)
        for layer in (-1, 0):
            assert np.allclose(found.matrix(layer)[found.rows == number], own[layer + 1], atol=1e-5)
        _, blocks = find_blocks(family.model)
        assert list(found.places[found.rows == number]) == list(range(len(own[0])))
    # the last block's output, before the final norm, by a hook of its own
    seen = []
    handle = blocks[-1].register_forward_hook(lambda *given: seen.append(given[-1]))
    hidden_states(family, TEXTS[0])
    handle.remove()
    written = seen[0][0] if isinstance(seen[0], tuple) else seen[0][None][0]
    assert np.allclose(found.matrix(1)[found.rows == 0], written.reshape(-1, 64).numpy(), atol=1e-5)


def test_the_state_between_a_blocks_parts_is_its_input_and_its_mixers_output(family):
    found = collect(family, TEXTS[:1], pool="tokens")
    _, blocks = find_blocks(family.model)
    mixer, _ = parts_of(blocks[1])
    seen = []
    handle = mixer.register_forward_hook(lambda *given: seen.append(given[-1]))
    own = hidden_states(family, TEXTS[0])
    handle.remove()
    added = (seen[0][0] if isinstance(seen[0], tuple) else seen[0]).reshape(-1, 64).numpy()
    assert np.allclose(found.matrix(1, "mid"), own[1] + added, atol=1e-5)


@pytest.mark.parametrize("name", CAUSAL)
def test_every_family_is_collected_with_the_state_between_its_parts(name, tmp_path):
    found = collect(write_tiny(name, tmp_path / name), ["and it was so"], device="cpu")
    assert found.facts.stored == (("out", -1), ("out", 0), ("out", 1), ("mid", 0), ("mid", 1))
    assert found.matrix(1, "mid").shape == (1, 64) and np.isfinite(found.matrix(1, "mid")).all()


def test_pools_are_those_of_the_tokens(family):
    tokens = collect(family, TEXTS, pool="tokens")
    for pool, of in (
        ("mean", lambda x: x.mean(0)),
        ("last", lambda x: x[-1]),
        ("mean-no-first", lambda x: x[1:].mean(0)),
    ):
        pooled = collect(family, TEXTS, pool=pool)
        by_hand = np.stack([of(tokens.matrix(1)[tokens.rows == text]) for text in range(len(TEXTS))])
        assert np.allclose(pooled.matrix(1), by_hand, atol=1e-5) and pooled.n == len(TEXTS)
        assert np.allclose(tokens.matrix(1, pool=pool), by_hand, atol=1e-6)
        assert np.allclose(tokens.matrix(1, "mid", pool=pool), pooled.matrix(1, "mid"), atol=1e-5)


def test_positions_choose_tokens_from_either_end(family):
    tokens = collect(family, TEXTS, pool="tokens")
    ends = collect(family, TEXTS, pool="tokens", positions=(0, -1), states=("out",))
    for text, length in enumerate(ends.facts.lengths):
        assert list(ends.places[ends.rows == text]) == [0, length - 1]
        assert np.allclose(ends.matrix(0)[ends.rows == text], tokens.matrix(0)[tokens.rows == text][[0, -1]], atol=1e-5)


def test_a_folder_holds_what_memory_holds_as_plain_safetensors(family, tmp_path):
    folder = tmp_path / "kept"
    memory, disk = collect(family, TEXTS), collect(family, TEXTS, folder=folder)
    assert sorted(one.name for one in folder.iterdir())[0] == "activations.json" and len(list(folder.iterdir())) == 6
    for state, layer in memory.facts.stored:
        assert np.array_equal(memory.matrix(layer, state), disk.matrix(layer, state))
    raw = load_file(folder / "mid-1.safetensors")
    assert raw["mid"].dtype == np.float32 and np.array_equal(raw["mid"], memory.matrix(1, "mid"))
    assert Activations.load(folder).facts == memory.facts
    with pytest.raises(InputError, match="exists; allowed is a new folder, or overwrite=True"):
        collect(family, TEXTS, folder=folder)
    assert collect(family, TEXTS[:2], folder=folder, overwrite=True).n == 2
    assert [one.name for one in tmp_path.iterdir()] == ["kept"]


def test_nothing_half_written_is_left_when_a_run_dies(family, tmp_path):
    def stop(*given):
        raise KeyboardInterrupt

    def hooks():
        return [(len(one._forward_hooks), len(one._forward_pre_hooks)) for one in family.model.modules()]

    before = hooks()
    with pytest.raises(KeyboardInterrupt):
        collect(family, TEXTS, folder=tmp_path / "kept", progress=stop)
    assert list(tmp_path.iterdir()) == []
    assert hooks() == before


def test_no_folder_but_one_of_activations_is_ever_replaced(family, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="exists"):
        collect(family, TEXTS, folder=tmp_path / "mine", overwrite=True)


def test_chosen_layers_bring_their_predecessors(runtime):
    found = collect(runtime, TEXTS, layers=[3])
    assert (
        found.layers == (3,) and found.has(2) and not found.has(1) and found.has(3, "mid") and not found.has(2, "mid")
    )
    with pytest.raises(InputError, match="the state 'out' of layer 1 was not collected; there are out 2, out 3, mid 3"):
        found.matrix(1)


def test_a_trajectory_is_one_texts_tokens_over_the_blocks(runtime):
    found = collect(runtime, TEXTS, pool="tokens", states=("out",))
    path = found.trajectory(2)
    assert path.shape == (4, found.facts.lengths[2], 256)
    assert (
        np.array_equal(path[3], found.matrix(3)[found.rows == 2]) and found.trajectory(2, embedding=True).shape[0] == 5
    )
    with pytest.raises(InputError, match="collect with pool='tokens'"):
        collect(runtime, TEXTS).trajectory(0)
    with pytest.raises(InputError, match="text 9 was asked for"):
        found.trajectory(9)


def test_an_adapter_that_is_on_is_collected(model, adapter):
    bench = Bench.open(model, {"mine": adapter}, device="cpu")
    off = collect(bench, TEXTS)
    with bench.using("mine"):
        on = collect(bench, TEXTS)
    assert not np.allclose(off.matrix(1), on.matrix(1)) and np.array_equal(
        collect(bench, TEXTS).matrix(1), off.matrix(1)
    )


def test_ids_need_no_tokenizer_and_a_plain_model_is_taken_as_it_is(runtime):
    ids = [runtime.tokenizer(text)["input_ids"] for text in TEXTS]
    assert np.array_equal(collect(runtime.model, ids).matrix(2), collect(runtime, TEXTS).matrix(2))
    with pytest.raises(InputError, match="to a model without a tokenizer"):
        collect(runtime.model, TEXTS)


def test_a_block_whose_parts_do_not_add_up_is_refused_before_anything_is_kept(tmp_path):
    import transformers

    arguments = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8,
                 "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip
    config = transformers.Gemma2Config(**arguments, pad_token_id=0, bos_token_id=None, eos_token_id=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sandwiched = transformers.Gemma2ForCausalLM(config).eval()  # norms what its parts write
    with pytest.raises(InputError, match=r"do not add up to what it writes .* allowed for it is states=\('out',\)"):
        collect(sandwiched, [[5, 6, 7]], folder=tmp_path / "kept")
    assert list(tmp_path.iterdir()) == []
    assert collect(sandwiched, [[5, 6, 7]], states=("out",)).matrix(1).shape == (1, 32)


@pytest.mark.parametrize(
    ("texts", "options", "sentence"),
    [
        ("one text", {}, "no list of texts was given"),
        ([], {}, "no list of texts was given"),
        ([""], {}, "the prompt is empty"),
        ([[]], {}, "text 0 has no tokens"),
        ([list(range(600))], {}, "text 0 has 600 tokens and the model reads"),
        (TEXTS, {"pool": "median"}, "the pooling 'median' was given; allowed are mean, last"),
        (TEXTS, {"states": ("mid",)}, "the states"),
        (TEXTS, {"states": "out"}, "the states 'out' were given"),
        (TEXTS, {"layers": [4]}, r"the layers \[4\] were given; allowed are -1 .* to 3"),
        (TEXTS, {"layers": []}, "the layers"),
        (TEXTS, {"positions": (50,)}, "text 0 has 10 tokens and the positions|text 0 has"),
        ([[5]], {"pool": "mean-no-first"}, "of which mean-no-first leaves none"),
        (TEXTS, {"limit_memory": 1000}, "need .* of memory and 0.001 MB are allowed: give folder="),
        (TEXTS, {"folder": "no/such/place"}, "make its parent first"),
    ],
)
def test_what_cannot_be_collected_is_refused(runtime, texts, options, sentence):
    with pytest.raises(InputError, match=sentence):
        collect(runtime, texts, **options)


def test_what_is_no_model_or_in_training_is_refused(runtime, tmp_path):
    with pytest.raises(InputError, match="a int was given as a model"):
        collect(3, TEXTS)
    runtime.model.train()
    try:
        with pytest.raises(InputError, match="in training mode"):
            collect(runtime.model, [[5, 6]])
    finally:
        runtime.model.eval()
    with pytest.raises(InputError, match=r"has no list of None blocks"):
        collect(torch.nn.Linear(2, 2).eval(), [[5, 6]])
    with pytest.raises(InputError, match=r"holds no activations\.json"):
        Activations.load(tmp_path)
