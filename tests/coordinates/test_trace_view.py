"""A coordinate run in the view of every other run: its phases marked, its budgets a strip, live while it goes on."""

import numpy as np
import pytest
import torch

from geonb.coordinates.configuration import preset
from geonb.coordinates.curriculum import PHASES
from geonb.coordinates.layer_states import layer_states
from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.recipe import Recipe
from geonb.coordinates.run import TRACE
from geonb.coordinates.training import train
from geonb.train.events import StepEvent, event_from_line
from geonb.widgets.mass_trace import MassTrace
from geonb.widgets.trace_picture import trace_picture


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trace") / "run"
    list(
        train(
            Recipe(configuration=preset("tiny"), steps=15, rows=6, length=48, evaluate_every=5, base_rate=3e-3), folder
        )
    )
    return folder


def told(folder):
    return [event_from_line(line) for line in (folder / TRACE).read_bytes().splitlines()]


def test_the_view_of_a_coordinate_run_marks_where_phases_begin(run):
    view = MassTrace(run)
    assert view.columns.phases == [(0, "differentiation"), (3, "composition"), (9, "conversation")]
    assert view.state()["phases"] == [[0, "differentiation"], [3, "composition"], [9, "conversation"]]
    assert view.state()["phase"] == "done" and view.state()["horizon"] == 15 and not view.state()["can_stop"]
    picture = trace_picture(told(run))
    assert all(f">{name}<" in picture for name in PHASES) and "budget used" in picture.lower()
    assert ">composition<" in view.static() or "image/svg" in view.static()


def test_a_run_that_goes_on_is_followed(tmp_path):
    events = train(Recipe(configuration=preset("tiny"), steps=9, rows=6, length=48, evaluate_every=3), tmp_path / "run")
    for _ in range(5):
        next(events)
    view = MassTrace(tmp_path / "run")
    before = view.state()
    assert before["phase"] == "training" and before["step"] < 9 and not view.is_finished
    list(events)
    assert view.read() and view.state()["step"] == 9 and view.is_finished
    assert [name for _, name in view.columns.phases] == list(PHASES)


def test_another_runs_notes_mark_nothing():
    from geonb.train.events import NoteEvent

    view = MassTrace([NoteEvent(step=2, because="a micro-batch was halved")])
    assert view.columns.phases == [] and view.state()["phases"] == []


def test_the_steps_before_an_evaluation_tell_how_much_of_each_budget_is_used(run):
    steps = [one for one in told(run) if isinstance(one, StepEvent)]
    assert [one.step for one in steps if one.layers] == [5, 10, 15]
    last = steps[-1].layers
    assert [one.name for one in last] == [f"{layer}.{name}" for layer in range(2) for name in ("q", "k", "v", "gate")]
    assert all(0 < one.budget_used <= 1 + 1e-5 for one in last)
    view = MassTrace(run)
    assert view.columns.layers == [one.name for one in last]
    np.testing.assert_allclose(view.columns.strip.values[-1] / 255, [one.budget_used for one in last], atol=0.003)


@torch.no_grad()
def test_a_layers_state_is_the_norm_of_its_whole_change():
    model = CoordinateModel(preset("tiny"), seed=0)
    for layer in model.uses:
        for place, linear in enumerate(layer.changes.values()):
            linear.factors.left.mul_(1.5)
            linear.factors.cores.normal_(std=0.2 * 8.0**-place, generator=torch.Generator().manual_seed(place))
    theta = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
    states = {one.name: one for one in layer_states(model, theta, 0.1, "ceiling")}
    for number, layer in enumerate(model.uses):
        for name, linear in layer.changes.items():
            dense = linear.dense_change(layer.directions(theta)).double().numpy()
            norm = np.linalg.norm(dense, 2, axis=(1, 2)).max()
            values = np.linalg.svd(linear.base.weight.double().numpy(), compute_uv=False)
            found = states[f"{number}.{name}"]
            assert found.norm == pytest.approx(norm, rel=1e-4)
            assert found.budget_used == pytest.approx(norm / (0.3 * values[0]), rel=1e-4)
            assert found.over_sigma_k == pytest.approx(norm / values[3], rel=1e-4)
    assert {one.budget_used > 0.99 for one in states.values()} == {True, False}
    assert layer_states(model, theta[:0], 0.1, "ceiling") == ()
