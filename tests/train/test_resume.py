"""A run that is killed at any instant resumes and ends with the same bytes as an uninterrupted one."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from geonb.errors import GeonbError, InputError
from geonb.train import RunFolder, Training, run_status, run_training
from geonb.train.events import StepEvent

FILES = (
    "trace.jsonl",
    "verification.json",
    "losses.json",
    "samples.json",
    "adapter/adapter_model.safetensors",
    "adapter-last/adapter_model.safetensors",
)


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def uninterrupted(tiny_plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    run_training(tiny_plan, output=folder)
    return contents(folder)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", [1, 2, 7, 15, 16])
def test_an_exception_at_any_step_loses_nothing(step, tiny_plan, tmp_path, uninterrupted):
    def kill(event):
        if isinstance(event, StepEvent) and event.step == step:
            raise Killed

    with pytest.raises(Killed):
        run_training(tiny_plan, output=tmp_path / "run", sinks=[kill])
    assert run_status(tmp_path / "run").state == "failed"
    run_training(tiny_plan, output=tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == uninterrupted


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_same_bytes(tiny_plan, tmp_path, uninterrupted):
    folder = tmp_path / "run"
    tiny_plan.save(tmp_path / "plan.json")
    code = (
        "import sys; from geonb.plan import Plan; from geonb.train import run_training; import time\n"
        "run_training(Plan.load(sys.argv[1]), output=sys.argv[2], sinks=[lambda event: time.sleep(0.1)])"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "plan.json"), str(folder)])
    deadline = time.time() + 120
    while time.time() < deadline and not ((folder / "trace.jsonl").exists() and run_status(folder).step >= 5):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    status = run_status(folder)
    assert status.state == "dead" and 5 <= status.step < 16
    run_training(tiny_plan, output=folder, resume=True)
    assert contents(folder) == uninterrupted


def test_a_requested_stop_leaves_a_checkpoint_to_go_on_from(tiny_plan, tmp_path, uninterrupted):
    folder = tmp_path / "run"

    def ask(event):
        if isinstance(event, StepEvent) and event.step == 6:
            RunFolder.open(folder).request_stop()

    run = run_training(tiny_plan, output=folder, sinks=[ask])
    assert run.stop.reason == "requested" and run.stop.step == 6 and run.verification is None
    assert run_status(folder).state == "stopped"
    run_training(tiny_plan, output=folder, resume=True)
    assert contents(folder) == uninterrupted


def test_with_no_space_left_the_previous_checkpoint_survives(tiny_plan, tmp_path, monkeypatch):
    run = RunFolder.create(tmp_path / "run", tiny_plan)
    training = Training(tiny_plan, run=run)
    events = training.events()
    next(events)
    training._checkpoint()
    before = run.checkpoint_path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("geonb.records.os.fsync", full)
    with pytest.raises(GeonbError, match=r"no space left for the checkpoint of step 0 .* free some space"):
        training._checkpoint()
    assert run.checkpoint_path.read_bytes() == before
    assert [path.name for path in run.checkpoint_path.parent.iterdir() if path.name.endswith(".part")] == []


def test_resuming_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no plan\.json"):
        run_training(None, output=tmp_path, resume=True)  # type: ignore[arg-type]
