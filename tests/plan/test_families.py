"""Plans of other architectures: experts, transposed weights, an encoder that has none."""

import pytest
import torch

from geonb.assets import embedded_model_folder
from geonb.errors import InputError
from geonb.plan import build_plan


def _save(model, folder):
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((embedded_model_folder() / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=2048,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=3,
        num_experts_per_tok=2,
        max_position_embeddings=128,
    )
    return _save(MixtralForCausalLM(config), tmp_path_factory.mktemp("mixture"))


def test_experts_are_analysed_and_targeted_only_when_named(mixture, data_file):
    plan = build_plan(mixture, data_file)
    experts = [target for target in plan.targets if target.expert is not None]
    assert experts and not any(target.chosen for target in experts)
    assert all("--target-experts" in target.because for target in experts)
    assert set(plan.derivation("residual_scaling").documented_value) == {"model.layers.0", "model.layers.1"}

    named = build_plan(mixture, data_file, target_experts="L0.E1", calibrate=False)
    chosen = [target for target in named.chosen() if target.expert is not None]
    assert chosen and {(target.layer, target.expert) for target in chosen} == {(0, 1)}
    assert named.options["target_experts"] == ("L0.E1",)
    with pytest.raises(InputError, match="layers 0 to 1, experts 0 to 2"):
        build_plan(mixture, data_file, target_experts="L0.E7", calibrate=False)


def test_transposed_weights_calibrate_like_others(tmp_path, data_file):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=2048, n_embd=32, n_layer=2, n_head=4, n_positions=128))
    plan = build_plan(_save(model, tmp_path), data_file, basis="gradient")
    assert plan.calibration.n_examples == 32
    assert set(plan.calibration.gradient_ranks) == {target.name for target in plan.chosen()}
    assert all(target.shape[1] >= target.rank for target in plan.chosen())


def test_an_encoder_is_refused_with_what_it_is_good_for(tmp_path, data_file):
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=2048, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48
    )
    folder = _save(BertForMaskedLM(config), tmp_path)
    with pytest.raises(InputError, match="does not predict a next token"):
        build_plan(folder, data_file)


def test_zero_and_flat_matrices_do_not_stop_a_plan(tmp_path, data_file):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight.zero_()
        model.model.layers[0].self_attn.o_proj.weight.copy_(torch.eye(32))
    plan = build_plan(_save(model, tmp_path), data_file)
    targets = {target.name: target for target in plan.targets}
    zero = targets["model.layers.0.self_attn.q_proj.weight"]
    flat = targets["model.layers.0.self_attn.o_proj.weight"]
    assert not zero.chosen and "every entry is zero" in zero.because
    assert flat.chosen and flat.rank == 1 and flat.gap_boundary == 0
