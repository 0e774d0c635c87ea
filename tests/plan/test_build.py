"""The plan of a real model: complete, reproducible, explained, and safe to show."""

import dataclasses
import json
import re
import shutil

import pytest

from geonb.derive import recompute
from geonb.errors import InputError
from geonb.plan import Plan, build_plan
from geonb.plan.inputs import load_inputs
from geonb.plan.options import BUDGETS

HOSTILE = 'x"><script>alert(1)</script>\x1b[2J\n<img src=x onerror=1>'


def test_same_bytes_in_same_bytes_out(plan, data_file, tmp_path):
    elsewhere = tmp_path / data_file.name
    shutil.copy(data_file, elsewhere)
    again = build_plan("embedded", elsewhere)
    assert dataclasses.replace(again, data={**again.data, "path": str(data_file)}).to_json() == plan.to_json()


def test_round_trip_through_json(plan, quick_plan, tmp_path):
    for one in (plan, quick_plan):
        assert Plan.from_json(one.to_json()) == one
        assert Plan.load(one.save(tmp_path / "plan.json")).to_json() == one.to_json()


def test_every_derivation_is_recomputed_from_its_inputs(plan, quick_plan):
    for one in (plan, quick_plan):
        assert len(one.derivations) == 15
        for derivation in Plan.from_json(one.to_json()).derivations:
            assert recompute(derivation) == (derivation.value, derivation.documented_value), derivation.key


def test_floats_are_stored_with_nine_digits_at_most(plan):
    digits = [
        len(re.sub(r"e.*|[-.]", "", number).strip("0"))
        for number in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", json.dumps(plan.to_dict()["targets"]))
    ]
    assert max(digits) <= 9


def test_targets_agree_with_the_derivations(plan):
    ranks, budgets = plan.derivation("lora_rank").value, plan.derivation(10).value
    assert {target.name: target.rank for target in plan.chosen()} == ranks
    assert {target.name: target.budget for target in plan.chosen()} == budgets
    assert plan.n_parameters == sum(target.rank * target.shape[0] for target in plan.chosen())
    assert all(target.rank == target.tail_dims for target in plan.chosen())
    assert {target.role for target in plan.skipped()} <= {"embed", "head", "router", "conv", "other"}
    assert all(target.because.startswith("not targeted: ") for target in plan.skipped())


