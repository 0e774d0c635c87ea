"""Training falls, does not collapse, keeps its budget, and goes on after a kill to the same bytes."""

import numpy as np
import pytest
import torch

from geonb.coordinates.configuration import preset
from geonb.coordinates.curriculum import PHASES, draw_batch
from geonb.coordinates.recipe import Recipe
from geonb.coordinates.run import MODEL, STATE, TRACE, load_model, load_tokenizer
from geonb.coordinates.trained import trained_model
from geonb.coordinates.training import train
from geonb.errors import InputError
from geonb.train.events import EvalEvent, NoteEvent, StepEvent, StopEvent, event_from_line


def recipe(**changes):
    return Recipe(
        **{"configuration": preset("tiny"), "steps": 12, "rows": 6, "length": 64, "evaluate_every": 4, **changes}
    )


def told(folder):
    return [event_from_line(line) for line in (folder / TRACE).read_bytes().splitlines()]


@pytest.mark.parametrize("controller", ["adamw", "frank-wolfe"])
def test_a_run_that_was_killed_ends_in_the_same_bytes(tmp_path, controller):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert len(list(train(recipe(controller=controller), whole))) == len(told(whole))
    for stop_after in (3, 9):
        events = train(recipe(controller=controller), killed, resume=(killed / TRACE).exists())
        for _ in range(stop_after):
            next(events)
        events.close()
        assert not (killed / MODEL).exists()
    list(train(recipe(controller=controller), killed, resume=True))
    for name in (TRACE, MODEL, STATE, "tokenizer.json", "recipe.json", "configuration.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name


def test_the_trace_tells_phases_losses_and_the_end(tmp_path):
    list(train(recipe(), tmp_path / "run"))
    events = told(tmp_path / "run")
    begun = [one.because for one in events if isinstance(one, NoteEvent) and "begins" in one.because]
    assert [one.split(": ")[1] for one in begun] == ["differentiation", "composition", "conversation"]
    assert [one.step for one in events if isinstance(one, StepEvent)] == list(range(1, 13))
    assert [one.step for one in events if isinstance(one, EvalEvent)] == [0, 4, 8, 12]
    assert isinstance(events[-1], StopEvent) and events[-1].best_loss == min(
        one.loss for one in events[1:] if isinstance(one, EvalEvent)
    )


def measured_spread(folder, made):
    """How far coordinates vary over held-out texts, one text at a time, from the finished model."""
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    found = []
    for number, phase in enumerate(PHASES):
        rng = np.random.default_rng([made.seed, 2, number])
        batch = draw_batch(phase, rng, tokenizer, rows=24, length=made.length, held_out=True)
        with torch.no_grad():
            thetas = [
                model(batch.tokens[row : row + 1, : place + 1]).theta[0, -1] for row, place in batch.ends.tolist()
            ]
        found.append(float(np.std(np.stack([one.numpy() for one in thetas]), axis=0).mean()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("controller", ["adamw", "frank-wolfe"])
def test_the_tiny_model_learns_its_curriculum_and_its_coordinates_do_not_collapse(tmp_path, controller):
    made = recipe(steps=240, rows=12, length=96, evaluate_every=60, base_rate=3e-3, controller=controller)
    list(train(made, tmp_path / "run"))
    events = told(tmp_path / "run")
    losses = [one.loss for one in events if isinstance(one, EvalEvent)]
    assert losses[-1] < 0.6 * losses[0] and losses[-1] == min(losses)
    told_spreads = trained_model(tmp_path / "run").spreads
    assert [one.phase for one in told_spreads] == list(PHASES) and [one.step for one in told_spreads] == [48, 144, 240]
    for one in told_spreads:
        assert one.held and min(one.spreads) > 0.5, one
    # not only where phases end: at every look at held-out texts
    looks = [one.because for one in events if isinstance(one, NoteEvent) and one.because.startswith("held out")]
    for look in looks:
        assert min(map(float, look.split("varies by ")[1].split(" (")[0].split(", "))) > 0.5
    assert measured_spread(tmp_path / "run", made) == pytest.approx(told_spreads[-1].spreads, abs=6e-4)
    model = load_model(tmp_path / "run")
    theta = torch.randn(6, 64) * 8 / np.sqrt(64)
    for layer in model.uses:
        for linear in layer.changes.values():
            norms = torch.linalg.matrix_norm(linear.dense_change(layer.directions(theta)).double(), ord=2)
            allowed = 0.3 * torch.linalg.matrix_norm(linear.base.weight.double(), ord=2)
            assert (norms <= allowed * (1 + 1e-5)).all()
            if controller == "frank-wolfe":  # certified for every theta: nothing is scaled at run time
                assert linear.certified_bound() <= linear.allowed() * (1 + 1e-4)
            assert norms.max() > 0.01 * allowed


def test_a_finished_run_is_a_model_with_its_tokenizer(tmp_path):
    list(train(recipe(), tmp_path / "run"))
    model, tokenizer = load_model(tmp_path / "run"), load_tokenizer(tmp_path / "run")
    ids = torch.tensor([tokenizer.encode("The baker closes the door.").ids])
    with torch.no_grad():
        assert torch.isfinite(model(ids).logits).all()
    # an unfinished one is read from its checkpoint
    (tmp_path / "run" / MODEL).unlink()
    assert torch.equal(load_model(tmp_path / "run").embedding.weight, model.embedding.weight)


def test_prose_is_learned_from_beside_the_curriculum(tmp_path):
    text = tmp_path / "prose.txt"
    text.write_text("one two three four five six seven. " * 900)
    list(train(recipe(prose=str(text)), tmp_path / "run"))
    notes = [one for one in told(tmp_path / "run") if isinstance(one, EvalEvent)]
    assert notes[-1].loss < notes[0].loss


def test_nothing_is_written_where_a_run_cannot_be(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="is there and not empty"):
        train(recipe(), tmp_path / "full")
    assert [one.name for one in (tmp_path / "full").iterdir()] == ["note.txt"]
    list(train(recipe(), tmp_path / "run"))
    with pytest.raises(InputError, match="begun with another recipe"):
        train(recipe(seed=1), tmp_path / "run", resume=True)
    with pytest.raises(InputError, match="holds no coordinate model"):
        load_model(tmp_path / "full")


def test_a_damaged_checkpoint_is_found(tmp_path):
    list(train(recipe(), tmp_path / "run"))
    state = tmp_path / "run" / STATE
    data = bytearray(state.read_bytes())
    data[-100] ^= 1
    state.write_bytes(bytes(data))
    with pytest.raises(InputError, match="its digest is not that of its content"):
        list(train(recipe(), tmp_path / "run", resume=True))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"controller": "sgd"}, "allowed are adamw, frank-wolfe, none"),
        ({"precision": "int8"}, "allowed are float32, bfloat16, float16"),
        ({"steps": 1}, "allowed is 3 or more"),
        ({"length": 500}, "the context of the model is 256"),
        ({"warmup": 1.0}, "shares from 0 to 1"),
    ],
)
def test_a_recipe_that_cannot_be_is_told(changes, words):
    with pytest.raises(InputError, match=words):
        recipe(**changes)
