"""Counterexamples are found where there are any, by name, and a validation that was interrupted goes on."""

import dataclasses

import pytest

from geonb.errors import InputError
from geonb.train import RunFolder
from geonb.train.gates import Verification
from geonb.workbench import validate
from geonb.workbench.validate import MODES, Validation, validate_derived
from tests.tiny import tiny_data, tiny_model

OPTIONS = {"max_steps": 4, "calibrate": False, "device": "cpu"}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("validation")
    return folder, validate_derived(
        tiny_model(tmp_path_factory), tiny_data(tmp_path_factory), trials=2, output=folder, **OPTIONS
    )


def test_each_seed_is_a_run_of_its_own_with_what_its_verification_says(found):
    folder, validation = found
    first, second = validation.trials
    assert second.seed == first.seed + 1 and set(validation.counts) == set(MODES)
    for trial in validation.trials:
        run = RunFolder.open(folder / f"seed-{trial.seed}")
        verification = Verification.load(run.verification_path)
        assert run.plan().seed == trial.seed and trial.task == verification.task
        failed = {gate.name for gate in verification.gates if gate.status == "failed"}
        assert len([name for name in trial.failures if name not in ("budget exhausted", "diverged")]) == len(failed)
    assert validation.verdict == ("failed" if validation.counterexamples else "passed")
    assert validation.task.value == pytest.approx(sum(t.task.value for t in validation.trials) / 2)
    assert Validation.from_json(validation.to_json()) == validation


def test_a_validation_that_is_started_again_trains_nothing_that_was_verified(found, tmp_path_factory, monkeypatch):
    folder, validation = found

    def never(*given, **named):
        raise AssertionError("a verified trial was trained again")

    monkeypatch.setattr("geonb.train.execute.run_training", never)
    again = validate_derived(
        tiny_model(tmp_path_factory), tiny_data(tmp_path_factory), trials=2, output=folder, **OPTIONS
    )
    assert again == validation


@pytest.mark.parametrize(
    ("gate", "name"), [(gate, name) for name, gate, _ in validate._OF_GATES], ids=lambda value: value
)
def test_every_gate_that_fails_is_a_failure_by_its_own_name(found, gate, name):
    folder, validation = found
    run = RunFolder.open(folder / f"seed-{validation.trials[0].seed}")
    verification = Verification.load(run.verification_path)
    gates = tuple(
        dataclasses.replace(one, status="failed" if one.name == gate else "passed") for one in verification.gates
    )
    stop = list(run.events())[-1]
    trial = validate._judged(run.plan(), stop, dataclasses.replace(verification, gates=gates))
    assert trial.failures == (name,) and trial.because[0].startswith(f"{name}: ")


def test_a_run_that_diverged_filled_its_budget_or_measured_nothing_is_a_counterexample(found):
    folder, validation = found
    run = RunFolder.open(folder / f"seed-{validation.trials[0].seed}")
    verification = Verification.load(run.verification_path)
    gates = tuple(dataclasses.replace(one, status="unmeasured", required=True) for one in verification.gates)
    layers = tuple(dataclasses.replace(one, norm=one.budget) for one in verification.layers)
    stop = dataclasses.replace(list(run.events())[-1], reason="diverged")
    trial = validate._judged(run.plan(), stop, dataclasses.replace(verification, gates=gates, layers=layers))
    assert trial.failures == ("diverged", "budget exhausted", "not measured")


def test_misuse_is_refused_in_a_sentence(found, tmp_path_factory):
    folder, _ = found
    model, data = tiny_model(tmp_path_factory), tiny_data(tmp_path_factory)
    with pytest.raises(InputError, match="--trials was given 1; allowed is 2 or more"):
        validate_derived(model, data, trials=1)
    with pytest.raises(InputError, match="holds a run of another plan"):
        validate_derived(model, data, trials=2, output=folder, **{**OPTIONS, "max_steps": 5})
