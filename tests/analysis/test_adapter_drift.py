"""The drift is that of two plain models on the same texts, and its null that of a random adapter of equal size."""

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from geonb.analysis import drift
from geonb.errors import InputError
from geonb.workbench.bench import Bench

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
TEXTS = ["3 apples and 7 pears make 10 pieces.", "In the beginning was the word", "Hello there"]


def test_every_figure_is_that_of_two_plain_models(model, adapter):
    found = drift(model, adapter, TEXTS, draws=1, device="cpu")
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    shares = {}
    for side in ("base", "adapter"):
        network = base if side == "base" else PeftModel.from_pretrained(base, str(adapter)).eval()
        with torch.no_grad():
            logits = [
                network(input_ids=torch.tensor([tokenizer(one)["input_ids"]])).logits[0, :-1].double() for one in TEXTS
            ]
        shares[side] = [torch.softmax(one, -1).numpy() for one in logits]
    by_hand = {"kl": [], "entropy_change": [], "same_first_choice": [], "base_approval": [], "loss_change": []}
    for text, p, q in zip(TEXTS, shares["base"], shares["adapter"], strict=True):
        after = tokenizer(text)["input_ids"][1:]
        places = np.arange(len(after))
        by_hand["kl"].append((q * np.log(q / p)).sum(1).mean())
        by_hand["entropy_change"].append((q * np.log(q) - p * np.log(p)).sum(1).mean())
        by_hand["same_first_choice"].append((p.argmax(1) == q.argmax(1)).mean())
        top = np.argsort(-p, axis=1)[:, :10]
        by_hand["base_approval"].append(np.mean([choice in ten for choice, ten in zip(q.argmax(1), top, strict=True)]))
        by_hand["loss_change"].append((np.log(p[places, after]) - np.log(q[places, after])).mean())
    for name, values in by_hand.items():
        assert found[name].value == pytest.approx(np.mean(values), rel=1e-3, abs=1e-7), name
        assert (
            min(values) - 1e-6 <= found[name].interval[0] <= found[name].interval[1] <= max(values) + 1e-6
            and found[name].n == 3
        )
    assert found["entropy_change"].value == pytest.approx(
        found["entropy_base"].value - found["entropy_adapter"].value, abs=1e-9
    )


def test_a_bench_is_taken_with_a_label_and_is_as_it_was_after_the_random_adapters(model, adapter):
    bench = Bench.open(model, {"mine": adapter}, device="cpu")
    first, again = (drift(bench, "mine", TEXTS, seed=3) for _ in range(2))
    assert first == again and len(first.nulls["kl"]) == 2 and first["kl"].null > 0
    assert drift(bench, adapter, TEXTS, draws=1, seed=3)["kl"].value == first["kl"].value


def test_one_text_has_no_interval(model, adapter):
    assert drift(model, adapter, TEXTS[:1], draws=1, device="cpu")["kl"].interval is None


@pytest.mark.parametrize(
    ("texts", "options", "sentence"),
    [
        ([], {}, "no list of texts"),
        ("text", {}, "no list of texts"),
        (["a"], {}, "text 0 has one token and foretells none"),
        (TEXTS, {"draws": 0}, "0 draws"),
    ],
)
def test_what_foretells_nothing_is_refused(model, adapter, texts, options, sentence):
    with pytest.raises(InputError, match=sentence):
        drift(model, adapter, texts, device="cpu", **options)
