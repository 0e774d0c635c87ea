"""What u knows: its figures against scipy's, planted signals found, and what position alone does taken out."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from geonb.claims.experiments import coordinate_uncertainty as module
from geonb.coordinates import grammar
from geonb.coordinates.configuration import preset
from geonb.coordinates.curriculum import sample_texts
from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.recipe import Recipe
from geonb.coordinates.run import load_model
from geonb.coordinates.tokenizer import train_tokenizer
from geonb.coordinates.training import train
from geonb.coordinates.uncertainty import innovations
from geonb.errors import InputError
from tests.coordinates.small import small_coordinate_run


def table(texts=40, tokens=30, signal=0.0, by_position=0.0, seed=0):
    """Losses that follow u by `signal` at every place, and the place by `by_position`, as u does."""
    rng = np.random.default_rng(seed)
    text, position = np.repeat(np.arange(texts), tokens), np.tile(np.arange(1, tokens + 1), texts)
    own, noise = rng.normal(size=(2, texts * tokens))
    u = own + by_position * position
    loss = signal * own + noise + by_position * position
    return module.TokenTable(
        model=np.zeros(len(text), int), text=text, position=position, uncertainty=u, published=0.9**position + 0 * u,
        entropy=loss + rng.normal(size=len(text)), doubt=u, loss=loss,
    )  # fmt: skip


def test_without_regard_to_position_it_is_spearmans_correlation():
    made = table(signal=0.5)
    found = module.knows(made, "uncertainty", within_position=False)
    assert found.value == pytest.approx(spearmanr(made.uncertainty, made.loss).statistic, abs=1e-9)
    assert found.interval[0] < found.value < found.interval[1] and found.n == 40


def test_what_the_position_alone_does_is_taken_out():
    made = table(by_position=0.5)
    assert module.knows(made, "uncertainty", within_position=False).value > 0.8
    found = module.knows(made, "uncertainty")
    assert found.interval[0] < 0 < found.interval[1] and abs(found.value) < 2 * found.null


def test_a_planted_signal_is_found_beyond_the_permuted_losses():
    found = module.knows(table(signal=1.0, by_position=0.5), "uncertainty")
    assert found.interval[0] > 0.5 > found.null


def test_the_better_switch_is_found_on_the_same_draws():
    found = module.advantage(table(signal=0.2), "uncertainty", "entropy")
    assert found.interval[1] < 0
    same = module.advantage(table(signal=0.2), "uncertainty", "doubt")
    assert same.value == 0 and same.interval == (0.0, 0.0)


def test_ranks_are_those_within_a_group_and_small_groups_have_none():
    values = np.array([5.0, 1, 3, 2, 4, 8, 7, 6, 9, 9])
    groups = np.array([0] * 8 + [1] * 2)
    found = module.ranks_within(values, [groups])
    assert found[:8] * 8 + 4.5 == pytest.approx([5, 1, 3, 2, 4, 8, 7, 6]) and np.isnan(found[8:]).all()


def test_a_clock_has_all_of_its_variance_from_the_position():
    made = table()
    assert module.position_share(made, "published").value == pytest.approx(1.0)
    assert module.position_share(made, "uncertainty").value < 0.1
    with pytest.raises(InputError, match="needed are 8"):
        module.position_share(made, "published", positions=31)


def test_the_published_form_of_a_constant_theta_is_a_clock_that_crosses_a_half_at_the_seventh_token():
    theta = torch.tensor([1.0, -1.0]).repeat(1, 10, 4)
    found = module.published_uncertainty(theta)[0]
    assert found.numpy() == pytest.approx(0.95 ** (2 * np.arange(1, 11)), rel=1e-5)
    assert int((found > 0.5).sum()) == 6


def test_a_row_of_the_table_is_what_the_model_said_before_it_saw_the_next_token():
    tokenizer = train_tokenizer(sample_texts(0, 60), 512)
    model = CoordinateModel(preset("tiny"), seed=3)
    text = module.held_out_texts(2)[0]
    found = module.token_table([(model, tokenizer)], [text])
    ids = [tokenizer.token_to_id("<|end|>"), *tokenizer.encode(text).ids]
    with torch.no_grad():
        reading = model(torch.tensor([ids[:6]]))  # the first six tokens alone
    likely = reading.logits[0, 5].double().softmax(-1).numpy()
    row = 4
    assert found.position[row] == 5 and len(found.loss) == len(ids) - 2
    assert found.loss[row] == pytest.approx(-np.log(likely[ids[6]]), rel=1e-4)
    assert found.entropy[row] == pytest.approx(-(likely * np.log(likely)).sum(), rel=1e-4)
    assert found.doubt[row] == pytest.approx(1 - likely.max(), rel=1e-4)
    assert found.uncertainty[row] == pytest.approx(float(innovations(reading.theta)[0, 5]), rel=1e-3)


def test_texts_are_held_out_sentences_and_dialogues_the_same_every_time():
    texts = module.held_out_texts(6)
    assert texts == module.held_out_texts(6) and texts[1].startswith("User: ") and not texts[0].startswith("User: ")
    rng = np.random.default_rng(0)
    assert grammar.is_held_out(grammar.draw_sentence(rng, held_out=True).content)


def test_an_unknown_switch_is_refused():
    with pytest.raises(InputError, match="allowed are uncertainty, entropy, doubt"):
        module.knows(table(), "temperature")


def test_an_empty_run_trains_the_small_model_of_the_rule_as_it_always_did(tmp_path):
    [(model, _, start, losses)] = module.trained([5], steps=6)
    list(train(Recipe(configuration=preset("tiny"), steps=6, seed=5, evaluate_every=3), tmp_path / "run"))
    assert same_weights(model, load_model(tmp_path / "run"))
    assert same_weights(start, CoordinateModel(preset("tiny"), seed=5)) and not same_weights(model, start)
    assert len(losses) == 3  # before the first step, at the half and at the end


def test_another_rate_is_that_of_the_base_alone(tmp_path):
    [(model, *_)] = module.trained([5], steps=6, rate=3e-3)
    recipe = Recipe(configuration=preset("tiny"), steps=6, seed=5, evaluate_every=3, base_rate=3e-3)
    list(train(recipe, tmp_path / "run"))
    assert same_weights(model, load_model(tmp_path / "run"))
    [(usual, *_)] = module.trained([5], steps=6)
    assert not same_weights(model, usual)


def test_a_run_is_read_and_nothing_is_trained_or_written(tmp_path):
    run = small_coordinate_run(tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    [(model, tokenizer, start, losses)] = module.trained(range(9), steps=1, rate=-1.0, run=str(run))
    assert same_weights(model, load_model(run)) and tokenizer.get_vocab_size() <= 512
    assert same_weights(start, CoordinateModel(preset("tiny"), seed=0)) and not same_weights(model, start)
    told = [json.loads(line) for line in (run / "trace.jsonl").read_text().splitlines()]
    assert losses == [one["loss"] for one in told if one["kind"] == "eval"]
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_rate_that_cannot_be_and_a_folder_without_a_run_are_refused(tmp_path):
    with pytest.raises(InputError, match="allowed are rates"):
        module.trained([0], steps=6, rate=0.0)
    with pytest.raises(InputError, match="holds no trace; give the folder"):
        module.trained([0], steps=6, run=tmp_path)


def same_weights(first, second):
    return all(
        torch.equal(one, other) for one, other in zip(first.parameters(), second.parameters(), strict=True)
    )  # fmt: skip
