"""An evaluation scores what transformers and PEFT alone score, says what is significant, and keeps every item."""

import json
import math

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from geonb.data.dataset import tokenise
from geonb.data.records import read_records
from geonb.errors import InputError
from geonb.workbench.evaluate import AdapterEvaluation, counted_bytes, evaluate
from tests.tiny import tiny_data

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    path = tmp_path_factory.mktemp("held") / "plums.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i} plums — and {i % 7} pears."}) + "\n" for i in range(24)))
    return path


def nats(model, network, texts):
    """Sum of -ln p of every token but the first, end token included, and the count, of each text on its own."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    found = []
    for text in texts:
        ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            logarithms = torch.log_softmax(network(torch.tensor([ids])).logits[0].double(), -1)
        found.append((-sum(float(logarithms[at, ids[at + 1]]) for at in range(len(ids) - 1)), len(ids) - 1))
    return np.array(found)


def test_losses_are_those_of_transformers_and_peft_text_by_text(model, adapter, alone, held_out):
    result = evaluate(model, adapter, data=held_out, device="cpu").loss
    assert result is not None and result.n == 24
    texts = [json.loads(line)["text"] for line in held_out.read_text().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(model)
    # the first token is predicted by nothing, so its bytes do not count
    size = sum(len(text.encode()) - len(tokenizer.decode(tokenizer(text)["input_ids"][:1]).encode()) for text in texts)
    assert result.bytes == size
    sums = {"base": nats(model, alone(model), texts), "adapted": nats(model, alone(model, adapter), texts)}
    for name, found in sums.items():
        total, count = found.sum(0)
        assert getattr(result, name) == pytest.approx(total / count, rel=1e-5)
        assert getattr(result, f"{name}_bits_per_byte") == pytest.approx(total / math.log(2) / size, rel=1e-5)
        assert getattr(result, f"{name}_losses") == pytest.approx(found[:, 0] / found[:, 1], rel=1e-4)
        assert result.tokens == count
    means = [found[:, 0] / found[:, 1] for found in sums.values()]
    assert result.difference.value == pytest.approx(float((means[1] - means[0]).mean()), abs=1e-5)


def test_the_outcome_follows_the_interval(model, adapter, scaled, held_out, tmp_path):
    improved = evaluate(model, adapter, data=held_out, device="cpu")
    assert improved.outcome == "improved" and improved.loss.difference.interval[1] < 0
    worse = evaluate(model, scaled(tmp_path / "worse", -1.0), data=held_out, device="cpu")
    assert worse.outcome == "degraded" and worse.loss.difference.interval[0] > 0
    one = evaluate(model, adapter, data=held_out, limit=1, device="cpu")
    assert one.outcome == "not tested" and "two examples, and 1 was scored" in one.because
    assert one.loss.n == 1 and one.loss.difference.interval is None


def test_an_adapter_that_changes_no_logit_is_told_in_every_mode(model, adapter, scaled, held_out, tmp_path):
    silent = scaled(tmp_path / "silent", 0.0)
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"prompt": "One and one make", "answer": "two"}\n')
    for source in ({"data": held_out}, {"prompts": questions, "max_tokens": 3}):
        result = evaluate(model, silent, device="cpu", **source)
        assert result.outcome == "no effect" and result.largest_logit_change == 0
        assert "changes no logit at all" in result.to_text()
    assert evaluate(model, adapter, data=held_out, device="cpu").largest_logit_change > 0


def test_conversations_count_what_the_assistant_writes(tmp_path):
    path = tmp_path / "chat.jsonl"
    turns = [("user", "How many?"), ("assistant", "Zwölf."), ("user", "And now?"), ("assistant", "Nine, naïve.")]
    path.write_text(json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}) + "\n")
    tokenizer = AutoTokenizer.from_pretrained(tiny_embedded())
    example = tokenise(read_records(path), tokenizer, context_length=256).examples[0]
    assert counted_bytes(example, tokenizer) == len("Zwölf.".encode()) + len("Nine, naïve.".encode())


def tiny_embedded():
    from geonb.assets import embedded_model_folder

    return embedded_model_folder()


def test_data_that_a_run_was_trained_on_are_called_so(model, adapter, held_out, tmp_path_factory):
    seen = evaluate(model, adapter, data=tiny_data(tmp_path_factory), limit=4, device="cpu")
    assert any("trained on" in one for one in seen.notes)
    assert not evaluate(model, adapter, data=held_out, limit=4, device="cpu").notes


def test_examples_cut_at_the_context_are_noted(model, adapter, tmp_path):
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"text": "short and plain"}) + "\n" + json.dumps({"text": "very long " * 400}) + "\n")
    assert "1 of 2 examples were cut" in evaluate(model, adapter, data=path, device="cpu").notes[0]


def test_a_saved_evaluation_comes_back_equal_and_shows_names_escaped(model, adapter, held_out, tmp_path):
    told = []
    result = evaluate(model, adapter, data=held_out, device="cpu", progress=told.append)
    assert AdapterEvaluation.load(result.save(tmp_path / "kept.json")) == result
    assert any("loading" in one for one in told) and any("losses of the base" in one for one in told)
    hostile = AdapterEvaluation.from_dict({**result.to_dict(), "adapter": "<script>x</script>\x1b[2J"})
    assert "<script>" not in hostile.to_html() and "\x1b" not in hostile.to_text()
    assert "nats per token" in result.to_text() and "improved" in repr(result)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "nothing to evaluate on; allowed is exactly one of --prompts, --data and --benchmark"),
        ({"data": "x", "prompts": "y"}, "--prompts and --data; allowed is exactly one"),
        ({"data": "x", "max_tokens": 5}, "--max-tokens was given 5; it is a number from 1 up and only limits"),
        ({"prompts": "x", "max_tokens": 0}, "--max-tokens was given 0"),
        ({"data": "x", "limit": 0}, "--limit was given 0; allowed are numbers from 1 up"),
        ({"data": "/no/data.jsonl"}, "is not a file; the data is a JSONL file"),
    ],
)
def test_misuse_is_refused_in_a_sentence(model, adapter, given, sentence):
    with pytest.raises(InputError, match=sentence):
        evaluate(model, adapter, **given)


def test_an_adapter_that_is_none_or_of_another_base_is_refused(model, adapter, held_out, tmp_path):
    with pytest.raises(InputError, match=r"holds no adapter_config\.json"):
        evaluate(model, tmp_path, data=held_out)
    with pytest.raises(InputError, match="does not fit embedded"):
        evaluate("embedded", adapter, data=held_out, device="cpu")
