"""A stream gives whole characters that join to the text, the tokens of a plain greedy loop, and the reason of its end."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.workbench.bench import Bench
from geonb.workbench.generation import (
    TextStream,
    encode_prompt,
    end_tokens,
    generate,
    printable,
    read_suite_prompts,
    stream,
)
from tests.families import write_tiny
from tests.tiny import tiny_model, tiny_run

# transformers warns about itself whenever PEFT loads an adapter
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
TOKENIZER = Checkpoint.open("embedded").load_tokenizer()


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench.open(tiny_model(tmp_path_factory), {"mine": tiny_run(tmp_path_factory)}, device="cpu")


def raw(text, **options):
    return encode_prompt(TOKENIZER, text, chat=False, **options)


def greedy(model, ids, steps):
    """The slow way: the whole text again for every token, no cache."""
    ids = list(ids)
    for _ in range(steps):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids


@given(st.text(max_size=60))
def test_the_pieces_join_to_the_text_and_never_split_a_character(text):
    ids = TOKENIZER(text)["input_ids"]
    pieces = TextStream(TOKENIZER)
    found = [pieces.add(one) for one in ids]
    whole = TOKENIZER.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert "".join(found) + pieces.rest() == whole
    if "\ufffd" not in text:
        assert not any("\ufffd" in one for one in found)


@given(st.lists(st.integers(0, 2047), max_size=40))
def test_any_tokens_at_all_join_to_their_decoding(ids):
    pieces = TextStream(TOKENIZER)
    found = "".join(pieces.add(one) for one in ids) + pieces.rest()
    assert found == TOKENIZER.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_a_character_of_several_tokens_comes_when_it_is_whole():
    ids = TOKENIZER("漢")["input_ids"]
    pieces = TextStream(TOKENIZER)
    assert len(ids) > 1 and [pieces.add(one) for one in ids[:-1]] == [""] * (len(ids) - 1)
    assert pieces.add(ids[-1]) == "漢"


@pytest.mark.parametrize("family", ["llama", "gpt2", "lfm2"])
def test_the_tokens_are_those_of_a_greedy_loop_without_a_cache(family, tmp_path):
    folder = write_tiny(family, tmp_path / family)
    bench = Bench.open(folder, device="cpu")
    prompt = raw("3 apples and")
    written = generate(bench, prompt, max_tokens=8)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    expected = greedy(model, prompt.ids, written.n_tokens)[len(prompt.ids) :]
    assert list(written.tokens) == expected and written.label == "base"


def test_streams_of_base_and_adapter_can_be_drawn_from_in_turn(bench):
    prompt = raw("3 apples and")
    alone = {label: generate(bench, prompt, label=label, max_tokens=10).tokens for label in (None, "mine")}
    streams = {label: stream(bench, prompt, label=label, max_tokens=10) for label in (None, "mine")}
    mixed = {label: [] for label in streams}
    for first, second in zip(streams[None], streams["mine"], strict=False):
        mixed[None].append(first.id)
        mixed["mine"].append(second.id)
    assert alone[None] != alone["mine"]
    for label, tokens in mixed.items():
        assert tuple(tokens) == alone[label][: len(tokens)] and len(tokens) >= 1


def test_it_says_why_it_stopped(bench, monkeypatch):
    prompt = raw("3 apples and")
    free = generate(bench, prompt, max_tokens=6)
    assert (free.stop, free.n_tokens, free.ended) == ("limit", 6, False)
    # whatever the third token is, let it end a text, as one of several in the generation config
    monkeypatch.setattr(bench.runtime.model.generation_config, "eos_token_id", [1, free.tokens[2]])
    assert free.tokens[2] in end_tokens(bench)
    ended = generate(bench, prompt, max_tokens=6)
    assert (ended.stop, ended.ended) == ("end token", True) and ended.tokens == free.tokens[: ended.n_tokens]
    assert ended.tokens[-1] == free.tokens[2] and free.tokens[2] not in ended.tokens[:-1]


def test_the_context_is_never_left(bench):
    context = bench.runtime.checkpoint.context_length
    ids = (raw("apples and pears " * 200).ids)[: context - 3]
    from geonb.workbench.generation import Prompt

    written = generate(bench, Prompt("", ids, False), max_tokens=50)
    assert (written.stop, written.n_tokens) == ("context", 3)


def test_speed_text_and_repetition_belong_to_the_tokens(bench):
    heard = []
    written = generate(bench, raw("3 apples and"), label="mine", max_tokens=20, on_text=heard.append)
    assert "".join(heard) == written.text
    assert written.text == TOKENIZER.decode(
        list(written.tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    assert written.tokens_per_second == pytest.approx(written.n_tokens / written.seconds)
    grams = [written.tokens[i : i + 4] for i in range(written.n_tokens - 3)]
    assert written.repetition == pytest.approx(1 - len(set(grams)) / len(grams))
    assert type(written).from_json(written.to_json()) == written


def test_a_prompt_is_a_user_turn_where_there_is_a_template_unless_raw():
    assert TOKENIZER.decode(encode_prompt(TOKENIZER, "Hi").ids) == "<|user|>Hi<|end|><|assistant|>"
    assert encode_prompt(TOKENIZER, "Hi").chat and not raw("Hi").chat
    assert TOKENIZER.decode(raw("Hi").ids) == "Hi"
    bare = Checkpoint.open("embedded").load_tokenizer()
    bare.chat_template = None
    assert not encode_prompt(bare, "Hi").chat
    assert bare.decode(encode_prompt(bare, "Hi", chat=True).ids) == "user: Hi\nassistant: "


def test_a_prompt_that_cannot_be_continued_is_refused_in_a_sentence(bench):
    for text in ("", " \n"):
        with pytest.raises(InputError, match="the prompt is empty; allowed is any text"):
            raw(text)
    with pytest.raises(InputError, match="half a character"):
        raw("a\ud800")
    with pytest.raises(InputError, match=r"has \d+ tokens and the model's context is 4; allowed are up to 3"):
        raw("one two three four five six", context=4)
    with pytest.raises(InputError, match="0 new tokens were asked for; allowed are 1 and more"):
        stream(bench, raw("Hi"), max_tokens=0)
    with pytest.raises(InputError, match="there is no adapter 'other'; loaded are mine"):
        generate(bench, raw("Hi"), label="other")
    strict = Checkpoint.open("embedded").load_tokenizer()
    strict.chat_template = "{{ raise_exception('a system turn must come first') }}"
    with pytest.raises(InputError, match=r"refuses a user turn alone \(a system turn must come first\): give --raw"):
        encode_prompt(strict, "Hi")


def test_prompt_files_of_three_kinds_give_the_same_prompts(tmp_path):
    rows = [{"prompt": "one two"}, {"prompt": "drei\u2028vier", "answer": 7}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (tmp_path / "a.json").write_text(json.dumps(["one two", rows[1]]))
    (tmp_path / "a.txt").write_text("one two\r\n\r\ndrei\u2028vier")
    listed = [
        [(one.text, one.answer) for one in read_suite_prompts(tmp_path / f"a.{kind}")] for kind in ("jsonl", "json")
    ]
    assert listed == [[("one two", None), ("drei\u2028vier", "7")]] * 2
    assert [one.text for one in read_suite_prompts(tmp_path / "a.txt")] == ["one two", "drei\u2028vier"]


WRONG = {
    "a.csv": ("x", r"ends in '\.csv'; allowed is a \.txt, \.json or \.jsonl file"),
    "a.txt": ("\n \n", "holds no prompt; allowed are one or more"),
    "a.json": ('{"prompt": "x"}', "holds a JSON dict; allowed is a list of prompts"),
    "b.json": ('["x", 5]', 'entry 2 has no "prompt" that is a non-empty text'),
    "c.json": ("[" * 100_000, "is not JSON"),
    "a.jsonl": ('"x"\n{"prompt": ""}', 'line 2 has no "prompt" that is a non-empty text'),
    "b.jsonl": ('{"prompt": "x", "answer": true}', 'line 1 has an "answer" that is no non-empty text or number'),
    "c.jsonl": ("{", "line 1 is not JSON"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_holds_no_prompts_is_refused_with_its_place(tmp_path, name):
    content, said = WRONG[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said):
        read_suite_prompts(tmp_path / name)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_suite_prompts(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"not UTF-8 text \(byte 3\)"):
        read_suite_prompts(tmp_path / "latin.txt")


@given(st.text())
def test_nothing_printed_can_steer_a_terminal(text):
    assert all(one.isprintable() or one in "\n\t" for one in printable(text))
