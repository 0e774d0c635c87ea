"""What goes wrong around a run: memory runs out, two runs want one folder, the clock jumps, the disk fills up."""

import builtins
import errno
import json
import os
import subprocess
import sys
import time

import pytest
import torch

from geonb.errors import GeonbError, InputError
from geonb.train import RunFolder, run_status, run_training
from geonb.train import gradient as gradient_module
from geonb.train.events import NoteEvent, StepEvent
from geonb.train.gradient import is_out_of_memory
from geonb.train.objective import forward_losses
from tests.train.test_resume import contents


class Killed(BaseException):
    pass


def lines(folder, kind):
    found = map(json.loads, (folder / "trace.jsonl").read_text().splitlines())
    return [line for line in found if line["kind"] == kind]


# -- memory -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def room_for(monkeypatch):
    """Let a forward pass of more than so many examples fail as CUDA's allocator does."""

    def limit(examples, from_step=1):
        made = {"passes": 0}

        def bounded(model, batch, **options):
            made["passes"] += 1
            if made["passes"] >= from_step and len(batch["input_ids"]) > examples:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return forward_losses(model, batch, **options)

        monkeypatch.setattr(gradient_module, "forward_losses", bounded)

    return limit


def test_where_memory_runs_out_the_micro_batch_is_halved_and_the_trace_says_so(tiny_plan, tmp_path, room_for):
    run_training(tiny_plan, output=tmp_path / "plenty")
    room_for(2)
    run = run_training(tiny_plan, output=tmp_path / "scarce")
    assert run.stop.reason == "horizon"
    notes = [event for event in RunFolder(tmp_path / "scarce").events() if isinstance(event, NoteEvent)]
    assert len(notes) == 1 and notes[0].because.startswith("memory ran out: from ") and "to 2 " in notes[0].because
    # the same gradient, summed in another order
    plenty, scarce = (lines(tmp_path / name, "step") for name in ("plenty", "scarce"))
    assert [step["loss"] for step in scarce] == pytest.approx([step["loss"] for step in plenty], rel=1e-3)
    assert scarce[0]["loss"] == pytest.approx(plenty[0]["loss"], rel=1e-6)


def test_a_halved_micro_batch_is_kept_when_the_run_goes_on(tiny_plan, tmp_path, room_for):
    room_for(2)
    run_training(tiny_plan, output=tmp_path / "whole")

    def kill(event):
        if isinstance(event, StepEvent) and event.step == 9:
            raise Killed

    with pytest.raises(Killed):
        run_training(tiny_plan, output=tmp_path / "cut", sinks=[kill])
    # as much memory as one likes: the micro-batch stays what it was, and so do the bytes
    room_for(1000)
    run_training(tiny_plan, output=tmp_path / "cut", resume=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_one_example_that_does_not_fit_ends_the_run_with_a_sentence(tiny_plan, tmp_path, room_for):
    room_for(0)
    with pytest.raises(GeonbError, match=r"one example alone does not fit into memory .*--seq-length"):
        run_training(tiny_plan, output=tmp_path / "run")
    assert run_status(tmp_path / "run").state == "failed"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("x"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_an_allocator_that_gives_up_is_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) is expected


# -- two runs, one folder -------------------------------------------------------------------------------------------------


def test_a_folder_that_is_held_is_refused_to_everybody_else(tiny_plan, tmp_path):
    run = RunFolder.create(tmp_path / "run", tiny_plan)
    assert run.is_held() is None
    with run.held():
        assert run.is_held()
        with pytest.raises(InputError, match=r"is in training elsewhere: .*choose another folder with -o"), run.held():
            pass
    assert run.is_held() is False


@pytest.mark.slow
def test_of_two_runs_that_begin_at_once_one_trains_and_the_other_is_told(tiny_plan, tmp_path):
    tiny_plan.save(tmp_path / "plan.json")
    gate, folder = tmp_path / "gate", tmp_path / "run"
    code = (
        "import sys, time; from pathlib import Path; from geonb.plan import Plan; from geonb.train import run_training\n"
        "from geonb.errors import InputError\n"
        "plan = Plan.load(sys.argv[1]); import geonb.train.execute\n"
        "Path(sys.argv[4]).touch()\n"
        "while not Path(sys.argv[3]).exists(): pass\n"
        "try: run_training(plan, output=sys.argv[2])\n"
        "except InputError as error: print(error); raise SystemExit(2)\n"
    )
    ready = [tmp_path / "one", tmp_path / "two"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "plan.json"), str(folder), str(gate), str(path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for path in ready
    ]
    until = time.monotonic() + 120
    while not all(path.exists() for path in ready) and time.monotonic() < until:
        time.sleep(0.05)
    gate.touch()
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 2], outputs
    refused = next(text for text, process in zip(outputs, processes, strict=True) if process.returncode == 2)
    assert f"the output {folder} exists" in refused or "is in training elsewhere" in refused
    assert run_status(folder).state == "done"


