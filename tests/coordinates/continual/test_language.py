"""Operations as texts: what is learned of them is the answer, and exact means what greedy decoding would give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geonb.coordinates.continual.inference import accuracy_by_guess
from geonb.coordinates.continual.language import END, SIZES, CharacterModel, OperationTask, encode, theta_of
from geonb.coordinates.continual.learner import core_weights, cores, task_phases
from geonb.coordinates.continual.operations import by_name, draw, sequence
from geonb.coordinates.continual.pretraining import pretrain
from geonb.coordinates.continual.routing import ROUTERS, RoutingReport, nearest_centroid, routing_report
from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.phases import orthogonal_phases
from geonb.errors import InputError


@pytest.fixture(scope="module")
def model():
    return pretrain(sequence(12, 3), steps=6, seed=0, batch=8)


def decoded(reader, prompt, weights):
    """Greedy decoding, one character at a time."""
    tokens = [ord(letter) for letter in prompt]
    for _ in range(9):
        tokens.append(int(reader(torch.tensor([tokens]), weights)[0, -1].argmax()))
        if tokens[-1] == END:
            break
    return "".join(map(chr, tokens[len(prompt) :]))


def test_targets_are_the_answer_and_its_end():
    prompts = [draw(name, np.random.default_rng(0)) for name in ("sum", "parity")]
    batch = encode(prompts)
    for row, one in enumerate(prompts):
        wanted = batch.tokens[row, 1:][batch.answers[row]]
        assert "".join(map(chr, wanted.tolist())) == f" {one.answer}\n"


def test_exact_grades_agree_with_greedy_decoding():
    torch.manual_seed(0)
    reader = CharacterModel(CoordinateModel(SIZES, seed=0))
    prompts = [draw("majority", np.random.default_rng(seed)) for seed in range(12)]
    batch = encode(prompts)
    optimiser = torch.optim.Adam(reader.base_parameters(), lr=0.01)
    for _ in range(25):
        optimiser.zero_grad()
        reader.loss(batch, None).backward()
        optimiser.step()
    grades = reader.grades(batch, None)
    exact = [decoded(reader, one.prompt, None) == f" {one.answer}\n" for one in prompts]
    assert grades[:, 0].tolist() == [float(one) for one in exact] and any(exact)
    assert bool((grades[:, 1] >= grades[:, 0]).all())


def test_reading_under_weights_is_the_models_own_forward_under_the_same_phases():
    model = CoordinateModel(SIZES, seed=1)
    tokens = torch.tensor([[65, 66, 67, 68]])
    with torch.no_grad():
        for one in CharacterModel(model).maps:
            one.factors.cores.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
        phases = task_phases("random", SIZES.pairs, 1, 0)
        own = model(tokens, phases=[torch.from_numpy(phases).float()[None]] * 2, mode="sequence").logits
        assert torch.allclose(CharacterModel(model)(tokens, core_weights(phases)[0]), own, atol=1e-5)
        assert not torch.allclose(CharacterModel(model)(tokens, None), own, atol=1e-3)


def test_pre_training_leaves_cores_at_zero_and_nothing_that_wants_a_gradient(model):
    reader = CharacterModel(model)
    assert all(not one.any() for one in cores(reader.maps)) and not any(p.requires_grad for p in model.parameters())
    tokens = torch.tensor([[65, 66]])
    weights = core_weights(orthogonal_phases(SIZES.pairs, 1))[0]
    assert torch.equal(reader(tokens, weights), reader(tokens, None))


def test_theta_of_a_batch_is_what_the_model_predicts_one_by_one(model):
    prompts = [draw(name, np.random.default_rng(0)) for name in ("sum", "parity", "reverse complement")]
    alone = [
        model.predict(model.embedding(torch.tensor([[ord(letter) for letter in one.prompt]])), "sequence")[0, 0]
        for one in prompts
    ]
    assert torch.allclose(theta_of(model, prompts), torch.stack(alone), atol=1e-4)


def test_tests_are_held_out_and_training_is_not():
    task = OperationTask(by_name("remainder"), form="named", batch=8, tests=10, seed=0)
    assert all(one.held_out for one in task.questions) and task.batch(np.random.default_rng(0)).tokens.shape[0] == 8
    assert 0.1 <= task.chance() <= 1


def test_with_the_id_guessed_from_named_questions_the_accuracy_is_that_of_the_right_id(model):
    reader = CharacterModel(model)
    tasks = [
        OperationTask(by_name(name), form="named", batch=4, tests=6, seed=0) for name in ("majority", "palindrome")
    ]
    known = [float(reader.grades(task.test, None)[:, 0].mean()) for task in tasks]
    assert accuracy_by_guess(reader, tasks, lambda task: None, by="bag of words", seed=0) == known


def test_routing_reports_the_coordinates_and_every_control(model):
    found = routing_report(model, sequence(4, 0), training=6, prompts=5, forms=("named", "paraphrased"))
    assert RoutingReport.from_json(found.to_json()) == found
    assert [one.router for one in found.routed] == [*ROUTERS, *ROUTERS]
    named = found.of("named", "bag of words")
    assert named.errors == 0 and named.accuracy.n == 20 and named.accuracy.null == 0.25
    for one in found.routed:
        assert one.accuracy.value == pytest.approx(1 - one.errors / 20)
        assert one.accuracy.interval[0] <= one.accuracy.value <= one.accuracy.interval[1]
        if one.router == "bag of words":
            assert one.ahead is None
        else:
            assert one.ahead.value == pytest.approx(
                one.accuracy.value - found.of(one.form, "bag of words").accuracy.value
            )
    assert "<table" in found.to_html() and "paraphrased" in found.to_text()


def test_the_nearest_centroid_is_the_one_of_largest_cosine():
    rng = np.random.default_rng(0)
    training, labels, questions = rng.normal(size=(30, 4)), np.repeat(np.arange(3), 10), rng.normal(size=(7, 4))
    expected = []
    for one in questions:
        cosines = []
        for label in range(3):
            centre = training[10 * label : 10 * label + 10].mean(axis=0)
            cosines.append(one @ centre / np.linalg.norm(one) / np.linalg.norm(centre))
        expected.append(int(np.argmax(cosines)))
    assert nearest_centroid(training, labels, questions).tolist() == expected


def test_routing_needs_two_operations_and_a_report_names_what_it_has(model):
    with pytest.raises(InputError, match="1 operations with 20 and 20 prompts were given; routing needs two"):
        routing_report(model, sequence(2, 0)[:1])
    found = routing_report(model, sequence(2, 0), training=2, prompts=2, forms=("named",))
    with pytest.raises(InputError, match="nothing was routed by 'kernel' on 'anonymous' prompts"):
        found.of("anonymous")
