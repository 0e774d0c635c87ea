"""`geonb coordinates generate` and `analyze` as somebody uses them: text as it is made, figures, a conversation, plain errors."""

import json
import os
import pty
import re
import subprocess
import sys

import pytest
import torch

from tests.cli.coordinates_work import refused, run
from tests.coordinates.small import small_coordinate_run

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return small_coordinate_run(tmp_path_factory.mktemp("generate") / "run")


def test_a_prompt_is_gone_on_from_the_same_way_twice_and_shown_as_it_is_made(trained):
    shown = run("generate", trained, "-p", "The baker", "--tokens", 8)
    found = json.loads(run("generate", trained, "-p", "The baker", "--tokens", 8, "--json").stdout)
    assert shown.stdout.rstrip("\n") == ("The baker" + found["text"]).rstrip("\n") and found["tokens"] <= 8
    assert f"{found['sampled']} of {found['tokens']} tokens drawn" in shown.stderr
    assert "".join(found["pieces"]) == found["text"] and sum(found["drawn"]) == found["sampled"]


def test_every_token_is_drawn_where_its_own_figure_is_above_the_calibrated_threshold(trained):
    for decoding, field in (("coordinates", "uncertainty"), ("entropy", "entropy")):
        options = ("-p", "What is the", "--tokens", 40, "--decoding", decoding, "--share", 0.4, "--json")
        found = json.loads(run("generate", trained, *options).stdout)
        assert found["drawn"] == [value > found["threshold"] for value in found[field]]
        # a model of twelve steps says what it says, but not always the one or the other at every share
        assert found["decoding"] == decoding and found["threshold"] > 0
    always = json.loads(run("generate", trained, "-p", "a", "--tokens", 6, "--decoding", "nucleus", "--json").stdout)
    never = json.loads(run("generate", trained, "-p", "a", "--tokens", 6, "--decoding", "greedy", "--json").stdout)
    assert all(always["drawn"]) and not any(never["drawn"]) and never["threshold"] is None


def test_marks_stand_around_drawn_tokens_and_taking_them_away_leaves_the_text(trained):
    options = ("-p", "The", "--tokens", 10, "--decoding", "nucleus")
    plain = run("generate", trained, *options).stdout
    marked = run("generate", trained, *options, "--marks").stdout
    assert marked.count("[") == marked.count("]") > 0 and marked.replace("[", "").replace("]", "") == plain


def test_fewer_bits_and_reuse_tell_what_they_cost(trained):
    options = ("-p", "The baker", "--tokens", 6, "--weights", "int8", "--phases", "int8", "--reuse", 0.5)
    told = run("generate", trained, *options).stderr
    weights = re.search(
        r"int8 weights: (.*) MB -> (.*) MB of weights; logits off by (.*)% .*likeliest token the same", told
    )
    assert weights and float(weights[2]) < 0.6 * float(weights[1]) and float(weights[3]) < 5
    assert re.search(r"8-bit phases: 256 bytes -> 16 bytes a coordinate; .* of the budget, certified", told)
    assert re.search(r"cores reused for \d+% of tokens and layers; weights within .* of the budget, certified", told)


def test_under_a_style_and_refined_the_text_has_an_uncertainty_of_its_own(trained):
    for option in (("--style", "Well, you know."), ("--refine", 1)):
        found = run("generate", trained, "-p", "The baker closes", "--tokens", 6, *option)
        assert "uncertainty" in found.stderr
        as_json = json.loads(
            run("generate", trained, "-p", "The baker closes", "--tokens", 6, *option, "--json").stdout
        )
        assert max(as_json["uncertainty"]) > 0
    assert "refined by" in found.stderr


def test_an_imported_style_is_spoken_in_by_its_name_and_says_what_its_lora_says(trained, tmp_path, capsys):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from geonb.coordinates.analyze import encoded
    from geonb.coordinates.run import load_tokenizer

    run("export", trained, "-o", tmp_path / "out", "--style", "formal=It is hereby noted.", "--style", "plain=The box.")
    styles = [part for name in ("formal", "plain") for part in ("-a", tmp_path / "out" / "styles" / name)]
    run("import", trained, *styles, "-o", tmp_path / "home")
    options = ("-p", "The baker", "--tokens", 8, "--decoding", "greedy", "--json")
    found = json.loads(run("generate", tmp_path / "home", *options, "--coordinate", "formal").stdout)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "base")
    adapted = PeftModel.from_pretrained(base, tmp_path / "out" / "styles" / "formal").eval()
    words = load_tokenizer(trained)
    ids = encoded(words, "The baker")
    for _ in range(found["tokens"]):
        with torch.no_grad():
            ids.append(int(adapted(torch.tensor([ids])).logits[0, -1].argmax()))
    assert words.decode(ids, skip_special_tokens=True) == "The baker" + found["text"]
    capsys.readouterr()  # what the other library says while it loads
    told = refused(capsys, "generate", tmp_path / "home", "-p", "a", "--coordinate", "none")
    assert "allowed are formal, plain" in told


