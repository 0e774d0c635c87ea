"""The scan's numbers are those of two plain forward passes, and its null is an adapter of the same size at random."""

import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from geonb.errors import InputError
from geonb.geometry.statistics import wilson
from geonb.workbench.bench import Bench
from geonb.workbench.drift import DriftScan, DriftToken, PromptDrift, random_adapter, scan, scan_prompt, summarise
from geonb.workbench.generation import encode_prompt, generate
from tests.families import write_tiny

# transformers warns about itself whenever PEFT loads an adapter
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def bench(model, adapter):
    return Bench.open(model, {"mine": adapter}, device="cpu")


@pytest.fixture(scope="module")
def prompts(bench):
    return [encode_prompt(bench.runtime.tokenizer, text, chat=False) for text in ("3 apples and", "Hi", "7 pears make")]


@pytest.fixture(scope="module")
def scanned(bench, prompts):
    return scan(bench, prompts, label="mine", max_tokens=8, seed=5)


def test_every_number_is_that_of_two_forward_passes(model, adapter, alone, bench, prompts):
    found = scan_prompt(bench, prompts[0], label="mine", max_tokens=8, null_draws=0)
    written = [token.id for token in found.tokens]
    assert written == list(generate(bench, prompts[0], label="mine", max_tokens=8).tokens) and found.null == ()
    base, adapted = alone(model), alone(model, adapter)
    ids = torch.tensor([[*prompts[0].ids, *written]])
    with torch.no_grad():
        seen = [one(input_ids=ids).logits[0].double().numpy() for one in (base, adapted)]
    for step, token in enumerate(found.tokens):
        place = len(prompts[0].ids) + step - 1
        p, q = (np.exp(one[place] - one[place].max()) for one in seen)
        p, q = p / p.sum(), q / q.sum()
        assert token.entropy_base == pytest.approx(-(p * np.log(p)).sum(), abs=1e-5)
        assert token.entropy_adapter == pytest.approx(-(q * np.log(q)).sum(), abs=1e-5)
        assert token.kl == pytest.approx((q * np.log(q / p)).sum(), abs=1e-5)
        assert token.surprisal == pytest.approx(-math.log(p[token.id]), abs=1e-5)
        assert token.base_rank == list(np.argsort(-p)).index(token.id) + 1
        assert token.approved == (token.id in np.argsort(-p)[:10])
        assert token.agrees == (p.argmax() == q.argmax()) and token.id == q.argmax()
        assert token.entropy_change == token.entropy_base - token.entropy_adapter


def test_the_text_of_the_tokens_joins_to_the_continuation(bench, prompts, scanned):
    for prompt, one in zip(prompts, scanned.prompts, strict=True):
        written = generate(bench, prompt, label="mine", max_tokens=8)
        special = bench.runtime.tokenizer.all_special_ids
        joined = "".join(token.text for token in one.tokens if token.id not in special)
        # at the limit the text may end inside a character, which no token completes
        assert written.text.rstrip("\ufffd") == joined


def test_an_adapter_that_does_nothing_does_not_drift(model, adapter, tmp_path, prompts):
    from safetensors.torch import load_file, save_file

    tensors = load_file(adapter / "adapter_model.safetensors")
    for name in tensors:
        tensors[name] = tensors[name] * (0 if "lora_B" in name else 1)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    still = scan(Bench.open(model, {"still": tmp_path}, device="cpu"), prompts, label="still", max_tokens=4)
    values = {name: measured.value for name, measured in still.measured.items()}
    assert values["mean KL"] == values["entropy change"] == 0 and values["same first choice"] == 1
    assert values["base approval (top 10)"] == 1
    # a random adapter of norm zero does nothing either
    assert still.measured["mean KL"].null == 0 and still.null_kl_95 == 0


def factors(bench):
    with bench.using("mine") as model:
        name = model.active_adapter
        return {
            path: (module.lora_B[name].weight.detach().clone(), module.lora_A[name].weight.detach().clone())
            for path, module in model.named_modules()
            if hasattr(module, "lora_B") and name in module.lora_B
        }


def test_the_random_adapter_has_rank_and_frobenius_norm_of_the_own_one_and_leaves_no_trace(bench):
    before = factors(bench)
    with random_adapter(bench, "mine", seed=3):
        inside = factors(bench)
        with random_adapter(bench, "mine", seed=4):
            other = factors(bench)
    with random_adapter(bench, "mine", seed=3):
        again = factors(bench)
    after = factors(bench)
    assert len(before) == len(after) > 4
    for path, (left, right) in before.items():
        own = float(torch.linalg.matrix_norm(left.double() @ right.double()))
        for drawn in (inside, other):
            assert drawn[path][0].shape == left.shape and drawn[path][1].shape == right.shape
            made = drawn[path][0].double() @ drawn[path][1].double()
            assert float(torch.linalg.matrix_norm(made)) == pytest.approx(own, rel=1e-5)
        assert not torch.equal(inside[path][1], other[path][1]) and torch.equal(inside[path][1], again[path][1])
        assert torch.equal(left, after[path][0]) and torch.equal(right, after[path][1])