def test_batch_and_horizon_follow_from_the_calibration(plan):
    assert plan.batch["size"] == plan.derivation("batch_size").value
    assert plan.batch["micro"] * plan.batch["accumulation"] >= plan.batch["size"]
    per_epoch = -(-plan.split["n_train"] // plan.batch["size"])
    assert plan.horizon["steps"] == max(200, per_epoch)
    assert plan.derivation("schedule").value == plan.horizon["steps"]


def test_calibration_can_be_left_out(quick_plan):
    assert quick_plan.calibration is None
    assert quick_plan.batch["size"] == 16
    assert "unmeasured" in quick_plan.to_text()


def test_options_reach_the_plan(data_file):
    found = build_plan(
        "embedded",
        data_file,
        calibrate=False,
        seed=7,
        seq_length=16,
        epochs=3,
        max_rank=8,
        budget="strict",
        basis="random",
        sides="two",
        output="here",
        entropy_reg=True,
        dim_monitor=True,
        topo_monitor=True,
        benchmark="quick",
    )
    assert (found.seed, found.seed_source) == (7, "given by --seed")
    assert found.sequence_length == 16 and found.output == "here"
    assert found.horizon["steps"] == 3 * found.horizon["steps_per_epoch"]
    assert {target.rank for target in found.chosen()} == {8}
    assert all(target.budget == target.sigma_k for target in found.chosen())
    assert {"token entropy", "intrinsic dimension", "topology"} <= set(found.measured_during_training)
    assert "benchmark" in found.verified_after_training
    assert found.n_parameters == sum(8 * sum(target.shape) for target in found.chosen())


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_budget_is_a_length_of_each_matrix_and_the_plan_gives_its_reason(data_file, budget):
    found = build_plan("embedded", data_file, calibrate=False, budget=budget)
    for target in found.chosen():
        radius = {
            "strict": target.sigma_k,
            "balanced": min(3 * target.sigma_k, target.sigma_max),
            "open": target.sigma_max,
        }[budget]
        assert target.budget == pytest.approx(radius, rel=1e-8)
    scale = found.derivation("lora_scale")
    assert scale.because.lower().startswith(budget) and f"{budget} budget" in found.to_text()


@pytest.mark.parametrize("controller", ["mass", "mass-layer"])
def test_documented_controllers_have_plans_too(data_file, controller):
    found = build_plan("embedded", data_file, calibrate=False, controller=controller)
    assert found.controller["name"] == controller
    for derivation in found.derivations:
        assert recompute(derivation) == (derivation.value, derivation.documented_value)


def test_load_inputs_gives_the_same_examples_back(quick_plan):
    inputs = load_inputs(quick_plan)
    assert inputs.data_digest == quick_plan.data["digest"]
    assert inputs.checkpoint.digest == quick_plan.model["digest"]
    assert len(inputs.training) == quick_plan.split["n_train"]
    assert len(inputs.evaluation) == quick_plan.split["n_eval"]
    again = load_inputs(quick_plan)
    assert inputs.training == again.training and inputs.evaluation == again.evaluation
    assert not {e.digest for e in inputs.training} & {e.digest for e in inputs.evaluation}


def test_text_has_everything_that_the_plan_only_view_promises(plan):
    text = plan.to_text()
    words = (
        "model data evaluation seed output length split batch horizon targets bounds controller during after benchmark"
    )
    for word in words.split():
        assert re.search(rf"^  {word} ", text, re.MULTILINE), word
    for derivation in plan.derivations:
        assert derivation.replaces in text
    assert "model.layers.0.self_attn.q_proj.weight" not in text
    explained = plan.to_text(explain=True)
    assert "model.layers.0.self_attn.q_proj.weight" in explained and "formula:" in explained
    assert str(plan.seed) in text and f"{plan.n_parameters:,}" in text


def _hostile(plan):
    targets = tuple(dataclasses.replace(target, name=HOSTILE, because=HOSTILE) for target in plan.targets)
    derivation = dataclasses.replace(plan.derivations[0], because=HOSTILE, beside={HOSTILE: HOSTILE})
    return dataclasses.replace(
        plan,
        model={**plan.model, "name": HOSTILE, "architecture": HOSTILE, "source": HOSTILE, "digest": HOSTILE},
        data={**plan.data, "path": HOSTILE, "digest": HOSTILE},
        output=HOSTILE,
        targets=targets,
        derivations=(derivation, *plan.derivations[1:]),
        derived_now={**plan.derived_now, HOSTILE: HOSTILE},
    )


def test_hostile_names_are_escaped(quick_plan):
    hostile = _hostile(quick_plan)
    page = hostile.to_html()
    assert "<script" not in page and "<img" not in page and "\x1b" not in page
    for text in (hostile.to_text(), hostile.to_text(explain=True)):
        assert "\x1b" not in text and "\\x1b[2J" in text


def test_html_is_self_contained_and_well_formed(plan):
    from html.parser import HTMLParser

    page = plan.to_html()
    assert "http" not in page and "prefers-color-scheme:dark" in page and page.count("<svg") == 2 * len(plan.chosen())

    class Balance(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open_tags = []

        def handle_starttag(self, tag, attrs):
            if tag not in {"br", "rect"}:
                self.open_tags.append(tag)

        def handle_endtag(self, tag):
            assert self.open_tags.pop() == tag

    parser = Balance()
    parser.feed(page.replace("/>", ">"))
    assert parser.open_tags == []


def test_a_memory_budget_lowers_ranks_and_says_so(data_file):
    free = build_plan("embedded", data_file, calibrate=False, memory_budget="2GB")
    assert "tail_dims in every matrix" in free.derivation("lora_rank").because
    tight = build_plan("embedded", data_file, calibrate=False, memory_budget="30MB")
    assert max(t.rank for t in tight.chosen()) < max(t.rank for t in free.chosen())
    assert "memory limit (--memory-budget 30,000,000 bytes)" in tight.derivation("lora_rank").because
    assert tight.batch["micro"] < tight.batch["size"]
    with pytest.raises(InputError, match="--memory-budget was given 1,000 bytes"):
        build_plan("embedded", data_file, calibrate=False, memory_budget=1000)


def test_bad_inputs_are_one_sentence(data_file, tmp_path):
    with pytest.raises(InputError, match="training file itself"):
        build_plan("embedded", data_file, eval_data=data_file)
    with pytest.raises(InputError, match="--seq-length was given 99,999"):
        build_plan("embedded", data_file, seq_length=99_999)
    with pytest.raises(InputError, match="no experts"):
        build_plan("embedded", data_file, target_experts="L0.E1", calibrate=False)
    with pytest.raises(InputError, match=r"nowhere\.jsonl is not a file"):
        build_plan("embedded", tmp_path / "nowhere.jsonl")
    with pytest.raises(InputError, match="does not exist"):
        build_plan(tmp_path / "nowhere", data_file)


def test_an_evaluation_file_is_used_and_named(data_file, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({"text": f"{i} plums are {i} plums " * 12}) + "\n" for i in range(40)))
    found = build_plan("embedded", data_file, eval_data=other, calibrate=False)
    assert found.split["n_eval"] == 40 and found.evaluation["path"] == str(other)
    assert "in the evaluation file" in found.sequence_length_source
