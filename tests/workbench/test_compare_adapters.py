"""Two adapters on the same items: the winner follows paired tests, and what is not the same is not paired."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy.stats import binomtest

from geonb.errors import InputError
from geonb.workbench.compare_adapters import AdaptersCompared, compare_adapters, compare_results, paired_test
from geonb.workbench.evaluate import evaluate
from tests.tiny import tiny_model, tiny_run

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
FLOATS = st.floats(-5, 5)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return tiny_run(tmp_path_factory) / "adapter"


@pytest.fixture(scope="module")
def bad(good, tmp_path_factory):
    """The good adapter with B negated: it unlearns what the other one learnt."""
    folder = shutil.copytree(good, tmp_path_factory.mktemp("bad") / "adapter")
    weights = load_file(folder / "adapter_model.safetensors")
    turned = {name: -value if "lora_B" in name else value for name, value in weights.items()}
    save_file(turned, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    path = tmp_path_factory.mktemp("held") / "plums.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i} plums and {i % 7} pears."}) + "\n" for i in range(24)))
    return path


@pytest.fixture(scope="module")
def saved(model, good, bad, held_out, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    for name, adapter in (("good", good), ("bad", bad)):
        evaluate(model, adapter, data=held_out, device="cpu").save(folder / f"{name}.json")
    return folder


def contest(found, first, second):
    return next(one for one in found.contests if (one.first, one.second) == (first, second))


def test_the_better_adapter_wins_whichever_is_named_first(model, good, bad, held_out):
    one = compare_adapters(model, good, bad, held_out, device="cpu")
    other = compare_adapters(model, bad, good, held_out, device="cpu")
    assert (one.winner, one.outcome, other.winner, other.outcome) == ("a", "a is better", "b", "b is better")
    assert contest(one, "a", "b").difference.value == pytest.approx(-contest(other, "a", "b").difference.value)
    assert contest(one, "base", "a").better == "a" and contest(one, "base", "b").better == "base"
    # what a gains on base and what b loses add up to what b is behind a
    gain, loss = contest(one, "base", "a").difference.value, contest(one, "base", "b").difference.value
    assert contest(one, "a", "b").difference.value == pytest.approx(loss - gain, abs=1e-5)
    assert AdaptersCompared.from_json(one.to_json()) == one and "a is better" in one.to_text()


def test_an_adapter_against_itself_has_no_winner(model, good, held_out):
    found = compare_adapters(model, good, good, held_out, device="cpu")
    assert found.winner is None and found.outcome == "no significant difference"
    assert contest(found, "a", "b").difference.interval == (0.0, 0.0) and "contains 0" in found.because


def test_saved_results_are_compared_as_the_adapters_are(model, good, bad, held_out, saved):
    direct = compare_adapters(model, good, bad, held_out, device="cpu")
    from_files = compare_results(saved / "good.json", saved / "bad.json")
    assert from_files == direct


def test_prompts_are_compared_by_mcnemar(model, good, bad, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{i} plums and", "answer": "pears"}) + "\n" for i in range(8)))
    found = compare_adapters(model, good, bad, prompts=path, max_tokens=12, device="cpu")
    between = [one for one in found.contests if (one.first, one.second) == ("a", "b")]
    assert {one.quantity for one in between} == {"loops", "answers"}
    for one in between:
        total = one.counts.only_first + one.counts.only_second
        assert one.counts.n == 8
        assert one.counts.p == pytest.approx(binomtest(one.counts.only_first, total, 0.5).pvalue if total else 1.0)


def with_answers(evaluation, answers):
    """The evaluation of prompts as if the adapter had answered so."""
    results = tuple(
        dataclasses.replace(one, adapted=dataclasses.replace(one.adapted, has_answer=answer))
        for one, answer in zip(evaluation.prompts.results, answers, strict=True)
    )
    return dataclasses.replace(evaluation, prompts=dataclasses.replace(evaluation.prompts, results=results))


def test_more_answers_win_when_they_are_more_than_chance(model, good, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{i} plums and", "answer": "x"}) + "\n" for i in range(10)))
    made = evaluate(model, good, prompts=path, max_tokens=2, device="cpu")
    with_answers(made, [True] * 10).save(tmp_path / "all.json")
    with_answers(made, [True] * 6 + [False] * 4).save(tmp_path / "six.json")
    with_answers(made, [False] * 10).save(tmp_path / "none.json")
    assert compare_results(tmp_path / "all.json", tmp_path / "none.json").winner == "a"
    # four to none is p = 0.125
    undecided = compare_results(tmp_path / "six.json", tmp_path / "all.json")
    assert undecided.winner is None and undecided.outcome == "no significant difference"


def test_other_examples_are_not_paired(model, good, held_out, saved, tmp_path):
    evaluate(model, good, data=held_out, limit=12, device="cpu").save(tmp_path / "half.json")
    found = compare_results(saved / "good.json", tmp_path / "half.json")
    assert found.outcome == "not comparable" and found.winner is None and "the items differ" in found.because
    assert {(one.first, one.second) for one in found.contests} == {("base", "a"), ("base", "b")}
    (tmp_path / "p.jsonl").write_text('{"prompt": "one"}\n')
    evaluate(model, good, prompts=tmp_path / "p.jsonl", max_tokens=2, device="cpu").save(tmp_path / "prompts.json")
    other = compare_results(saved / "good.json", tmp_path / "prompts.json")
    assert "a was evaluated on data and b on prompts" in other.because


def test_another_base_is_noted(saved, tmp_path):
    other = json.loads((saved / "bad.json").read_text()) | {"model_digest": "0" * 64}
    (tmp_path / "other.json").write_text(json.dumps(other))
    found = compare_results(saved / "good.json", tmp_path / "other.json")
    assert "the two were measured on different base models" in found.notes and found.winner == "a"


@pytest.mark.parametrize("content", ["nonsense", "[]", '{"mode": "data"}', '{"unknown": 1}'])
def test_a_file_that_is_no_evaluation_is_refused(saved, tmp_path, content):
    (tmp_path / "wrong.json").write_text(content)
    with pytest.raises(InputError, match="holds no saved evaluation"):
        compare_results(saved / "good.json", tmp_path / "wrong.json")
    with pytest.raises(InputError, match="holds no saved evaluation"):
        compare_results(tmp_path / "missing.json", saved / "good.json")


def test_sources_are_exactly_one(model, good, bad, held_out):
    with pytest.raises(InputError, match="nothing to evaluate on; allowed is exactly one"):
        compare_adapters(model, good, bad)
    with pytest.raises(InputError, match="--prompts and --data; allowed is exactly one"):
        compare_adapters(model, good, bad, held_out, prompts=held_out)


def test_names_from_files_are_shown_escaped(saved, tmp_path):
    hostile = json.loads((saved / "bad.json").read_text()) | {"adapter": "<script>x</script>\x1b[2J"}
    (tmp_path / "hostile.json").write_text(json.dumps(hostile))
    found = compare_results(tmp_path / "hostile.json", saved / "good.json")
    assert "<script>" not in found.to_html() and "\x1b" not in found.to_text()


# -- the test that decides --------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=2, max_size=30))
def test_turning_the_direction_or_the_rows_turns_the_outcome(pairs):
    first, second = (np.array(row) for row in zip(*pairs, strict=True))
    turned = {"improved": "degraded", "degraded": "improved"}
    told = paired_test(first, second, higher_is_better=True, unit="u", seed=1)
    assert told.difference.value == pytest.approx(float(np.mean(second) - np.mean(first)), abs=1e-9)
    expected = turned.get(told.outcome, told.outcome)
    assert paired_test(first, second, higher_is_better=False, unit="u", seed=1).outcome == expected
    if not set(first) | set(second) <= {0.0, 1.0}:
        low, high = told.difference.interval
        assert (told.outcome == "improved") == (low > 0) and (told.outcome == "degraded") == (high < 0)


def test_more_tests_ask_for_more_evidence():
    first, second = [0.0] * 6, [1.0] * 6  # p = 2 * 2^-6 = 0.03125
    assert paired_test(first, second, higher_is_better=True, unit="u", seed=0).outcome == "improved"
    two = paired_test(first, second, higher_is_better=True, unit="u", seed=0, tests=2)
    assert two.outcome == "no significant difference" and ">= 0.025" in two.because


def test_numbers_that_are_not_finite_lose():
    fine, broken = [1.0, 2.0, 1.5], [1.0, float("nan"), 1.5]
    for higher in (True, False):
        assert paired_test(fine, broken, higher_is_better=higher, unit="u", seed=0).outcome == "degraded"
        assert paired_test(broken, fine, higher_is_better=higher, unit="u", seed=0).outcome == "improved"
        assert paired_test(broken, broken, higher_is_better=higher, unit="u", seed=0).outcome == "not tested"