# -- the clock ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_a_clock_that_jumps_leaves_the_run_and_its_bytes_alone(tiny_plan, tmp_path, monkeypatch, jump):
    run_training(tiny_plan, output=tmp_path / "steady")
    real, alive = time.time, []

    def shift(event):
        if isinstance(event, StepEvent) and event.step == 8:
            monkeypatch.setattr(time, "time", lambda: real() + jump)
        if isinstance(event, StepEvent) and event.step > 8:
            alive.append(RunFolder(tmp_path / "run").is_alive())

    run_training(tiny_plan, output=tmp_path / "run", sinks=[shift])
    assert alive and all(alive), "a run that trains is alive whatever the clock says"
    assert contents(tmp_path / "run") == contents(tmp_path / "steady")


# -- the disk -------------------------------------------------------------------------------------------------------------


def test_a_trace_line_that_does_not_fit_is_taken_back(tiny_plan, tmp_path, monkeypatch):
    run = RunFolder.create(tmp_path / "run", tiny_plan)
    run.append(NoteEvent(step=1, because="first"))
    before = run.trace_path.read_bytes()

    class Full:
        def __init__(self, stream):
            self.stream = stream

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.stream.close()

        def write(self, data):
            # what a full disk does to a large write: a part of it fits
            return self.stream.write(data[: len(data) // 2])

        def tell(self):
            return self.stream.tell()

        def truncate(self, length):
            return self.stream.truncate(length)

    opened = open
    monkeypatch.setattr(builtins, "open", lambda *given, **named: Full(opened(*given, **named)))
    with pytest.raises(OSError, match="No space left") as caught:
        run.append(NoteEvent(step=2, because="second"))
    monkeypatch.undo()
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(run.trace_path)
    assert run.trace_path.read_bytes() == before


def test_a_status_that_cannot_be_written_stops_no_training(tiny_plan, tmp_path, monkeypatch):
    from geonb.train import run_folder

    real = run_folder.atomic_write

    def full_for_status(path, content, **options):
        if path.name == "status.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, content, **options)

    monkeypatch.setattr(run_folder, "atomic_write", full_for_status)
    run = run_training(tiny_plan, output=tmp_path / "run")
    assert run.stop.reason == "horizon" and run.verification is not None
    assert not (tmp_path / "run" / "status.json").exists()


def test_a_trace_shorter_than_its_checkpoint_counts_on_is_refused(tiny_plan, tmp_path):
    def kill(event):
        if isinstance(event, StepEvent) and event.step == 9:
            raise Killed

    with pytest.raises(Killed):
        run_training(tiny_plan, output=tmp_path / "run", sinks=[kill])
    os.truncate(tmp_path / "run" / "trace.jsonl", 10)
    with pytest.raises(InputError, match=r"is 10 bytes long and its checkpoint counts on [\d,]+: .*--overwrite"):
        run_training(tiny_plan, output=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "trace.jsonl").stat().st_size == 10
