"""The trace of a run: the same picture from events, from a folder, and while another thread or process writes it."""

import json
import math
import os
import shutil
import subprocess
import threading
import time

import numpy as np
import pytest

from geonb.errors import InputError
from geonb.plan import build_plan
from geonb.train.events import Condition, EvalEvent, LayerState, NoteEvent, StepEvent, StopEvent
from geonb.train.run_folder import RunFolder, Status
from geonb.widgets.mass_trace import MassTrace
from geonb.widgets.packing import unpack

# the five of geonb.train.certificate, with a text of the length that it writes
WHY = "fall of the mean gap between two windows of 1250 steps, against two standard errors"
CONDITIONS = tuple(
    Condition(name=name, status="not met", value=0.1234567891234, threshold=0.0001234567891, because=WHY)
    for name in ("stationarity", "improvement bound", "worst group", "no drift", "task improved")
)


def step(number, **changes):
    layer = LayerState(name="<w>", eta_step=0.1, binding="weyl", norm=0.1, budget_used=0.2, over_sigma_k=0.3)
    given = {"layers": (layer,) if number % 5 == 0 else (), "gap": 1 / number, **changes}
    return StepEvent(
        step=number, loss=3.0 - number / 100, tokens=9, eta_ceiling=2.0, eta_sps=1.0, eta_weyl=0.1, eta_step=0.1,
        binding="weyl", **given,
    )  # fmt: skip


def events(steps=20):
    yield EvalEvent(step=0, loss=3.0, retention_loss=3.5)
    yield from (step(number) for number in range(1, steps + 1))
    yield EvalEvent(step=steps, loss=2.5, retention_loss=3.5, best=True, conditions=CONDITIONS)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "sums.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"{i} apples make {i % 17} pieces of fruit."}) + "\n" for i in range(160))
    )
    return build_plan("embedded", path, max_steps=50, calibrate=False)


@pytest.fixture
def run(plan, tmp_path):
    return RunFolder.create(tmp_path / "run", plan)


@pytest.fixture
def process():
    """The id of a process that lives: this one."""
    return os.getpid()


def status(run, state, process, *, step=0, **more):
    now = time.time()
    given = {"horizon": 50, "started": now, "updated": now, "seconds_per_step": 0.5, **more}
    run.write_status(Status(state=state, step=step, process=process, **given))


