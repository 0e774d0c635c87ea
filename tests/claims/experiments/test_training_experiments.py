"""REINFORCE against brute force, velocities against the library's loop, penalties and mixtures against plain definitions."""

from __future__ import annotations

import itertools
import types

import numpy as np
import pytest
import torch

from geonb.claims.experiments.kind_questions import WORDINGS, kind_questions
from geonb.claims.experiments.mask_and_replay import degenerate_share, mixed, unmasked
from geonb.claims.experiments.penalties import (
    PENALTIES,
    base_divergence,
    orthonormal_rows,
    penalised_run,
    weight_change,
)
from geonb.claims.experiments.reinforce import (
    Sampled,
    angles,
    flat_gradient,
    follow,
    reinforce_loss,
    right_probability,
    sample_answers,
)
from geonb.claims.experiments.short_training import Workshop, gradient_steps
from geonb.claims.experiments.token_velocity import cohens_d, effect, greedy_loop, size_of
from geonb.errors import InputError
from geonb.geometry import Measurement


@pytest.fixture(scope="module")
def workshop():
    return Workshop.open("embedded", rank=2)


@pytest.fixture(scope="module")
def questions(workshop):
    return kind_questions(workshop.runtime.tokenizer, 16, seed=0)


def test_no_question_is_on_both_sides_and_the_kinds_are_equally_many(questions):
    training, held_out = questions
    assert not {one.prompt_ids for one in training} & {one.prompt_ids for one in held_out}
    for side in questions:
        assert sorted(one.group for one in side) == sorted(list(WORDINGS) * 4)
    with pytest.raises(InputError, match="allowed are 8 to 4000"):
        kind_questions(None, 7, seed=0)


def test_the_gradient_of_reinforce_in_expectation_is_that_of_the_right_answers_probability():
    # a bandit of five answers, small enough to sum over: E[r d log p] = d p(y*)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, generator=generator, dtype=torch.float64, requires_grad=True)
    chances = logits.softmax(0)
    summed = sum(
        chances[y].detach() * (y == 2) * torch.autograd.grad(chances.log()[y], logits, retain_graph=True)[0]
        for y in range(5)
    )
    assert torch.allclose(summed, torch.autograd.grad(chances[2], logits)[0])


def test_the_sampled_loss_is_minus_the_advantage_weighted_log_probability_of_each_answer(workshop, questions):
    examples = questions[0][:3]
    truth = [[t for t, counts in zip(one.input_ids, one.loss_mask, strict=True) if counts] for one in examples]
    longest = max(map(len, truth))
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row in truth])
    counted = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in truth])
    advantage = torch.tensor([1.0, -0.5, 2.0])
    with torch.no_grad():
        loss = reinforce_loss(workshop, examples, Sampled(tokens, counted, torch.ones(3)), advantage)
        one_by_one = []
        for one in examples:
            logits = workshop.runtime.logits(one.input_ids).log_softmax(-1)
            one_by_one.append(sum(logits[i - 1, t] for i, t in enumerate(one.input_ids) if one.loss_mask[i]))
    assert float(loss) == pytest.approx(-float((advantage * torch.stack(one_by_one)).mean()), rel=1e-4)
    with torch.no_grad():
        assert torch.allclose(right_probability(workshop, examples), torch.stack(one_by_one), rtol=1e-4)


def test_only_an_answer_that_agrees_to_its_end_has_the_reward(workshop, questions):
    sampled = sample_answers(workshop, questions[0][:6], generator=torch.Generator().manual_seed(1))
    end = workshop.runtime.tokenizer.eos_token_id
    for row, keep in zip(sampled.tokens, sampled.counted, strict=True):
        kept = row[keep].tolist()
        assert end not in kept[:-1]
        assert kept == row[: len(kept)].tolist()
    assert set(sampled.reward.tolist()) <= {0.0, 1.0}


def test_angles_of_one_gradient_with_itself_are_none(workshop, questions):
    # on one kind of question with p alike, p grad log p and grad log p point the same way
    same = [questions[0][0]] * 8
    with workshop.adapted("adamw", seed=0) as matrices:
        found = angles(
            workshop, matrices, same, steps=1, questions=2, answers=2, exact=4, seed=0,
            update=gradient_steps(matrices, 0.1),
        )  # fmt: skip
        assert found.cosine == pytest.approx(1, abs=1e-4)
        assert found.raw["ce-ce"][0] == pytest.approx(1, abs=1e-4)
        assert found.size == sum(leaf.numel() for m in matrices for leaf in m.factors.trained().values())


def test_steps_on_the_right_answers_raise_their_probability(workshop, questions):
    examples = questions[0][:8]
    with workshop.adapted("adamw", seed=0) as matrices:
        before = float(right_probability(workshop, examples).detach().mean())
        update = gradient_steps(matrices, 0.5)
        follow(workshop, matrices, examples, "cross-entropy", steps=2, questions=8, answers=1, seed=0, update=update)
        assert float(right_probability(workshop, examples).detach().mean()) > before
        assert (
            len(flat_gradient(workshop.batch_loss(examples, [0]), matrices))
            == 2 * sum(m.factors.trained()["A"].numel() + m.factors.trained()["B"].numel() for m in matrices) // 2
        )


