"""From JSONL to batches: messages of bad records, loss masks, lengths, splits, batches, seeds."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.assets import DATASETS, dataset_path, resolve_data
from geonb.data import batch_at, data_digest, derive_seed, read_records, tokenise
from geonb.data.collate import IGNORED, collate
from geonb.data.example import Example
from geonb.data.split import split
from geonb.data.template import assistant_spans
from geonb.errors import InputError
from geonb.models import Checkpoint


@pytest.fixture(scope="module")
def tokenizer():
    return Checkpoint.open("embedded").load_tokenizer()


def write(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


GOOD = {"text": "good"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "is empty; it needs at least one record"),
        ([GOOD, "{not json"], r"line 2 is not JSON \(.* at column 2\)"),
        ([GOOD, GOOD, {"prompt": "x"}], 'line 3 has neither of the fields "text" and "messages"'),
        ([{"text": "x", "messages": []}], "line 1 has both of the fields"),
        (["[1, 2]"], "line 1 has neither"),
        ([{"text": 7}], 'line 1 has a "text" that is not a non-empty string'),
        ([{"text": "  "}], "not a non-empty string"),
        ([{"messages": []}], 'line 1 has "messages" that are not a non-empty list'),
        ([{"messages": [{"role": "user"}]}], 'line 1, message 1 has no "content" string'),
        ([{"messages": [{"role": "robot", "content": "x"}]}], "message 1 has the role 'robot'; allowed are system"),
        ([{"messages": [{"role": "user", "content": "x"}]}], "line 1 has no assistant turn"),
        ([{"text": "x", "group": 3}], 'a "group" that is a int'),
    ],
)
def test_bad_records_are_named_by_line(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        read_records(write(tmp_path / "data.jsonl", *rows))


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match="is not a file; the data is a JSONL file"):
        read_records(tmp_path / "missing.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not UTF-8"):
        read_records(tmp_path / "binary.jsonl")


def counted(example, tokenizer):
    kept = [token for token, counts in zip(example.input_ids, example.loss_mask, strict=True) if counts]
    return tokenizer.decode(kept)


def chat(*turns):
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


CHAT = chat(("system", "be brief"), ("user", "1+1?"), ("assistant", "It is 2"), ("user", "2+2?"), ("assistant", "4"))
OTHER_TEMPLATES = {
    "plain": None,
    "chatml": "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}",
}


def test_the_loss_counts_what_the_assistant_writes_and_its_end(tokenizer, tmp_path):
    examples = tokenise(read_records(write(tmp_path / "d", CHAT)), tokenizer, context_length=256).examples
    assert counted(examples[0], tokenizer) == "It is 2<|end|>4<|end|>"
    prompt = tokenizer.decode(examples[0].prompt_ids)
    assert prompt.endswith("2+2?<|end|><|assistant|>")


@pytest.mark.parametrize("name", OTHER_TEMPLATES)
def test_other_templates_count_the_same_turns(tokenizer, tmp_path, name, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", OTHER_TEMPLATES[name])
    dataset = tokenise(read_records(write(tmp_path / "d", CHAT)), tokenizer, context_length=256)
    text = counted(dataset.examples[0], tokenizer)
    assert "It is 2" in text and "4" in text and "1+1" not in text and "brief" not in text
    assert text.count("<|end|>") == 2
    assert ("no template of its own" in dataset.template_source) == (name == "plain")


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer, monkeypatch):
    monkeypatch.setattr(
        tokenizer, "chat_template", "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    )
    with pytest.raises(InputError, match="the chat template rewrites earlier turns"):
        assistant_spans(tokenizer, CHAT["messages"])


def test_text_counts_everything_after_its_first_token(tokenizer, tmp_path):
    example = tokenise(read_records(write(tmp_path / "d", GOOD)), tokenizer, context_length=256).examples[0]
    assert example.input_ids[-1] == tokenizer.eos_token_id
    assert example.loss_mask == (False, *[True] * (len(example.input_ids) - 1))


def test_the_length_covers_every_example_in_eights_or_stops_at_the_context(tokenizer, tmp_path):
    records = read_records(write(tmp_path / "d", {"text": "a b c"}, {"text": "word " * 40}))
    dataset = tokenise(records, tokenizer, context_length=256)
    longest = max(len(example.input_ids) for example in dataset.examples)
    assert dataset.sequence_length % 8 == 0 and 0 <= dataset.sequence_length - longest < 8 and dataset.n_cut == 0
    short = tokenise(records, tokenizer, context_length=16)
    assert short.sequence_length == 16 and short.n_cut == 1 and "context" in short.sequence_length_source
    with pytest.raises(InputError, match="allowed are 2 to 256"):
        tokenise(records, tokenizer, context_length=256, max_length=300)
    with pytest.raises(InputError, match="longer than the model's context of 2 tokens"):
        tokenise(records, tokenizer, context_length=2)


def examples_of(n, repeat=1):
    return [Example((1, 2), (False, True), str(i), f"{i // repeat:064x}", None, (1,)) for i in range(n)]


@given(st.integers(160, 2000), st.integers(0, 2**31))
def test_a_split_holds_32_to_20_percent_and_depends_on_contents_only(n, seed):
    examples = examples_of(n)
    found = split(examples, seed=seed)
    assert 32 <= len(found.eval) <= 0.2 * n and len(found.train) + len(found.eval) == n
    assert not set(found.train) & set(found.eval)
    order = np.random.default_rng(seed).permutation(n)
    other = split([examples[index] for index in order], seed=seed)
    assert {int(order[row]) for row in other.eval} == set(found.eval)


def test_equal_contents_never_stand_on_both_sides():
    found = split(examples_of(400, repeat=4), seed=1)
    assert not {row // 4 for row in found.train} & {row // 4 for row in found.eval}


def test_too_few_examples_to_split():
    with pytest.raises(InputError, match=r"100 examples were given; a split needs at least 160 .* --eval-data"):
        split(examples_of(100), seed=0)
    assert split(examples_of(5), seed=0, eval_examples=examples_of(3)).train == tuple(range(5))
    with pytest.raises(InputError, match="needs at least two"):
        split(examples_of(5), seed=0, eval_examples=examples_of(1))


@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 2**31))
def test_an_epoch_holds_every_row_once(n, size, seed):
    steps = -(-n // size)
    rows = np.concatenate([batch_at(step, n_train=n, batch_size=size, seed=seed) for step in range(steps)])[:n]
    assert sorted(rows.tolist()) == list(range(n))
    assert (
        batch_at(3, n_train=n, batch_size=size, seed=seed) == batch_at(3, n_train=n, batch_size=size, seed=seed)
    ).all()


def test_collate_pads_right_and_ignores_what_is_not_counted():
    rows = [
        Example((5, 6, 7), (False, True, True), "", "", None, (5,)),
        Example((8, 9), (False, True), "", "", None, (8,)),
    ]
    batch = collate(rows, [0, 1], 0)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [IGNORED, 9, IGNORED]]


def test_digests_ignore_names_and_order(tmp_path):
    a, b, c = write(tmp_path / "a", GOOD), write(tmp_path / "b", {"text": "other"}), write(tmp_path / "c", GOOD)
    assert data_digest(a) == data_digest(c) != data_digest(b)
    assert data_digest(a, b) == data_digest(b, c)
    assert 0 <= derive_seed("m", data_digest(a)) < 2**32


@pytest.mark.parametrize("name", DATASETS)
def test_shipped_data_reads_and_every_answer_is_right(name):
    records = read_records(dataset_path(name))
    assert len(records) >= 128
    if name == "chat":
        for line in dataset_path("chat").read_text().splitlines():
            record = json.loads(line)
            reasoning = record["messages"][1]["content"]
            assert reasoning.endswith(f"Answer: {record['answer']}")
            sums = reasoning.split(".")[0]
            if "=" in sums:
                left, right = sums.split("=")
                first, operator, second = left.split()
                assert {"+": int(first) + int(second), "-": int(first) - int(second), "*": int(first) * int(second)}[
                    operator
                ] == int(right)


def test_embedded_names():
    assert resolve_data("embedded:kjv/eval").name == "kjv_eval.jsonl"
    with pytest.raises(InputError, match="allowed are chat, kjv, retention"):
        resolve_data("embedded:poems")
    with pytest.raises(InputError, match="has no evaluation part"):
        resolve_data("embedded:retention/eval")


def test_a_line_ends_at_a_line_feed_and_at_nothing_else(tmp_path):
    texts = ["a\u2028b", "c\u0085d", "e\u2029f"]
    path = tmp_path / "odd.jsonl"
    path.write_text(
        "\ufeff" + "\r\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts), newline=""
    )
    assert [record.text for record in read_records(path)] == texts


@pytest.mark.parametrize("line", ["[" * 100_000, '{"text": ' + "9" * 5000 + "}"])
def test_json_that_python_refuses_to_read_is_named_with_its_line(tmp_path, line):
    path = tmp_path / "deep.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(InputError, match=r"deep\.jsonl line 2 "):
        read_records(path)
