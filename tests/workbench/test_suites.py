"""A local lm-eval task, base and adapter through one model: scores by hand, paired tests, nothing unsaid."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from transformers import AutoTokenizer

from geonb.errors import InputError
from geonb.workbench import suites
from geonb.workbench.bench import Bench
from geonb.workbench.compare_adapters import IMPROVED, NOT_TESTED
from geonb.workbench.evaluate import AdapterEvaluation, evaluate

pytest.importorskip("lm_eval")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    # the data library reads its Arrow files through memory maps that it leaves to the collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
fewshot_split: test
num_fewshot: {shots}
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: right
doc_to_choice: "{{{{choices}}}}"
metric_list:
  - metric: acc
  - metric: acc_norm
"""
ROWS = [{"question": f"{i} apples make", "choices": [f"{i} pieces", f"{i} pears"], "right": i % 2} for i in range(30)]


@pytest.fixture(scope="module", autouse=True)
def own_data_cache(tmp_path_factory):
    """The data library keeps what it reads: here, not in the user's folder."""
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        yield


def task(folder, name="sums", shots=0):
    folder.mkdir(exist_ok=True)
    data = folder / f"{name}.json"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    path = folder / f"{name}.yaml"
    path.write_text(TASK.format(name=name, data=data, shots=shots))
    return path