def test_the_correct_loop_is_the_librarys_and_the_faulty_one_never_leaves_the_width(workshop, questions):
    asked = questions[1][:5]
    library = workshop.runtime.generate([one.prompt_ids for one in asked], max_new_tokens=4)
    correct = greedy_loop(workshop, asked, faulty=False, longest=4)
    assert [list(row) for row in correct.tokens] == library
    faulty = greedy_loop(workshop, asked, faulty=True, longest=4)
    assert max(itertools.chain(*faulty.tokens)) < workshop.model.config.hidden_size
    assert not np.allclose(faulty.velocity, correct.velocity)


def test_velocity_is_the_mean_distance_of_successive_states(workshop, questions):
    one = questions[1][0]
    loop = greedy_loop(workshop, [one], faulty=False, longest=3)
    with torch.no_grad():
        ids = torch.tensor([[*one.prompt_ids, *loop.tokens[0]]])
        states = workshop.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
    path = states[len(one.prompt_ids) - 1 : -1]
    expected = (path[1:] - path[:-1]).norm(dim=1).mean()
    assert loop.velocity[0] == pytest.approx(float(expected), rel=1e-3)


def test_an_effect_of_two_shifted_normals_is_their_shift_and_its_size_has_no_sign():
    rng = np.random.default_rng(0)
    wrong = np.arange(2000) < 1000
    found = effect(rng.standard_normal(2000) - 1.0 * wrong, wrong, what="shift", resamples=200)
    assert found.value == pytest.approx(-1.0, abs=0.15)
    assert found.null is not None and found.null < 0.15
    assert size_of(found).value == -found.value
    assert cohens_d(np.ones(3), np.ones(3)) == 0
    across = Measurement(value=0.1, interval=(-0.2, 0.5), n=9, null=None, unit="d", operator="")
    assert size_of(across).interval == (0.0, 0.5)
    with pytest.raises(InputError, match="allowed are 2 or more"):
        effect(np.ones(4), np.array([True, False, False, False]), what="one wrong answer")


def test_penalties_are_their_definitions(workshop):
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(6, 3, generator=generator), torch.randn(3, 5, generator=generator)
    matrix = types.SimpleNamespace(factors=lambda: (left, right))
    assert float(weight_change([matrix, matrix])) == pytest.approx(2 * float((left @ right).square().sum()), rel=1e-5)
    frame = torch.linalg.qr(right.mT)[0].mT * 7
    assert float(orthonormal_rows([types.SimpleNamespace(factors=lambda: (left, frame))])) == pytest.approx(0, abs=1e-9)
    with workshop.adapted("adamw", seed=0):
        assert abs(float(base_divergence(workshop, workshop.retention, [0, 1]).detach())) < 1e-6


def test_a_heavy_penalty_on_the_change_leaves_the_model_where_it_was(workshop):
    training, held_out = workshop.examples("arithmetic", 0)
    setting = {"steps": 4, "batch": 2, "seed": 0, "held_out": 4, "units": (1e-6, 1.0, 1.0)}
    free = penalised_run(workshop, training, held_out, count=0, weight=0.0, **setting)
    held = penalised_run(workshop, training, held_out, count=1, weight=1e3, **setting)
    assert held.values[0] < free.values[0]
    assert free.validation < held.validation
    with pytest.raises(InputError, match="allowed are 0 to 3, units above 0"):
        penalised_run(workshop, training, held_out, count=len(PENALTIES) + 1, weight=1.0, **setting)


def test_a_mixture_keeps_the_task_where_it_was_and_every_fifth_is_base_text(workshop):
    task, _ = workshop.examples("arithmetic", 0)
    pure = mixed(task, workshop.retention, every=0, count=20, seed=3)
    half = mixed(task, workshop.retention, every=5, count=20, seed=3)
    same = [first is second for first, second in zip(pure, half, strict=True)]
    assert same == [place % 5 != 0 for place in range(20)]
    assert all(one in workshop.retention for one, kept in zip(half, same, strict=True) if not kept)
    whole = unmasked(task[:3])
    assert all(sum(one.loss_mask) == len(one.input_ids) - 1 for one in whole)
    with pytest.raises(InputError, match="allowed are at least one on each side"):
        mixed(task, [], every=5, count=3, seed=0)


def test_a_share_of_loops_counts_answers_that_repeat(workshop, questions, monkeypatch):
    answers = [[5] * 20, list(range(20))]
    monkeypatch.setattr(type(workshop.runtime), "generate", lambda self, prompts, max_new_tokens: answers)
    assert degenerate_share(workshop, questions[0][:2]) == 0.5
