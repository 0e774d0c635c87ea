"""`geonb coordinates`: a model is trained, resumed, talked with, taken apart and put together again from the shell."""

import json

import pytest
import torch

from geonb.coordinates.exported import load_coordinates
from geonb.coordinates.run import load_model, load_tokenizer
from tests.cli.coordinates_work import refused, run
from tests.coordinates.small import small_coordinate_run

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return small_coordinate_run(tmp_path_factory.mktemp("coordinates") / "run")


def test_a_run_is_made_and_resumed_and_told(tmp_path):
    options = ("--preset", "tiny", "--steps", 6, "--rows", 6, "--length", 48, "--evaluate-every", 3)
    made = json.loads(run("train", "-o", tmp_path / "run", *options, "--json").stdout)
    assert made["finished"] and made["steps"] == 6 and [step for step, _ in made["losses"]] == [0, 3, 6]
    assert any("phase 3 of 3 begins: conversation" in note for note in made["notes"])
    # cut it back to its last checkpoint but one line: --resume needs no other option
    trace = tmp_path / "run" / "trace.jsonl"
    whole = trace.read_bytes()
    trace.write_bytes(whole[: whole.rindex(b'{"kind": "stop"') if b'{"kind": "stop"' in whole else -10])
    again = json.loads(run("train", "-o", tmp_path / "run", "--resume", "--json").stdout)
    assert again == made and trace.read_bytes() == whole


def test_an_exported_style_says_in_peft_what_the_model_says_under_it(trained, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from geonb.coordinates.analyze import encoded, style_of

    run("export", trained, "-o", tmp_path / "out", "--style", "formal=It is hereby noted.")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "base")
    words = AutoTokenizer.from_pretrained(tmp_path / "out" / "base")
    model, tokenizer = load_model(trained), load_tokenizer(trained)
    ids = encoded(tokenizer, "The baker opens the door.")
    assert words("The baker opens the door.")["input_ids"] == ids[1:]
    adapted = PeftModel.from_pretrained(base, tmp_path / "out" / "styles" / "formal").eval()
    theta = style_of(model, tokenizer, "It is hereby noted.")
    with torch.no_grad():
        theirs = adapted(torch.tensor([ids])).logits
        ours = model(torch.tensor([ids]), theta=theta.reshape(1, 1, -1), mode="sequence").logits
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
    # and back in, as a coordinate of its own
    run("import", trained, "-a", tmp_path / "out" / "styles" / "formal", "-o", tmp_path / "home")
    coordinate = load_coordinates(tmp_path / "home")["formal"]
    with torch.no_grad():
        back = load_model(tmp_path / "home")(
            torch.tensor([ids]), theta=coordinate.reshape(1, 1, -1), mode="sequence"
        ).logits
    torch.testing.assert_close(back, ours, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("along", ["sphere", "phases"])
def test_a_way_between_two_styles_begins_and_ends_at_them(trained, along):
    found = json.loads(
        run("interpolate", trained, "--first", "a door", "--second", "Well, you know.", "-p", "The", "--steps", 3,
            "--along", along, "--tokens", 4, "--json").stdout
    )  # fmt: skip
    assert found["shares"] == [0, 0.5, 1] and found["kernel_to_first"][0] == pytest.approx(1, abs=1e-4)
    assert found["kernel_to_first"][2] < 1


def test_a_text_is_analysed(trained):
    found = json.loads(run("analyze", trained, "-t", "The bakers close the door.", "--json").stdout)
    assert (
        found["norm"] == pytest.approx(8)
        and found["uncertainty"][0] == 0
        and found["kernel_to_last"][-1] == pytest.approx(1)
    )
    assert len(found["tokens"]) == len(found["uncertainty"]) and len(found["spectra"]) == 8


def test_misuse_is_one_sentence_and_leaves_nothing(trained, tmp_path, capsys):
    none = tmp_path / "none"
    assert "holds no coordinate model" in refused(capsys, "generate", none, "-p", "x")
    assert "allowed is one: name the preset inside" in refused(
        capsys, "train", "-o", none, "--preset", "tiny", "--config", "x.yaml"
    )
    assert "allowed are adamw, frank-wolfe" in refused(
        capsys, "train", "-o", none, "--preset", "tiny", "--controller", "sgd"
    )
    assert "is there and not empty" in refused(capsys, "train", "-o", trained, "--preset", "tiny")
    assert "an empty text was given" in refused(capsys, "generate", trained, "-p", " ")
    assert "NAME=EXAMPLE TEXT" in refused(capsys, "export", trained, "-o", none, "--style", "../x=a")
    assert "allowed are sphere and phases" in refused(
        capsys, "interpolate", trained, "--first", "a", "--second", "b", "-p", "c", "--along", "x"
    )
    assert not none.exists()