def right_by_hand(model, network):
    """For each question, whether the likelier choice (sum of ln p of its tokens) is the right one."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    found = []
    for row in ROWS:
        start = len(tokenizer(row["question"])["input_ids"])
        sums = []
        for choice in row["choices"]:
            ids = tokenizer(f"{row['question']} {choice}")["input_ids"]
            with torch.no_grad():
                logarithms = torch.log_softmax(network(torch.tensor([ids])).logits[0], -1)
            sums.append(sum(float(logarithms[at - 1, ids[at]]) for at in range(start, len(ids))))
        found.append(float(int(np.argmax(sums)) == row["right"]))
    return found


def test_scores_are_those_computed_by_hand(model, adapter, alone, tmp_path):
    result = evaluate(model, adapter, benchmark=task(tmp_path / "t"), device="cpu")
    assert result.benchmark is not None and result.largest_logit_change > 0
    primary, normed = result.benchmark.scores
    assert (primary.task, primary.metric, primary.primary, normed.metric, normed.primary) == (
        *("sums", "acc", True),
        *("acc_norm", False),
    )
    base, adapted = right_by_hand(model, alone(model)), right_by_hand(model, alone(model, adapter))
    assert list(primary.base_values) == base and list(primary.adapted_values) == adapted
    assert primary.base.value == pytest.approx(np.mean(base)) and primary.n == 30
    assert primary.adapted.value == pytest.approx(np.mean(adapted))
    only_base = sum(a > b for a, b in zip(base, adapted, strict=True))
    only_adapter = sum(b > a for a, b in zip(base, adapted, strict=True))
    assert (primary.counts.only_first, primary.counts.only_second) == (only_base, only_adapter)
    total = only_base + only_adapter
    assert primary.counts.p == pytest.approx(binomtest(only_base, total, 0.5).pvalue if total else 1.0)
    low, high = binomtest(int(sum(base)), 30).proportion_ci(method="wilson")
    assert primary.base.interval == pytest.approx((low, high))
    assert AdapterEvaluation.from_json(result.to_json()) == result
    assert "sums" in result.to_text() and "acc *" in result.to_text()


def test_base_and_adapter_see_the_same_examples_before_each_question(model, adapter, tmp_path):
    folder = task(tmp_path / "shots", shots=2)
    score = evaluate(model, adapter, benchmark=folder, limit=6, seed=3, device="cpu").benchmark.scores[0]
    # differing prompts would have different digests, and no paired test
    assert score.counts is not None and score.n == 6
    again = evaluate(model, adapter, benchmark=folder, limit=6, seed=3, device="cpu").benchmark.scores[0]
    other = evaluate(model, adapter, benchmark=folder, limit=6, seed=4, device="cpu").benchmark.scores[0]
    assert again == score and other.digest != score.digest


def test_a_folder_of_tasks_runs_them_all_and_shares_the_error(model, adapter, tmp_path):
    task(tmp_path / "many", "first")
    task(tmp_path / "many", "second")
    found = evaluate(model, adapter, benchmark=tmp_path / "many", limit=8, device="cpu").benchmark
    assert {one.task for one in found.scores} == {"first", "second"}
    assert "each of 2 tests at 0.025 (Bonferroni)" in found.because


def test_a_group_pools_the_examples_of_its_tasks(model, adapter, tmp_path):
    task(tmp_path / "group", "first")
    task(tmp_path / "group", "second", shots=1)
    bench = Bench.open(model, {"it": adapter}, device="cpu")
    suite = suites.prepare_suite(str(tmp_path / "group"))
    apart = suites.run_suite(bench, "it", suite, limit=7, seed=0)
    suite.asked = {"both": ("first", "second")}
    pooled = suites.run_suite(bench, "it", suite, limit=7, seed=0)["both", "acc", "none"]
    parts = [apart[name, "acc", "none"] for name in ("first", "second")]
    assert pooled.values == parts[0].values + parts[1].values and pooled.n == 14
    assert pooled.score == pytest.approx(np.mean(pooled.values))


def test_a_task_that_generates_is_scored_with_every_filter(model, adapter, tmp_path):
    path = task(tmp_path / "written", "written")
    path.write_text(
        path.read_text()
        .replace("output_type: multiple_choice", "output_type: generate_until\ngeneration_kwargs: {max_gen_toks: 4}")
        .replace("doc_to_target: right", "doc_to_target: 'never so'")
        .replace('doc_to_choice: "{{choices}}"\n', "")
        .replace("  - metric: acc\n  - metric: acc_norm\n", "  - metric: exact_match\n")
        + "filter_list:\n"
        + "".join(
            f"  - name: {name}\n    filter: [{{function: regex, regex_pattern: '{pattern}'}}, {{function: take_first}}]\n"
            for name, pattern in (("strict", "(x)"), ("loose", "(.)"))
        )
    )
    found = evaluate(model, adapter, benchmark=path, limit=4, device="cpu").benchmark
    assert [(one.filter, one.primary) for one in found.scores] == [("strict", True), ("loose", False)]
    assert all(one.base.value == 0 and one.n == 4 and one.counts.p == 1 for one in found.scores)
    assert found.outcome == "no significant difference"


def test_an_adapter_without_effect_is_not_put_through_a_suite(model, scaled, tmp_path):
    result = evaluate(model, scaled(tmp_path / "silent", 0.0), benchmark=task(tmp_path / "t"), device="cpu")
    assert result.outcome == "no effect" and result.benchmark is None and result.measured is None


def values(numbers, **changes):
    score = float(np.mean(numbers)) if len(numbers) else 0.5
    given = {"score": score, "n": len(numbers), "values": tuple(numbers), "higher_is_better": True, "primary": True}
    return suites.Values(**{**given, "digest": "d", **changes})


def test_other_metrics_have_a_bootstrap_and_their_own_direction():
    before, after = np.linspace(1, 2, 30), np.linspace(0.5, 1.6, 30)
    suite = suites.Suite(name="s", tasks={}, asked={"t": ("t",)})
    key = ("t", "bits", "none")

    def judged(a, b):
        return suites.compare_scores(suite, {key: a}, {key: b}, seed=0)

    lower = judged(values(before, higher_is_better=False), values(after, higher_is_better=False))
    assert lower.outcome == IMPROVED and lower.scores[0].difference.interval[1] < 0 and lower.scores[0].counts is None
    assert judged(values(before), values(after)).outcome == "degraded"
    assert judged(values(()), values(())).outcome == NOT_TESTED
    unequal = judged(values(before), values(after, digest="other"))
    assert unequal.outcome == NOT_TESTED and unequal.scores[0].difference is None


def test_one_task_better_and_another_worse_is_mixed():
    suite = suites.Suite(name="s", tasks={}, asked={"up": ("up",), "down": ("down",)})
    no, yes = values([0.0] * 12), values([1.0] * 12)
    up, down = ("up", "acc", "none"), ("down", "acc", "none")
    found = suites.compare_scores(suite, {up: no, down: yes}, {up: yes, down: no}, seed=0)
    assert found.outcome == "mixed" and found.because.startswith("better on up, worse on down")


def test_the_suites_are_the_named_tasks():
    assert suites.SUITES["quick"] == ("gsm8k", "arc_easy", "boolq")
    assert set(suites.SUITES["comprehensive"]) == {
        *("gsm8k", "arc_easy", "boolq", "arc_challenge", "hellaswag", "mmlu"),
    }


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("nothing.yaml", "{}\n", "no file in it names a task"),
        ("lost.yaml", TASK.format(name="lost", data="/no/data.json", shots=0), "cannot be loaded"),
        ("wrong.txt", "task: a\n", "holds no lm-eval task: give a .yaml file or a folder"),
    ],
)
def test_a_task_that_cannot_be_loaded_is_refused(tmp_path, name, content, sentence):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=sentence):
        suites.prepare_suite(str(tmp_path / name))


def test_a_task_whose_template_fails_is_refused(model, adapter, tmp_path):
    path = task(tmp_path / "t")
    path.write_text(path.read_text().replace("{{question}}", "{{there_is_no_such_field}}"))
    with pytest.raises(InputError, match="there_is_no_such_field"):
        evaluate(model, adapter, benchmark=path, device="cpu")


def test_an_unknown_suite_and_a_missing_harness_are_told(monkeypatch):
    with pytest.raises(InputError, match="allowed are quick, reasoning, factual, comprehensive, or the path"):
        suites.prepare_suite("speedy")
    monkeypatch.setattr(suites.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"lm-eval, which is not installed: pip install 'geonb\[eval\]'"):
        suites.prepare_suite("quick")


@pytest.mark.slow
def test_a_named_suite_without_network_is_one_sentence(tmp_path):
    code = (
        "from geonb.errors import InputError\nfrom geonb.workbench.suites import prepare_suite\n"
        "try:\n    prepare_suite('quick')\nexcept InputError as error:\n    print(error)"
    )
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    import os

    found = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **offline}, capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith("the suite quick needs the data of gsm8k, which neither the network nor")
    assert found.stdout.count("\n") == 1
