"""Generations are greedy, answers are checked by a stated rule, and outcomes follow exact tests."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from transformers import AutoModelForCausalLM, AutoTokenizer

from geonb.assets import embedded_model_folder
from geonb.errors import InputError
from geonb.workbench.bench import Bench
from geonb.workbench.compare_adapters import paired_counts
from geonb.workbench.evaluate import evaluate
from geonb.workbench.prompts import (
    Generation,
    Prompt,
    PromptsCompared,
    compare_generations,
    contains_answer,
    generate,
    read_prompts,
)
from tests.tiny import tiny_model, tiny_run

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
WORDS = st.text("abcdefghij", min_size=1, max_size=6)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(embedded_model_folder())


def written(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def made(text="words", repetition=0.0, has_answer=None, ended=True):
    return Generation(text=text, tokens=4, repetition=repetition, ended=ended, has_answer=has_answer)


def compared(base, adapted):
    prompts = [Prompt(text=f"p{i}", ids=(i,), answer=None if b.has_answer is None else "x") for i, b in enumerate(base)]
    return compare_generations(prompts, base, adapted, max_tokens=8, seed=0)


# -- the answer's rule ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer", "there"),
    [
        ("93 - 61 = 32. Answer: 32", "32", True),
        ("it is 12,", "12", True),
        ("it is 112", "12", False),
        ("it is 12.5", "12", False),
        ("it is 1.12", "12", False),
        ("it is -12", "12", False),
        ("it is -12", "-12", True),
        ("1,200 pieces", "1200", True),
        ("1200 pieces", "1,200", True),
        ("3,4", "34", False),
        ("HUGO has  more", "hugo has more", True),
        ("Hugos", "Hugo", False),
        ("a.b", "axb", False),
        ("", "x", False),
    ],
)
def test_an_answer_is_a_whole_word_or_number(text, answer, there):
    assert contains_answer(text, answer) is there


@given(before=WORDS, answer=WORDS, after=WORDS)
def test_an_answer_between_spaces_is_found_whatever_the_case(before, answer, after):
    assert contains_answer(f"{before}  {answer.upper()}\n{after}", answer)
    assert contains_answer(f"{before}{answer}", answer) == (before + answer == answer)


# -- generating -------------------------------------------------------------------------------------------------------


def test_generations_are_what_transformers_generates_greedily(tokenizer, tmp_path):
    rows = [
        {"prompt": "And God said"},
        {"messages": [{"role": "user", "content": "Karl has 16 nails and gets 12 more. How many?"}], "answer": "28"},
    ]
    prompts = read_prompts(written(tmp_path / "p.jsonl", *rows), tokenizer, context=256)
    bench = Bench.open("embedded", device="cpu")
    found = generate(bench, None, prompts, max_tokens=12)
    network = AutoModelForCausalLM.from_pretrained(embedded_model_folder(), dtype=torch.float32).eval()
    for prompt, one in zip(prompts, found, strict=True):
        ids = torch.tensor([prompt.ids])
        whole = network.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
        new = whole[0, ids.shape[1] :].tolist()
        end = new.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in new else None
        assert one.text == tokenizer.decode(new[:end], skip_special_tokens=True)
        assert one.ended == (end is not None) and one.tokens == len(new[:end])
    assert found[0].has_answer is None and found[1].has_answer == contains_answer(found[1].text, "28")


def test_an_end_token_that_only_the_generation_config_names_ends_too(tokenizer):
    bench = Bench.open("embedded", device="cpu")
    prompt = Prompt(text="", ids=tuple(tokenizer("And God said")["input_ids"]), answer=None)
    free = generate(bench, None, [prompt], max_tokens=6)[0]
    stop = bench.runtime.generate([list(prompt.ids)], max_new_tokens=6)[0][2]
    bench.model.generation_config.eos_token_id = [tokenizer.eos_token_id, stop]
    cut = generate(bench, None, [prompt], max_tokens=6)[0]
    assert cut.ended and cut.tokens <= 2 < free.tokens and free.text.startswith(cut.text)


def test_a_last_reply_of_the_assistant_is_not_shown_to_the_model(tokenizer, tmp_path):
    asked = {"role": "user", "content": "How many?"}
    reply = {"role": "assistant", "content": "Twelve secret words."}
    path = written(tmp_path / "p.jsonl", {"messages": [asked, reply]}, {"messages": [asked]})
    with_reply, without = read_prompts(path, tokenizer, context=256)
    assert with_reply == without and "secret" not in with_reply.text


def test_base_and_adapter_stand_side_by_side(tmp_path, tmp_path_factory):
    path = written(tmp_path / "p.jsonl", *({"prompt": f"{i} apples and", "answer": "pears"} for i in range(5)))
    result = evaluate(
        tiny_model(tmp_path_factory), tiny_run(tmp_path_factory), prompts=path, max_tokens=8, limit=4, device="cpu"
    )
    found = result.prompts
    assert found is not None and len(found.results) == 4 and found.max_tokens == 8 and found.answers.n == 4
    assert all(one.differs == (one.base.text != one.adapted.text) for one in found.results)
    assert any(one.differs for one in found.results)
    assert PromptsCompared.from_json(found.to_json()) == found


# -- judging ----------------------------------------------------------------------------------------------------------


def test_each_prompt_has_its_outcome():
    right, wrong, loop = made(has_answer=True), made(has_answer=False), made("la " * 9, 0.9, has_answer=True)
    found = compared(
        [wrong, right, right, wrong, made("a"), made("a"), made("a", 0.9)],
        [right, wrong, right, loop, made("a"), made("b"), made("b", 0.9)],
    )
    assert [one.outcome for one in found.results] == [
        *("improved", "degraded", "same", "degenerated", "same", "not checkable", "not checkable"),
    ]


@pytest.mark.parametrize(("more", "fewer", "outcome"), [(8, 0, "improved"), (0, 8, "degraded"), (5, 1, None)])
def test_answers_decide_by_mcnemar_at_half_the_level(more, fewer, outcome):
    base = [made(has_answer=False)] * more + [made(has_answer=True)] * (fewer + 3)
    adapted = [made(has_answer=True)] * more + [made(has_answer=False)] * fewer + [made(has_answer=True)] * 3
    found = compared(base, adapted)
    assert found.answers.p == pytest.approx(binomtest(fewer, more + fewer, 0.5).pvalue)
    assert found.outcome == (outcome or "no significant difference")


def test_without_answers_loops_decide():
    calm, loop = made(repetition=0.0), made(repetition=0.9)
    assert compared([calm] * 6, [loop] * 6).outcome == "degenerated"
    assert compared([loop] * 6, [calm] * 6).outcome == "improved"
    assert compared([calm] * 6, [loop] * 3 + [calm] * 3).outcome == "no significant difference"
    # 2 * 2^-6 = 0.031 is below 5 % but not below 2.5 %: with answers two tests share the error
    right = [made(has_answer=True)] * 6
    looping = [made(repetition=0.9, has_answer=True)] * 6
    assert compared(right, looping).outcome == "no significant difference"
    assert compared(right + right, looping + looping).outcome == "degenerated"


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_counts_and_p_are_those_of_the_binomial_test(pairs):
    found = paired_counts([a for a, _ in pairs], [b for _, b in pairs])
    assert found.first - found.only_first == found.second - found.only_second
    total = found.only_first + found.only_second
    assert found.p == pytest.approx(binomtest(found.only_first, total, 0.5).pvalue if total else 1.0)


def test_what_a_model_writes_can_neither_steer_a_terminal_nor_a_page():
    hostile = "<script>alert(1)</script>\x1b[2J"
    found = compared([made(hostile)], [made(hostile + "!")])
    assert "<script>" not in found.to_html() and "&lt;script&gt;" in found.to_html() and "\x1b" not in found.to_text()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("nonsense", "line 1 is not JSON"),
        ("{}", 'line 1 needs exactly one of the fields "prompt" and "messages"'),
        ('{"prompt": "a", "messages": []}', "exactly one of the fields"),
        ('{"prompt": " "}', 'a "prompt" that is not a non-empty string'),
        ('{"prompt": "a", "answer": 3}', 'an "answer" that is not a non-empty string'),
        ('{"messages": [{"role": "user"}]}', 'not a list of {"role", "content"} strings'),
        ('{"messages": [{"role": "assistant", "content": "hi"}]}', "no turn before the assistant's"),
        (json.dumps({"prompt": "word " * 400}), "allowed are 1 to 255, so that the model's context of 256"),
        ("", "is empty; it needs at least one prompt a line"),
    ],
)
def test_a_bad_prompt_is_refused_with_its_line(tokenizer, tmp_path, line, sentence):
    path = tmp_path / "p.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InputError) as caught:
        read_prompts(path, tokenizer, context=256)
    assert sentence in str(caught.value)


def test_a_template_that_refuses_a_conversation_is_told(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", "{{ raise_exception('roles must alternate') }}")
    path = written(tmp_path / "p.jsonl", {"messages": [{"role": "user", "content": "a"}]})
    with pytest.raises(InputError, match=r"refuses these messages \(roles must alternate\)"):
        read_prompts(path, tokenizer, context=256)


def test_files_that_cannot_be_read_are_refused(tokenizer, tmp_path):
    with pytest.raises(InputError, match="is not a file; prompts are JSONL"):
        read_prompts(tmp_path / "none.jsonl", tokenizer, context=256)
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_prompts(tmp_path / "bytes.jsonl", tokenizer, context=256)


def test_only_line_feeds_end_a_prompt(tokenizer, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "one\u2028two\u0085three"}\n', encoding="utf-8")
    assert read_prompts(path, tokenizer, context=256)[0].text == "one\u2028two\u0085three"