def test_a_conversation_through_a_pipe_is_answered_line_by_line(trained):
    said = run("generate", trained, "--chat", "--tokens", 4, text="What is the colour?\nAnd the price?\n\n")
    assert said.stdout.count("model:") == 2 and "you: And the price?" in said.stdout
    assert "tokens drawn" in said.stderr and said.exit_code == 0
    begun = run("generate", trained, "--chat", "-p", "Hello?", "--tokens", 4, text="")
    assert begun.stdout.startswith("you: Hello?\nmodel:")


def test_in_a_terminal_a_conversation_is_typed_and_drawn_tokens_are_coloured(trained):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "geonb.cli", "coordinates", "generate", str(trained), "--chat"]
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        [*command, "--tokens", "6", "--decoding", "nucleus"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    ) as process:
        os.close(theirs)
        seen = (
            typed(ours, b"you: ", b"What is it?\n")
            + typed(ours, b"you: ", b"And then?\n")
            + typed(ours, b"you: ", b"\x04")
        )
        seen += rest(ours)
        assert process.wait(60) == 0
    text = seen.decode()
    assert text.count("model:") == 2 and "\x1b[33m" in text and "tokens drawn, 100%" in text


def typed(terminal, until, keys):
    """What stands there up to `until`; then `keys` are pressed."""
    seen = b""
    while not seen.endswith(until):
        seen += os.read(terminal, 1)
    os.write(terminal, keys)
    return seen


def rest(terminal):
    seen = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # the other side is closed
            return seen
        if not part:
            return seen
        seen += part


def test_clusters_are_told_with_their_controls(trained, tmp_path):
    found = json.loads(run("analyze", trained, "--clusters", "style", "--count", 4, "--json").stdout)
    assert found["kind"] == "style" and len(found["trained"]["names"]) == 12 and found["untrained"] is not None
    path = tmp_path / "mine.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"lamp {n}" if n % 2 else f"x {n}", "group": "ab"[n % 2]}) + "\n" for n in range(8))
    )
    assert "before training" in run("analyze", trained, "--labelled", path).stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "neither --prompt nor --chat was given"),
        (("--chat", "--json"), "where nobody can talk"),
        (("--chat", "--refine", "1"), "a refinement needs the whole text"),
        (("-p", "a", "--style", "b", "--refine", "1"), "each is a coordinate of its own"),
        (("-p", "a", "--style", "b", "--coordinate", "c"), "each is a coordinate of its own"),
        (("-p", "a", "--coordinate", "c"), "so the model has no named coordinates"),
        (("-p", "a", "--decoding", "luck"), "allowed are coordinates, entropy, nucleus, greedy"),
        (("-p", "a", "--weights", "int4"), "allowed are float32 and int8"),
        (("-p", "a", "--phases", "int4"), "allowed are float32 and int8"),
        (("-p", "a", "--share", "1"), "allowed is a share above 0 and below 1"),
        (("-p", "a", "--mass", "0"), "a mass in"),
        (("-p", "a", "--tokens", "0"), "1 token or more"),
        (("-p", "a", "--reuse", "2"), "from 0 \\(never\\) to 1"),
        (("-p", "a", "--reuse", "0.1", "--style", "b"), "its cores are reused anyway"),
        (("-p", "a", "--decoding", "greedy", "--threshold", "1"), "does not switch"),
        (("-p", "a", "--threshold", "1", "--calibrate-on", "x.jsonl"), "where nothing is calibrated"),
        (("-p", "a", "--calibrate-on", "none.jsonl"), "is not a file"),
        (("-p", " "), "an empty text was given"),
        (("-p", "word " * 400), "cut the text"),
    ],
)
def test_misuse_is_one_sentence_and_exit_2(trained, capsys, options, told):
    assert re.search(told, refused(capsys, "generate", trained, *options))


def test_what_is_to_be_analysed_is_named_once(trained, capsys):
    assert "give one of --text, --clusters and --labelled" in refused(capsys, "analyze", trained)
    assert "give one of" in refused(capsys, "analyze", trained, "--text", "a", "--clusters", "topic")
    assert "allowed are domain, topic, style" in refused(capsys, "analyze", trained, "--clusters", "colour")
    assert "two styles or more" in refused(
        capsys, "interpolate", trained, "--first", "a", "--second", "b", "-p", "c", "--tokens", "0"
    )