def test_the_own_factors_come_back_after_an_error(bench):
    before = factors(bench)
    with pytest.raises(ZeroDivisionError), random_adapter(bench, "mine"):
        raise ZeroDivisionError
    assert all(torch.equal(left, factors(bench)[path][0]) for path, (left, _) in before.items())


def test_a_random_adapter_of_experts_has_each_experts_own_norm(tmp_path):
    from peft import LoraConfig, get_peft_model

    folder = write_tiny("mixtral", tmp_path / "moe")
    config = LoraConfig(
        r=2, target_parameters=["mlp.experts.down_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    wrapped = get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), config)
    wrapped.save_pretrained(tmp_path / "adapter")
    bench = Bench.open(folder, {"mine": tmp_path / "adapter"}, device="cpu")

    def norms():
        found = []
        for left, right in factors(bench).values():
            parts = [(left[:, e::3], right[2 * e : 2 * e + 2]) for e in range(3)]
            found.append([float(torch.linalg.matrix_norm(b.double() @ a.double())) for b, a in parts])
        return np.array(found)

    own = norms()
    with random_adapter(bench, "mine"):
        assert norms() == pytest.approx(own, rel=1e-5)
    assert own.size == 6 and (own > 0).all()


def token(kl, rank=1, text="a", surprisal=0.1):
    return DriftToken(
        id=1,
        text=text,
        entropy_base=1.0,
        entropy_adapter=0.5,
        kl=kl,
        base_rank=rank,
        agrees=rank == 1,
        surprisal=surprisal,
    )


def test_the_summary_counts_tokens_and_averages_prompts():
    one = PromptDrift(prompt="p", tokens=(token(1.0), token(3.0, rank=11, surprisal=5.0)), null=((token(0.5),),))
    two = PromptDrift(prompt="q", tokens=(token(6.0, rank=10, surprisal=7.0),), null=((token(0.1), token(0.3)),))
    found = summarise([one, two])
    assert found.measured["mean KL"].value == pytest.approx((2.0 + 6.0) / 2)
    assert found.measured["mean KL"].null == pytest.approx((0.5 + 0.2) / 2) and found.measured["mean KL"].n == 2
    low, high = found.measured["mean KL"].interval
    assert 2.0 <= low < high <= 6.0
    approval = found.measured["base approval (top 10)"]
    assert (approval.value, approval.n, approval.null) == (pytest.approx(2 / 3), 3, 1.0)
    assert approval.interval == wilson(2, 3)
    assert found.measured["surprisal > -ln 0.01"].value == pytest.approx(2 / 3)
    assert found.measured["surprisal > -ln 0.001"].value == pytest.approx(1 / 3)
    assert found.null_kl_95 == pytest.approx(np.quantile([0.5, 0.1, 0.3], 0.95))
    assert summarise([one]).measured["mean KL"].interval is None


def test_the_scan_survives_json(scanned):
    assert DriftScan.from_dict(json.loads(scanned.to_json())) == scanned
    assert scanned.null_draws == 1 and all(len(one.null) == 1 for one in scanned.prompts)


def test_the_strip_has_one_bar_a_token_and_no_verdict(scanned):
    text = scanned.to_text()
    strips = [line.split()[1] for line in text.splitlines() if line.strip()[:1].isdigit() and "▁" <= line[-1] <= "█"]
    assert [len(strip) for strip in strips] == [len(one.tokens) for one in scanned.prompts]
    assert "a measurement" in text and "safe" not in text.lower() and "alert" not in text.lower()


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_the_page_shades_every_token_escapes_it_and_explains_itself():
    hostile = '<img src=x onerror="alert(1)">\x1b[2J\u202e'
    one = PromptDrift(
        prompt=hostile, tokens=(token(0.1, text=hostile), token(9.0), token(0.2, text="\n")), null=((token(1.0),),)
    )
    page = Page()
    page.feed(summarise([one]).to_html())
    assert {tag for tag, _ in page.tags} <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "p", "div", "span"}
    assert all(set(attributes) <= {"style", "title"} for _, attributes in page.tags)
    assert "\x1b" not in page.text and "\u202e" not in page.text and "<img src=x" in page.text
    spans = [attributes for tag, attributes in page.tags if tag == "span" and "title" in attributes]
    assert len(spans) == 3 and ["border-bottom" in one["style"] for one in spans] == [False, True, False]
    strength = [float(one["style"].split(",")[3].split(")")[0]) for one in spans]
    assert strength[1] > strength[2] > strength[0] >= 0
    assert "darker is farther" in page.text and "underlined: above the random adapter's 95th percentile" in page.text


def test_misuse_is_refused_in_a_sentence(bench, prompts):
    with pytest.raises(InputError, match="there is no adapter 'other'; loaded are mine"):
        scan_prompt(bench, prompts[0], label="other")
    with pytest.raises(InputError, match="-1 random adapters were asked for"):
        scan_prompt(bench, prompts[0], label="mine", null_draws=-1)
    with pytest.raises(InputError, match="was given no prompt"):
        scan(bench, [], label="mine")