def eventually(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def sent(view):
    json.dumps(view.state(), allow_nan=False)
    return view.state(), *unpack(view.data())


def test_a_list_of_events_is_a_recorded_trace_and_may_be_empty():
    assert MassTrace([]).static().startswith("<img ") and sent(MassTrace([]))[0]["step"] == 0
    state, data, meta = sent(view := MassTrace(list(events())))
    assert repr(view) == "MassTrace('events', 20 steps)"
    assert (state["phase"], state["step"], state["horizon"], state["can_stop"]) == ("events", 20, 20, False)
    assert data["step"].tolist() == list(range(1, 21))
    np.testing.assert_array_equal(data["loss"], np.float32([3.0 - n / 100 for n in range(1, 21)]))
    assert data["strip_step"].tolist() == [5, 10, 15, 20] and data["strip"].tolist() == [51] * 4
    assert meta == {"total": 20, "columns": 4, "thinned": False} and state["layers"] == ["<w>"]
    assert [event["step"] for event in state["evaluations"]] == [0, 20]


def test_the_folder_of_a_run_gives_what_its_events_give(run):
    for event in events():
        run.append(event)
    view = MassTrace(run.path)
    assert view.title == "run" and list(view.events()) == list(events())
    assert view.data() == MassTrace(list(events())).data() == MassTrace(str(run.path)).data() == MassTrace(run).data()


@pytest.mark.parametrize("source", [7, None, "no such folder"])
def test_what_is_neither_a_run_nor_events_is_an_input_error(source):
    with pytest.raises(InputError):
        MassTrace(source)


def test_a_plan_without_a_step_is_planned_and_a_finished_run_is_done(run, process):
    assert MassTrace(run).state()["phase"] == "planned" and MassTrace(run).state()["horizon"] == 50
    run.append(StopEvent(step=0, reason="horizon", horizon=50, because="b", best_step=0, best_loss=1.0))
    status(run, "done", process, step=50)
    view = MassTrace(run)
    assert view.state()["phase"] == "done" and view.is_finished and not view.state()["can_stop"]


@pytest.mark.parametrize("state", ["training", "verifying"])
def test_a_run_whose_process_is_gone_is_dead_and_says_how_to_go_on(run, state):
    child = subprocess.Popen(["true"])
    child.wait()
    status(run, state, child.pid)
    view = MassTrace(run)
    assert view.state()["phase"] == "dead" and f"--resume -o {run.path}" in view.state()["message"] and view.is_finished


def test_a_run_in_training_says_how_long_it_takes_and_a_stop_is_asked_for_by_a_file(run, process):
    run.append(step(10))
    status(run, "training", process, step=10)
    view = MassTrace(run)
    host = view.widget()
    assert (host.state["phase"], host.state["can_stop"], host.state["stopping"]) == ("training", True, False)
    assert host.state["horizon"] == 50 and host.state["left"] == pytest.approx(40 * 0.5)
    host.event = {"kind": "stop"}
    assert (run.path / "stop").exists() and host.state["stopping"] is True and host.state["error"] == ""
    view.close()


def test_a_deleted_folder_is_gone_and_what_was_read_stays(run, process):
    run.append(step(1))
    status(run, "training", process)
    view = MassTrace(run)
    shutil.rmtree(run.path)
    assert view.poll() is True and view.poll() is False
    assert view.state()["phase"] == "gone" and view.is_finished and len(view.columns) == 1
    host = view.widget()
    host.event = {"kind": "stop"}
    assert "folder is gone" in host.state["error"] and not run.path.exists()
    view.close()


def test_hosts_follow_a_trace_that_another_thread_writes(run, process):
    status(run, "training", process)
    view = MassTrace(run)
    hosts = [view.widget(), view.panel()]

    def train():
        for event in events(50):
            run.append(event)
            time.sleep(0.005)
        status(run, "done", process, step=50)

    writer = threading.Thread(target=train)
    writer.start()
    seen = set()
    assert eventually(lambda: seen.add(hosts[0].state["step"]) or hosts[0].state["phase"] == "done")
    writer.join()
    for host in hosts:
        assert host.state["step"] == 50 and unpack(host.data)[0]["step"].tolist() == list(range(1, 51))
    assert len(seen) > 2, "the page saw the run on its way"
    view.close()
    assert eventually(lambda: not view._thread.is_alive()), "a closed view reads on"


def test_a_note_of_the_run_stands_in_the_message():
    view = MassTrace([step(1), NoteEvent(step=2, because="memory ran out"), step(2)])
    assert view.state()["message"] == "step 2: memory ran out"
    view.close()


def test_a_run_that_has_ended_is_looked_at_now_and_then_until_it_is_deleted_or_goes_on(run, process):
    for event in events(10):
        run.append(event)
    status(run, "stopped", process, step=10)
    view = MassTrace(run)
    host = view.widget()
    assert host.state["phase"] == "stopped"
    status(run, "training", process, step=11)
    run.append(step(11))
    assert eventually(lambda: host.state["phase"] == "training" and host.state["step"] == 11)
    status(run, "done", process, step=11)
    assert eventually(lambda: host.state["phase"] == "done")
    shutil.rmtree(run.path)
    assert eventually(lambda: host.state["phase"] == "gone") and "is not there any more" in host.state["message"]
    view.close()


def test_a_view_that_is_shown_again_during_a_look_at_the_file_has_one_reader(run, process):
    status(run, "training", process)
    view = MassTrace(run, title="counted")
    view.widget()
    with view._lock:  # as in a look that takes long: the reader waits inside poll()
        time.sleep(0.4)
        view.close()
        view.widget()
    time.sleep(0.4)
    readers = [thread for thread in threading.enumerate() if thread.name == "geonb-trace-counted"]
    view.close()
    assert eventually(lambda: not any(thread.is_alive() for thread in readers)), "a closed view reads on"
    assert len(readers) == 1


def test_a_window_shows_its_steps_in_full_and_is_taken_back():
    view = MassTrace([step(number) for number in range(1, 5001)])
    host = view.widget()
    assert unpack(host.data)[1]["thinned"]
    host.event = {"kind": "window", "low": 100, "high": 300.5}
    data, meta = unpack(host.data)
    assert (
        data["step"].tolist() == list(range(100, 301)) and not meta["thinned"] and host.state["window"] == [100, 300.5]
    )
    assert data["strip_step"].tolist() == list(range(100, 301, 5))
    host.event = {"kind": "window", "low": None, "high": None}
    assert host.state["window"] is None and unpack(host.data)[1]["thinned"]
    view.close()


def test_a_hundred_thousand_steps_of_two_hundred_layers_are_a_small_message():
    view = MassTrace([])
    one, layer = step(1).to_dict(), {"eta_step": 0.1, "binding": "weyl", "norm": 0.1, "over_sigma_k": 0.3}
    names = [f"model.layers.{n // 7}.self_attn.proj_{n % 7}.weight" for n in range(200)]
    evaluation = EvalEvent(step=0, loss=2.5, delta=-0.5, delta_interval=(-0.6, -0.4), conditions=CONDITIONS).to_dict()
    for number in range(1, 100_001):
        layers = [{"name": name, "budget_used": number / 1e5, **layer} for name in names] if number % 250 == 0 else ()
        view.columns.add({**one, "step": number, "layers": layers})
        if number % 200 == 0:
            view.columns.add({**evaluation, "step": number})
    assert len(view.data()) < 200_000 and len(unpack(view.data())[0]["strip"]) <= 200 * 200
    assert len(json.dumps(view.state())) < 200_000


def test_hostile_text_and_numbers_that_are_not_finite_pass_every_form_and_the_still_one_is_one_image():
    hostile = "</script><img src=x onerror=alert(1)>&'\""
    condition = Condition(name=hostile, status="odd", value=math.inf, threshold=math.nan, because=hostile)
    strange = [step(1, gap=math.inf, gradient_norm=math.nan), EvalEvent(step=1, loss=math.inf, conditions=(condition,))]
    sent(view := MassTrace(strange, title=hostile))
    text = view.static()
    assert text.startswith("<img ") and text.count("<") == text.count(">") == 1, "one image, no script"
    assert text.replace("http://www.w3.org/2000/svg", "").count("http") == 0
    assert "<img" not in view.figure().layout.title.text


def test_the_figure_draws_bounds_and_gap_on_logarithmic_axes():
    figure = MassTrace(list(events())).figure()
    found = {trace.name: trace for trace in figure.data if trace.name}
    assert set(found) == {
        "ceiling", "sps", "weyl", "step taken", "training batch", "duality gap", "validation", "held-out base text",
    }  # fmt: skip
    assert {figure.layout.yaxis.type, figure.layout.yaxis3.type} == {"log"} and figure.layout.yaxis2.type != "log"
    assert list(found["validation"].y) == [3.0, 2.5] and list(found["validation"].x) == [0, 20]
    np.testing.assert_allclose(found["duality gap"].y, [1 / n for n in range(1, 21)], rtol=1e-6)
    heat = next(trace for trace in figure.data if trace.type == "heatmap")
    assert np.asarray(heat.z) == pytest.approx(np.full((1, 4), 0.2), abs=1 / 255)


def test_lines_that_are_json_but_not_whole_events_leave_every_picture_standing(run):
    run.append(step(1))
    with run.trace_path.open("a") as stream:
        stream.write('{"kind":"eval"}\n{"kind":"eval","step":1,"loss":1.5}\n')
    view = MassTrace(run)
    sent(view)
    assert view.figure().data and view.static().startswith("<img ")
