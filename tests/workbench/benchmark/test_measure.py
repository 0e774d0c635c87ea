"""The benchmark's three figures of a model on a set, beside what plain transformers and plain decoding give."""

import json
import math

import pytest
import torch

from geonb.data.dataset import tokenise
from geonb.data.records import read_records
from geonb.models.checkpoint import Checkpoint
from geonb.models.runtime import TorchRuntime
from geonb.workbench.benchmark.measure import counted_bytes, score
from tests.tiny import tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

TEXTS = ["Plums and pears.", "A tall, old öak: 🌳 stands there", "x", "In the beginning God created the heaven."]
CHATS = [(f"Which fruit is number {i}?", fruit) for i, fruit in enumerate(
    ["apple", "a ripe pear", "plum", "fig", "dark cherry", "quince", "lime", "grape"])]  # fmt: skip


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    return TorchRuntime.load(Checkpoint.open(tiny_model(tmp_path_factory)), device="cpu")


def examples_of(records, runtime, folder):
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return tokenise(read_records(path), runtime.tokenizer, context_length=256).examples


def chats(pairs):
    return [{"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]} for a, b in pairs]


def by_hand(model, examples):
    """Nats and counted tokens: one example at a time, one token at a time, in float64."""
    nats, tokens = 0.0, 0
    for example in examples:
        with torch.no_grad():
            logits = model(torch.tensor([example.input_ids]), use_cache=False).logits[0].double()
        for place in range(1, len(example.input_ids)):
            if example.loss_mask[place]:
                row = logits[place - 1]
                nats += float(torch.logsumexp(row, 0) - row[example.input_ids[place]])
                tokens += 1
    return nats, tokens


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_the_loss_is_the_mean_over_all_counted_tokens_whatever_the_batch(batch_size, runtime, tmp_path):
    examples = examples_of([{"text": text} for text in TEXTS] + chats(CHATS), runtime, tmp_path)
    nats, tokens = by_hand(runtime.model, examples)
    found = score(runtime.model, examples, pad=0, tokenizer=runtime.tokenizer, batch_size=batch_size)
    assert found.loss == pytest.approx(nats / tokens, rel=1e-5)


def test_the_bits_of_a_text_are_over_the_bytes_that_its_first_token_leaves_and_one_for_its_end(runtime, tmp_path):
    examples = examples_of([{"text": text} for text in TEXTS], runtime, tmp_path)
    count = 0
    for text in TEXTS:
        # the first token is what the others are predicted from
        (_, first), *_ = runtime.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        count += len(text[first:].encode("utf-8")) + 1
    nats, _ = by_hand(runtime.model, examples)
    found = score(runtime.model, examples, pad=0, tokenizer=runtime.tokenizer)
    assert counted_bytes(examples, runtime.tokenizer) == count
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / count, rel=1e-5)


def test_the_bits_of_an_answer_are_over_its_own_bytes_and_one_for_its_end(runtime, tmp_path):
    examples = examples_of(chats(CHATS), runtime, tmp_path)
    assert counted_bytes(examples, runtime.tokenizer) == sum(len(answer) + 1 for _, answer in CHATS)


@pytest.fixture(scope="module")
def half_taught(tmp_path_factory):
    """The tiny model, taught half of the answers by heart."""
    runtime = TorchRuntime.load(Checkpoint.open(tiny_model(tmp_path_factory)), device="cpu")
    examples = examples_of(chats(CHATS), runtime, tmp_path_factory.mktemp("taught"))
    runtime.model.requires_grad_(True)
    optimizer = torch.optim.AdamW(runtime.model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        for example in examples[:4]:
            ids = torch.tensor([example.input_ids])
            labels = torch.where(torch.tensor([example.loss_mask]), ids, -100)
            runtime.model(ids, labels=labels).loss.backward()
        optimizer.step()
    runtime.model.requires_grad_(False)
    return runtime, examples


def test_an_answer_is_exact_where_greedy_decoding_reproduces_it(half_taught):
    runtime, examples = half_taught
    right = []
    for example in examples:
        answer = [token for token, counts in zip(example.input_ids, example.loss_mask, strict=True) if counts]
        prompt = list(example.input_ids[: len(example.input_ids) - len(answer)])
        assert prompt == list(example.prompt_ids)
        right.append(runtime.generate([prompt], max_new_tokens=len(answer)) == [answer])
    assert right[:4] == [True] * 4 and not all(right)
    found = score(runtime.model, examples, pad=0, tokenizer=runtime.tokenizer)
    assert found.exact == sum(right) / len(right)
    for example, is_right in zip(examples, right, strict=True):
        assert score(runtime.model, [example], pad=0, tokenizer=runtime.tokenizer).exact == float(is_right)


def test_an_answer_with_one_wrong_token_at_its_end_is_not_exact(half_taught):
    import dataclasses

    runtime, examples = half_taught
    first = examples[0]
    other = 5 if first.input_ids[-1] != 5 else 6
    wrong = dataclasses.replace(first, input_ids=(*first.input_ids[:-1], other))
    assert first.loss_mask[-1]
    assert score(runtime.model, [first, wrong], pad=0, tokenizer=runtime.tokenizer).exact == 0.5
