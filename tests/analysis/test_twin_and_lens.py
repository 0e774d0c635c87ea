"""A twin has the architecture and none of the training; a lens at the last layer is the model itself."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from geonb.analysis import collect, logit_lens, random_twin
from geonb.errors import InputError
from tests.families import write_tiny

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def test_a_twin_has_equal_shapes_other_weights_and_its_seeds_own(runtime):
    first, again, other = random_twin(runtime, 1), random_twin(runtime, 1), random_twin(runtime, 2)
    own, drawn = runtime.model.state_dict(), first.model.state_dict()
    assert {name: value.shape for name, value in own.items()} == {name: value.shape for name, value in drawn.items()}
    name = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(drawn[name], again.model.state_dict()[name])
    assert not torch.allclose(drawn[name], other.model.state_dict()[name]) and not torch.allclose(
        drawn[name], own[name]
    )
    # the initialiser's own spread, which no training left
    assert float(drawn[name].std()) == pytest.approx(runtime.model.config.initializer_range, rel=0.02)
    assert first.tokenizer is runtime.tokenizer and not first.model.training


def test_drawing_a_twin_leaves_the_global_generator_and_the_original_alone(runtime):
    before = runtime.model.lm_head.weight.clone()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    random_twin(runtime, 5)
    assert torch.equal(torch.rand(3), expected) and torch.equal(runtime.model.lm_head.weight, before)


@pytest.mark.parametrize("name", ["gpt2", "lfm2", "mixtral"])
def test_a_source_gives_a_twin_that_runs(name, tmp_path):
    twin = random_twin(write_tiny(name, tmp_path / name), 0, device="cpu")
    assert collect(twin, ["and it was so"]).matrix(1).shape == (1, 64)


def test_a_plain_model_gives_a_plain_model(runtime):
    assert type(random_twin(runtime.model, 1)) is type(runtime.model)


@pytest.mark.parametrize(("given", "sentence"), [(-1, "the seed -1"), (True, "the seed True"), (1.5, "the seed 1.5")])
def test_a_seed_that_is_none_is_refused(runtime, given, sentence):
    with pytest.raises(InputError, match=sentence):
        random_twin(runtime, given)


def test_a_module_without_a_config_has_no_twin():
    with pytest.raises(InputError, match="has no transformers config"):
        random_twin(torch.nn.Linear(2, 2).eval())


@pytest.mark.parametrize("name", ["llama", "gpt2", "lfm2", "gpt_neox", "phi"])
def test_the_lens_at_the_last_layer_is_the_model(name, tmp_path):
    from geonb.models import Checkpoint, TorchRuntime

    runtime = TorchRuntime.load(Checkpoint.open(write_tiny(name, tmp_path / name)), device="cpu")
    found = collect(runtime, ["and it was so"], pool="tokens", states=("out",))
    own = runtime.logits(runtime.tokenizer("and it was so")["input_ids"]).numpy()
    lens = logit_lens(runtime)
    assert np.allclose(lens.logits(found.matrix(1)), own, atol=1e-4)
    shares = np.exp(own.astype(np.float64) - own.max(1, keepdims=True))
    assert np.allclose(lens.entropy(found.matrix(1)), entropy(shares, axis=1), atol=1e-4)


def test_nothing_said_is_the_entropy_of_the_whole_vocabulary(runtime):
    assert logit_lens(runtime).entropy(np.zeros((70, 256))) == pytest.approx(np.log(2048))


def test_a_model_that_changes_its_logits_after_the_head_has_no_lens():
    import transformers

    arguments = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "head_dim": 8,
                 "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip
    config = transformers.Gemma2Config(
        **arguments, pad_token_id=0, bos_token_id=None, eos_token_id=1, final_logit_softcapping=0.01
    )
    with pytest.raises(InputError, match="does more to its logits than its final norm and head do"):
        logit_lens(transformers.Gemma2ForCausalLM(config).eval())
