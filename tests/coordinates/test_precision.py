"""Lower precision trains, keeps what must be exact in float32, and checkpointing changes memory and no gradient."""

import numpy as np
import pytest
import torch

from geonb.coordinates.configuration import preset
from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.precision import Precision
from geonb.coordinates.recipe import Recipe, read_recipe
from geonb.coordinates.run import MODEL, STATE, TRACE, load_model
from geonb.coordinates.training import train
from geonb.errors import InputError
from geonb.train.events import EvalEvent, NoteEvent, StepEvent, event_from_line

TEXT = torch.randint(0, 512, (3, 20), generator=torch.Generator().manual_seed(0))


def recipe(**changes):
    return Recipe(
        **{"configuration": preset("tiny"), "steps": 8, "rows": 6, "length": 48, "evaluate_every": 4, **changes}
    )


def told(folder):
    return [event_from_line(line) for line in (folder / TRACE).read_bytes().splitlines()]


def alive(size=0.3):
    model = CoordinateModel(preset("tiny"), seed=0)
    with torch.no_grad():
        for layer in model.uses:
            for linear in layer.changes.values():
                linear.factors.cores.normal_(std=size, generator=torch.Generator().manual_seed(1))
    return model


def gradients(model):
    model.zero_grad(set_to_none=True)
    loss = torch.nn.functional.cross_entropy(model(TEXT).logits[:, :-1].flatten(0, 1), TEXT[:, 1:].flatten())
    loss.backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("size", [1e-4, 0.3])
def test_with_checkpointing_every_gradient_is_the_same_to_the_bit(size):
    model = alive(size)
    plain = gradients(model)
    passes = []
    model.uses[0].attention_norm.register_forward_hook(lambda *_: passes.append(1))
    model.checkpointed = True
    again = gradients(model)
    assert len(passes) == 2, "the layer is computed twice"
    assert plain.keys() == again.keys() and all(torch.equal(plain[name], again[name]) for name in plain)


def test_a_checkpointed_run_ends_in_the_same_weights(tmp_path):
    list(train(recipe(), tmp_path / "plain"))
    list(train(recipe(checkpointing=True), tmp_path / "again"))
    assert (tmp_path / "plain" / MODEL).read_bytes() == (tmp_path / "again" / MODEL).read_bytes()


def test_in_bfloat16_products_are_rounded_and_coordinates_phases_and_budget_are_not():
    model = alive().eval()
    with torch.no_grad():
        exact = model(TEXT)
        with Precision(model, "bfloat16").cast():
            low = model(TEXT)
    assert low.logits.dtype == torch.bfloat16 and not torch.equal(low.logits.float(), exact.logits)
    assert (low.logits.float() - exact.logits).abs().max() < 0.05 * exact.logits.abs().max()
    assert torch.equal(low.theta, exact.theta)
    assert all(
        one.dtype == torch.float32 and torch.equal(one, other)
        for one, other in zip(low.phases, exact.phases, strict=True)
    )
    weights = torch.cat([low.phases[0].cos(), low.phases[0].sin()], dim=-1)
    for linear in model.uses[0].changes.values():
        with torch.no_grad(), Precision(model, "bfloat16").cast():
            core = linear.bounded_core(weights)
        change = (linear.factors.left @ core @ linear.factors.right.T).detach().numpy()
        assert core.dtype == torch.float32
        assert np.linalg.norm(change, 2, axis=(-2, -1)).max() <= linear.allowed() * (1 + 1e-6)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_run_in_lower_precision_learns_and_goes_on_after_a_kill_to_the_same_bytes(tmp_path, precision):
    made = recipe(precision=precision, base_rate=3e-3, steps=16)
    list(train(made, tmp_path / "whole"))
    losses = [one.loss for one in told(tmp_path / "whole") if isinstance(one, EvalEvent)]
    assert losses[-1] < losses[0] - 0.3
    events = train(made, tmp_path / "killed")
    for _ in range(12):
        next(events)
    events.close()
    list(train(made, tmp_path / "killed", resume=True))
    for name in (TRACE, MODEL, STATE):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    kept = load_model(tmp_path / "whole")
    assert all(one.dtype == torch.float32 for one in kept.parameters())


def test_float16_scales_its_loss_and_gives_back_unscaled_gradients():
    model = alive()
    precision = Precision(model, "float16")
    plain = gradients(model)
    model.zero_grad(set_to_none=True)
    loss = torch.nn.functional.cross_entropy(model(TEXT).logits[:, :-1].flatten(0, 1), TEXT[:, 1:].flatten())
    assert precision.backward(loss)
    for name, one in model.named_parameters():
        if one.grad is not None:
            torch.testing.assert_close(one.grad, plain[name], rtol=1e-4, atol=1e-8)


def test_a_step_whose_gradients_overflow_is_left_out_and_told(tmp_path, monkeypatch):
    whole = Precision.backward
    calls = []

    def overflowing(self, loss):
        calls.append(1)
        return whole(self, loss * (1e30 if len(calls) == 3 else 1))

    monkeypatch.setattr(Precision, "backward", overflowing)
    list(train(recipe(precision="float16"), tmp_path / "run"))
    events = told(tmp_path / "run")
    norms = [one.gradient_norm for one in events if isinstance(one, StepEvent)]
    assert [one is None for one in norms] == [False, False, True] + [False] * 5
    assert [one.step for one in events if isinstance(one, NoteEvent) and "overflowed" in one.because] == [3]
    assert all(torch.isfinite(one).all() for one in load_model(tmp_path / "run").parameters())


def test_a_file_says_the_run_too_and_what_it_says_is_checked(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "preset: tiny\ntraining:\n  steps: 30\n  base_rate: 3e-3\n  precision: bfloat16\n  checkpointing: true\n"
    )
    read = read_recipe(path, seed=4)
    assert (read.steps, read.base_rate, read.precision, read.checkpointing, read.seed) == (
        30,
        3e-3,
        "bfloat16",
        True,
        4,
    )
    assert read.configuration.width == preset("tiny").width
    assert read_recipe(path, recipe(rows=9)).rows == 9
    for line, words in (
        ("precisions: bfloat16", "has the field 'precisions' in training; allowed are steps"),
        ("precision: int8", "allowed are float32, bfloat16, float16"),
        ("checkpointing: often", "checkpointing"),
        ("steps: some", "steps"),
    ):
        path.write_text(f"preset: tiny\ntraining:\n  {line}\n")
        with pytest.raises(InputError, match=words):
            read_recipe(path)
    path.write_text("preset: tiny\ntraining: [1]\n")
    with pytest.raises(InputError, match="is no table"):
        read_recipe(path)


@pytest.mark.parametrize("change", [{"precision": "bfloat16"}, {"checkpointing": True}, {"steps": 9}])
def test_a_run_is_not_resumed_with_another_value(tmp_path, change):
    events = train(recipe(), tmp_path / "run")
    next(events)
    events.close()
    (name,) = change
    with pytest.raises(InputError, match=f"begun with another recipe: {name} .* was given"):
        train(recipe(**change), tmp_path / "run", resume=True)
