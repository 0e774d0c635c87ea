"""Two models that do not fit are refused before any weight is read, with the first thing that is wrong."""

import json
import shutil

import pytest

from geonb.errors import InputError
from geonb.merge.preflight import preflight, require
from geonb.models.checkpoint import Checkpoint
from tests.families import write_tiny


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return Checkpoint.open(write_tiny("llama", tmp_path_factory.mktemp("target") / "tiny"))


def changed(target, folder, name, change):
    """A copy of the target with one JSON file changed."""
    shutil.copytree(target.folder, folder)
    data = json.loads((folder / name).read_text())
    change(data)
    (folder / name).write_text(json.dumps(data))
    return Checkpoint.open(folder)


def refused(target, donor):
    with pytest.raises(InputError) as error:
        require(preflight(target, donor))
    assert "\n" not in str(error.value) and str(error.value).endswith(".")
    return str(error.value)


def test_a_model_fits_itself(target):
    found = preflight(target, target)
    assert found.verdict == "passed" and not found.notes
    assert {check.name for check in found.checks} == {
        "architecture",
        "sizes",
        "tied embeddings",
        "config",
        "shapes",
        "vocabulary",
        "special tokens",
        "chat template",
        "dtype",
    }
    assert type(found).from_json(found.to_json()) == found
    require(found)


def test_another_architecture_is_refused(target, tmp_path):
    said = refused(target, Checkpoint.open(write_tiny("gpt2", tmp_path / "gpt2")))
    assert "the target is a LlamaForCausalLM and the donor a GPT2LMHeadModel" in said


def test_an_encoder_is_refused(tmp_path):
    encoder = Checkpoint.open(write_tiny("bert", tmp_path / "bert"))
    assert "does not predict a next token" in refused(encoder, encoder)


@pytest.mark.parametrize(
    ("size", "value"), [("hidden_size", 32), ("intermediate_size", 80), ("num_hidden_layers", 3), ("head_dim", 8)]
)
def test_another_size_is_refused_by_its_name(target, tmp_path, size, value):
    donor = Checkpoint.open(write_tiny("llama", tmp_path / "donor", **{size: value}))
    assert f"{size} is {target.config[size]} in the target and {value} in the donor" in refused(target, donor)


def test_heads_of_another_number_are_refused_although_no_shape_differs(target, tmp_path):
    def more_heads(config):
        config.update(num_attention_heads=8, num_key_value_heads=4, head_dim=8)

    donor = changed(target, tmp_path / "donor", "config.json", more_heads)
    assert "num_attention_heads is 4 in the target and 8 in the donor" in refused(target, donor)


def test_a_missing_matrix_is_named(target, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(target.folder, tmp_path / "donor")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    said = refused(target, Checkpoint.open(folder))
    assert "the donor has no matrix model.layers.1.mlp.up_proj.weight" in said


def test_a_matrix_of_another_shape_than_its_config_says_is_named(target, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(target.folder, tmp_path / "donor")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"] = tensors["model.layers.0.mlp.up_proj.weight"][:90].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    said = refused(target, Checkpoint.open(folder))
    assert "model.layers.0.mlp.up_proj.weight is 96 x 64 in the target and 90 x 64 in the donor" in said


def test_tied_and_untied_embeddings_are_refused(target, tmp_path):
    donor = changed(target, tmp_path / "donor", "config.json", lambda config: config.update(tie_word_embeddings=True))
    assert "keeps its output head apart from its embedding and the donor ties" in refused(target, donor)


def test_the_first_differing_token_is_named_with_the_overlap(target, tmp_path):
    def swap(tokenizer):
        vocabulary = tokenizer["model"]["vocab"]
        first, second = sorted(vocabulary, key=vocabulary.get)[300:302]
        vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]

    said = refused(target, changed(target, tmp_path / "donor", "tokenizer.json", swap))
    assert "share 2,046 of 2,048 ids; the first difference is id 300: " in said


def test_other_special_tokens_are_refused_unless_accepted(target, tmp_path):
    pad = target.load_tokenizer().pad_token
    donor = changed(target, tmp_path / "donor", "tokenizer_config.json", lambda config: config.update(eos_token=pad))
    assert "eos_token is " in refused(target, donor)
    found = preflight(target, donor, accept=("special tokens",))
    assert found.verdict == "passed" and "eos_token" in found.notes[0]
    with pytest.raises(InputError, match="'shapes' was to be accepted; allowed is 'special tokens'"):
        preflight(target, donor, accept=("shapes",))


def test_another_template_dtype_or_rope_is_noted_and_no_hindrance(target, tmp_path):
    donor = changed(
        target, tmp_path / "donor", "config.json", lambda config: config["rope_parameters"].update(rope_theta=5e5)
    )
    (donor.folder / "chat_template.jinja").write_text("{{ messages }}")
    found = preflight(target, Checkpoint.open(donor.folder))
    assert found.verdict == "passed"
    assert any("rope_parameters" in note for note in found.notes)
    assert any("chat templates differ" in note for note in found.notes)


def test_a_name_with_control_characters_cannot_steer_the_terminal(target, tmp_path):
    def hostile(tokenizer):
        vocabulary = tokenizer["model"]["vocab"]
        token = next(token for token, index in vocabulary.items() if index == 400)
        vocabulary["\x1b[2J<b>"] = vocabulary.pop(token)
        tokenizer["model"]["merges"] = []

    found = preflight(target, changed(target, tmp_path / "donor", "tokenizer.json", hostile))
    assert found.verdict == "failed"
    assert "\x1b" not in found.to_text() and "<b>" not in found.to_html()
