"""A whole run on a tiny model: events, folder, verification, PEFT as the client of the adapter."""

import json
import warnings

import numpy as np
import pytest
import torch

from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.runtime import TorchRuntime
from geonb.train import RunFolder, Training, run_status, run_training
from geonb.train.events import EvalEvent, StepEvent, StopEvent, event_from_line
from geonb.train.gates import Verification


@pytest.fixture(scope="module")
def finished(tiny_plan, tmp_path_factory):
    seen = []
    folder = tmp_path_factory.mktemp("runs") / "run"
    run = run_training(tiny_plan, output=folder, sinks=[seen.append])
    return run, RunFolder.open(folder), seen


def test_every_step_is_an_event_and_the_trace_replays_what_the_sinks_saw(finished):
    _, folder, seen = finished
    assert list(folder.events()) == seen
    assert [event.step for event in seen if isinstance(event, StepEvent)] == list(range(1, 17))
    assert isinstance(seen[0], EvalEvent) and seen[0].step == 0
    assert isinstance(seen[-1], StopEvent) and seen[-1].reason == "horizon"


def test_the_step_never_exceeds_a_bound_and_the_gap_is_never_negative(finished):
    for event in finished[2]:
        if isinstance(event, StepEvent):
            assert event.eta_step <= min(event.eta_ceiling, event.eta_sps, event.eta_weyl) * (1 + 1e-12)
            assert event.gap is not None and event.gap >= 0
            assert all(layer.budget_used <= 1 for layer in event.layers)


def test_training_lowers_the_loss_and_the_verification_passes(finished):
    run, folder, seen = finished
    evaluations = [event for event in seen if isinstance(event, EvalEvent)]
    assert evaluations[-1].loss < evaluations[0].loss - 0.1
    assert run.verification.verdict == "passed"
    assert Verification.load(folder.verification_path) == run.verification
    assert {gate.name for gate in run.verification.gates if gate.required} >= {
        "spectral bound",
        "weyl and interlacing",
        "reload through PEFT",
        "merged = adapter",
        "task improved",
        "no degeneration",
    }


def test_peft_loads_the_adapter_without_a_warning_and_gives_the_same_logits(finished, tiny_model, tiny_plan):
    from peft import PeftModel

    _, folder, _ = finished
    training = Training(tiny_plan, run=folder, resume=True)
    training.use_best()
    ids = [5, 300, 700, 1200, 9]
    expected = training.equipment.runtime.logits(ids)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # transformers' own deprecated property, which PEFT reads on every load
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        fresh = TorchRuntime.load(Checkpoint.open(tiny_model), device="cpu")
        fresh.model = PeftModel.from_pretrained(fresh.model, folder.adapter_path).eval()
        assert torch.equal(fresh.logits(ids), expected)


def test_the_saved_config_names_every_rank_and_a_scale_of_one(finished, tiny_plan):
    config = json.loads((finished[1].adapter_path / "adapter_config.json").read_text())
    for target in tiny_plan.chosen():
        pattern = "^" + target.module.replace(".", r"\.") + "$"
        assert config["rank_pattern"].get(pattern, config["r"]) == target.rank
        assert config["alpha_pattern"].get(pattern, config["lora_alpha"]) == target.rank
    assert config["target_modules"] == sorted(target.module for target in tiny_plan.chosen())


def test_the_status_reads_the_folder(finished):
    status = run_status(finished[1].path)
    assert (status.state, status.step, status.horizon, status.verdict) == ("done", 16, 16, "passed")
    assert "step 16 of 16" in status.to_text()


def test_an_existing_folder_is_refused_and_left_alone(finished, tiny_plan):
    before = (finished[1].trace_path).read_bytes()
    with pytest.raises(InputError, match="exists; allowed is a new or empty folder"):
        run_training(tiny_plan, output=finished[1].path)
    assert finished[1].trace_path.read_bytes() == before


def test_overwrite_never_removes_a_folder_that_is_not_a_run(tiny_plan, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is not a geonb run"):
        run_training(tiny_plan, output=tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_no_save_leaves_nothing(tiny_plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = run_training(tiny_plan, save=False)
    assert run.folder is None and run.verification is not None
    assert not list(tmp_path.iterdir())


def test_dw_is_zero_at_step_0(tiny_plan):
    training = Training(tiny_plan)
    ids = [5, 300, 700]
    with training.base():
        base = training.equipment.runtime.logits(ids)
    assert torch.equal(training.equipment.runtime.logits(ids), base)
    assert all(matrix.factors.product_norm() == 0 for matrix in training.equipment.matrices)


def test_changed_data_is_refused(tiny_model, tiny_data, tiny_plan, tmp_path):
    from geonb.plan import build_plan

    own = tmp_path / "own.jsonl"
    own.write_bytes(tiny_data.read_bytes())
    plan = build_plan(tiny_model, own, max_steps=4, calibrate=False)
    own.write_text(own.read_text().replace("apples", "plums"))
    with pytest.raises(InputError, match="changed since the plan was made"):
        Training(plan)


def test_a_non_finite_loss_ends_the_run_with_its_cause(tiny_plan, monkeypatch):
    training = Training(tiny_plan)
    with torch.no_grad():
        next(iter(training.leaves.values())).fill_(float("nan"))
    training.baseline = {"evaluation": np.zeros(2)}
    *_, stop = training.events()
    assert isinstance(stop, StopEvent) and stop.reason == "diverged" and "loss of step 1 is nan" in stop.because


def test_the_monitors_and_the_regulariser_are_real(tiny_model, tiny_data):
    from geonb.plan import build_plan

    plan = build_plan(
        tiny_model, tiny_data, max_steps=8, calibrate=False, entropy_reg=True, topo_monitor=True, dim_monitor=True
    )
    training = Training(plan)
    evaluations = [event for event in training.events() if isinstance(event, EvalEvent)]
    assert evaluations[0].topology == 1.0
    assert all(event.dimension > 0 and event.topology > 0 for event in evaluations)
    losses = type("Losses", (), {"entropy": torch.tensor([0.1]), "count": torch.tensor([1])})()
    penalty = training.monitors.entropy_penalty(losses, 1)
    assert penalty == pytest.approx(0.5 * training.monitors._entropy - 0.1, rel=1e-5)


def test_a_trace_line_of_another_kind_is_refused():
    with pytest.raises(InputError, match="allowed are step, eval, note and stop"):
        event_from_line('{"kind": "party"}')
