"""Runs compared from their folders: pairs on the same examples only, and nothing on disk is an exception."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from geonb.cli.output import exit_code_of
from geonb.errors import InputError
from geonb.plan import build_plan
from geonb.train import RunFolder, RunsCompared, Training, compare_runs, run_training
from geonb.train.events import EvalEvent, StepEvent
from geonb.train.example_losses import ExampleLosses, examples_digest
from geonb.train.gates import Verification


@pytest.fixture(scope="module")
def folders(tiny_model, tiny_data, tmp_path_factory):
    """Two runs on the same examples, of four steps and of two, and one on other examples."""
    root = tmp_path_factory.mktemp("runs")
    other = root / "other.jsonl"
    other.write_text("".join(json.dumps({"text": f"{i} plums are {i} plums, not pears."}) + "\n" for i in range(200)))
    for name, data, steps in (("four", tiny_data, 4), ("two", tiny_data, 2), ("other", other, 2)):
        run_training(build_plan(tiny_model, data, max_steps=steps, calibrate=False), output=root / name)
    return root


@pytest.fixture
def own(folders, tmp_path):
    """A copy of the first run that a test may damage, beside the second."""
    shutil.copytree(folders / "four", tmp_path / "own")
    return tmp_path / "own", folders / "two"


def by_quantity(compared, quantity="task"):
    return [pair for pair in compared.pairs if pair.quantity == quantity]


def test_the_losses_are_those_of_the_verification(folders):
    run = RunFolder.open(folders / "four")
    losses = ExampleLosses.load(run.losses_path)
    verification = Verification.load(run.verification_path)
    assert ExampleLosses.from_json(losses.to_json()) == losses
    # the plain mean over examples is the paired change; base_loss and adapted_loss weigh by counted tokens
    assert np.mean(losses.adapted) - np.mean(losses.base) == pytest.approx(verification.task.value, abs=1e-5)
    equipment = Training(run.plan()).equipment
    counts = [sum(example.loss_mask) for example in equipment.evaluation]
    assert np.average(losses.base, weights=counts) == pytest.approx(verification.base_loss, abs=1e-5)
    assert np.average(losses.adapted, weights=counts) == pytest.approx(verification.adapted_loss, abs=1e-5)
    assert verification.retention is not None
    retained = np.mean(losses.adapted_retention) - np.mean(losses.base_retention)
    assert retained == pytest.approx(verification.retention.value, abs=1e-5)
    assert losses.evaluation_digest == examples_digest(equipment.evaluation)
    assert losses.retention_digest == examples_digest(equipment.retention)


def test_the_digest_tells_order_tokens_masks_and_boundaries_apart(folders):
    one, two, *_ = Training(RunFolder.open(folders / "four").plan()).equipment.evaluation
    mask = tuple(not counted for counted in one.loss_mask)
    joined = dataclasses.replace(one, input_ids=one.input_ids + two.input_ids, loss_mask=one.loss_mask + two.loss_mask)
    variants = ([one, two], [two, one], [one], [dataclasses.replace(one, loss_mask=mask), two], [joined])
    assert len({examples_digest(examples) for examples in variants}) == len(variants)


def test_a_pair_is_the_mean_paired_difference_with_its_interval(folders):
    from scipy.stats import bootstrap

    compared = compare_runs([folders / "two", folders / "four"])
    (pair,) = by_quantity(compared)
    first, second = (np.array(ExampleLosses.load(folders / name / "losses.json").adapted) for name in ("two", "four"))
    assert pair.difference is not None and pair.difference.interval is not None
    assert pair.difference.value == pytest.approx(np.mean(second - first))
    assert pair.difference.n == len(first)
    independent = bootstrap(
        (second - first,), np.mean, method="percentile", n_resamples=20000, rng=np.random.default_rng(7)
    ).confidence_interval
    assert pair.difference.interval == pytest.approx(tuple(independent), abs=0.1 * (independent.high - independent.low))
    assert pair.difference.interval[1] < 0 and pair.verdict == "second is lower"
    assert "four is lower" in compared.to_text() and "95 %" in pair.because and "Bonferroni" not in pair.because
    (turned,) = by_quantity(compare_runs([folders / "four", folders / "two"]))
    assert turned.verdict == "first is lower" and turned.difference.value == pytest.approx(-pair.difference.value)


def test_a_run_against_itself_does_not_differ(folders):
    compared = compare_runs([folders / "four"] * 2)
    assert [run.label for run in compared.runs] == ["four", "four (2)"]
    assert {pair.verdict for pair in compared.pairs} == {"no significant difference"}
    assert compared.differences == {}


def test_several_pairs_widen_every_interval(folders):
    (alone,) = by_quantity(compare_runs([folders / "two", folders / "four"]))
    compared = compare_runs([folders / "two", folders / "four", folders / "other", folders / "two"])
    tested = [pair for pair in by_quantity(compared) if pair.difference is not None]
    # the run on other data is compared with none, so three of six pairs are tested
    assert len(by_quantity(compared)) == 6 and len(tested) == 3
    assert all("for 3 pairs (Bonferroni)" in pair.because and "98.3333 %" in pair.because for pair in tested)
    wide, narrow = tested[0].difference.interval, alone.difference.interval
    assert wide[0] < narrow[0] and wide[1] > narrow[1]
    # the retention text is the same for all four
    assert all("99.1667 %" in pair.because for pair in by_quantity(compared, "retention"))


def test_beyond_six_runs_each_is_compared_with_the_first(folders):
    compared = compare_runs([folders / "two"] * 7)
    assert [(pair.first, pair.second) for pair in by_quantity(compared)] == [
        ("two", f"two ({number})") for number in range(2, 8)
    ]


def test_other_examples_are_not_comparable(folders):
    compared = compare_runs([folders / "four", folders / "other"])
    (pair,) = by_quantity(compared)
    assert pair.verdict == "not comparable" and pair.difference is None
    assert "the evaluation examples differ" in pair.because and "--eval-data" in pair.because
    assert by_quantity(compared, "retention")[0].difference is not None


def test_the_facts_and_the_differences_are_those_of_the_plans(folders):
    compared = compare_runs([folders / "four", folders / "two"], labels=["a", "b"])
    plan = RunFolder.open(folders / "four").plan()
    verification = Verification.load(folders / "four" / "verification.json")
    facts = compared.runs[0]
    assert (facts.label, facts.state, facts.steps, facts.horizon, facts.problem) == ("a", "done", 4, 4, "")
    assert (facts.seed, facts.batch, facts.parameters) == (plan.seed, plan.batch["size"], plan.n_parameters)
    assert facts.task == verification.task and facts.verdict == verification.verdict
    assert facts.largest_over_sigma_k == max(layer.over_sigma_k for layer in verification.layers)
    events = [event for event in RunFolder.open(folders / "four").events() if isinstance(event, EvalEvent)]
    assert facts.validation == tuple((event.step, event.loss) for event in events)
    assert compared.differences["steps"] == compared.differences["option max_steps"] == (4, 2)
    assert "data" not in compared.differences and "option output" not in compared.differences


def test_the_comparison_survives_json_and_is_no_failed_command(folders, tmp_path):
    compared = compare_runs([folders / "four", folders / "other", tmp_path / "gone"])
    assert RunsCompared.from_json(compared.to_json()) == compared
    assert exit_code_of(compared) == 0
    assert compared.summary().startswith("RunsCompared(3 runs, 6 pairs: ")


def test_a_folder_that_is_gone_is_told(own):
    shutil.rmtree(own[0])
    compared = compare_runs(own)
    assert compared.runs[0].state == "no run" and "is not there" in compared.runs[0].problem
    assert compared.runs[0].validation == () and compared.runs[0].task is None
    assert {(pair.verdict, pair.because) for pair in compared.pairs} == {("not comparable", "own is no run")}
    assert "is not there" in compared.to_text() and "is not there" in compared.to_html()


def test_a_run_that_has_only_its_plan_is_told(own):
    for path in own[0].iterdir():
        if path.name != "plan.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    facts = compare_runs(own).runs[0]
    assert (facts.state, facts.steps, facts.horizon, facts.task) == ("dead", None, 4, None)
    assert "no verification yet" in facts.problem and "--resume" in facts.problem


@pytest.mark.parametrize("name", ["plan.json", "trace.jsonl", "status.json", "verification.json", "losses.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]\n", b"\xff\xfe\n", b'{"kind": "eval"}\n', None])
def test_a_damaged_file_is_a_sentence(name, content, own):
    path = own[0] / name
    # None: cut in the middle, as by a full disk
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    compared = compare_runs(own)
    assert compared.to_text() and compared.to_html() and RunsCompared.from_json(compared.to_json()) == compared
    facts, (pair,) = compared.runs[0], by_quantity(compared)
    if name == "losses.json":
        assert "the losses.json of own cannot be read" in pair.because
    elif name == "verification.json":
        assert name in facts.problem and facts.task is None
        assert pair.because == "the verification.json of own cannot be read"
    elif name == "trace.jsonl" and content in (b"", b"{"):
        # nothing but a line that is still being written, which says nothing against the verification
        assert facts.validation == () and facts.task is not None
    elif name == "trace.jsonl" and content is None:
        # a trace that has not come to its end: training went on after the verification, or so it looks
        assert facts.validation and facts.task is None and "no verification yet" in facts.problem
    else:
        assert f"{name} cannot be read" in facts.problem


def test_losses_of_another_verification_are_not_used(own):
    path = own[0] / "losses.json"
    losses = ExampleLosses.load(path)
    dataclasses.replace(losses, adapted=losses.base).save(path)
    (pair,) = by_quantity(compare_runs(own))
    assert pair.verdict == "not comparable" and "not those that verification.json judged" in pair.because


def test_a_run_verified_before_losses_were_kept_is_told(own):
    (own[0] / "losses.json").unlink()
    compared = compare_runs(own)
    assert compared.runs[0].problem == "" and compared.runs[0].task is not None
    assert "it is not there" in by_quantity(compared)[0].because


def test_a_verification_from_before_the_run_went_on_is_not_its_result(own):
    trace = own[0] / "trace.jsonl"
    trace.write_bytes(b"".join(trace.read_bytes().splitlines(keepends=True)[:-1]))
    compared = compare_runs(own)
    assert compared.runs[0].task is None and "no verification yet" in compared.runs[0].problem
    assert by_quantity(compared)[0].because == "own has no verification yet"


def test_a_requested_stop_leaves_no_losses_and_a_resumed_run_the_same(folders, tiny_model, tiny_data, tmp_path):
    folder = tmp_path / "stopped"

    def ask(event):
        if isinstance(event, StepEvent) and event.step == 2:
            RunFolder.open(folder).request_stop()

    run_training(build_plan(tiny_model, tiny_data, max_steps=4, calibrate=False), output=folder, sinks=[ask])
    assert not RunFolder(folder).losses_path.exists()
    facts = compare_runs([folder, folders / "four"]).runs[0]
    assert (facts.state, facts.steps, facts.task) == ("stopped", 2, None) and facts.validation
    run_training(None, output=folder, resume=True)  # type: ignore[arg-type]
    assert (folder / "losses.json").read_bytes() == (folders / "four" / "losses.json").read_bytes()


def test_names_are_escaped(own):
    script = "<script>alert(1)</script>\x1b[2J"
    compared = compare_runs(own, labels=[script, "b"])
    assert "<script>" not in compared.to_html() and "&lt;script&gt;" in compared.to_html()
    assert "\x1b" not in compared.to_text()


def test_folders_of_one_name_are_told_apart_by_their_parents(folders, tmp_path):
    for parent in "ab":
        (tmp_path / parent / "run").mkdir(parents=True)
    compared = compare_runs([tmp_path / "a" / "run", tmp_path / "b" / "run"])
    assert [run.label for run in compared.runs] == ["a/run", "b/run"]


def test_too_few_folders_and_labels_of_another_number_are_refused(folders):
    with pytest.raises(InputError, match=r"was given 1 run folder; allowed are two or more: give"):
        compare_runs(str(folders / "four"))
    with pytest.raises(InputError, match=r"was given 0 run folders"):
        compare_runs([])
    with pytest.raises(InputError, match=r"was given 1 labels for 2 run folders; allowed is one label for each"):
        compare_runs([folders / "four", folders / "two"], labels=["a"])


@pytest.mark.slow
def test_two_controllers_on_the_embedded_model(tiny_data, tmp_path):
    for name in ("frank-wolfe", "mass"):
        plan = build_plan("embedded", tiny_data, max_steps=2, calibrate=False, controller=name)
        run_training(plan, output=tmp_path / name)
    compared = compare_runs([tmp_path / "frank-wolfe", tmp_path / "mass"])
    assert all(pair.difference is not None for pair in compared.pairs)
    assert compared.differences["controller"] == ("frank-wolfe", "mass")
