"""Batches and losses of the three phases: what they contain, and that neither collapse nor shuffled labels pay."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geonb.coordinates.curriculum import PHASES, draw_batch, phase_of, sample_texts
from geonb.coordinates.curriculum_losses import blend, contrast, kernel_matrix, phase_loss, temporal, variance_floor
from geonb.coordinates.tokenizer import END, train_tokenizer
from geonb.errors import InputError


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(sample_texts(0, 600), 512)


def test_the_tokenizer_is_the_same_every_time_and_writes_any_text(tokenizer):
    assert tokenizer.to_str() == train_tokenizer(sample_texts(0, 600), 512).to_str()
    for text in ("The baker closes.", "日本 \x00 ñ", "<b>"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    with pytest.raises(InputError, match="at least 258"):
        train_tokenizer(["a"], 100)


@pytest.mark.parametrize("phase", PHASES)
def test_a_batch_is_its_seeds_and_its_ends_are_the_ends_of_texts(tokenizer, phase):
    one, other = (draw_batch(phase, np.random.default_rng(4), tokenizer, rows=12, length=120) for _ in range(2))
    assert torch.equal(one.tokens, other.tokens) and len(one.labels) == len(one.ends) == len(one.partners)
    for row, place in one.ends.tolist():
        text = tokenizer.decode(one.tokens[row, : place + 1].tolist(), skip_special_tokens=True)
        assert text.rstrip().endswith((".", "know.")) and text
    assert one.tokens[0, 0] == tokenizer.token_to_id(END)


def test_what_is_cut_has_no_end_and_prose_is_a_fourth_of_the_rows(tokenizer):
    prose = list(range(400))
    batch = draw_batch("conversation", np.random.default_rng(0), tokenizer, rows=12, length=40, prose=prose)
    assert batch.tokens.shape == (12, 41) and (batch.ends[:, 1] < 40).all() and len(batch.ends) < 9 * 4
    windows = batch.tokens[9:]
    assert ((windows[:, 1:] - windows[:, :-1]) == 1).all() and batch.ends[:, 0].max() < 9


def test_phases_take_a_fifth_and_two_fifths_each():
    counts = [[phase_of(step, 50) for step in range(50)].count(one) for one in PHASES]
    assert counts == [10, 20, 20]


def phases_of(seed, count=12, width=24):
    return torch.tensor(np.random.default_rng(seed).uniform(0, 7, size=(count, width)), requires_grad=True)


LABELS = torch.tensor([0, 1] * 6)
PARTNERS = torch.tensor([1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10])


@settings(max_examples=30)
@given(st.integers(0, 1000))
def test_contrast_is_info_nce_written_out(seed):
    phases = phases_of(seed)
    k = np.array([[np.mean(np.cos(a - b)) for b in phases.detach().numpy()] for a in phases.detach().numpy()])
    terms = []
    for i in range(12):
        below = sum(np.exp(k[i, j] / 0.2) for j in range(12) if j != i)
        terms += [-np.log(np.exp(k[i, p] / 0.2) / below) for p in range(12) if p != i and LABELS[p] == LABELS[i]]
    assert float(contrast(phases, LABELS, PARTNERS).detach()) == pytest.approx(np.mean(terms), rel=1e-9)
    np.testing.assert_allclose(kernel_matrix(phases).detach().numpy(), k, atol=1e-12)


def descended(loss, phases, steps=200):
    optimiser = torch.optim.Adam([phases], lr=0.05)
    for _ in range(steps):
        optimiser.zero_grad()
        value = loss(phases)
        value.backward()
        optimiser.step()
    return float(value.detach())


def test_no_loss_is_least_where_everything_is_one_coordinate():
    one = torch.zeros(12, 24, dtype=torch.float64)
    for loss in (lambda p: contrast(p, LABELS, PARTNERS), lambda p: blend(p, torch.arange(4).repeat_interleave(3))):
        collapsed = float(loss(one))
        assert descended(loss, phases_of(0)) < 0.7 * collapsed
    # a collapsed theta has the highest floor term, and one that varies has none
    assert float(variance_floor(torch.zeros(12, 8))) == pytest.approx(0.5, rel=1e-3)
    assert float(variance_floor(torch.randn(500, 8) * 2)) == 0


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0.05, 0.45))
def test_the_floor_pushes_with_one_force_up_to_the_floor_and_none_above(seed, size):
    """A square would push ever less: any steady pull would settle below the floor."""
    drawn = np.random.default_rng(seed).normal(size=(12, 8))
    drawn = (drawn - drawn.mean(axis=0)) / drawn.std(axis=0)
    theta = torch.tensor(drawn * size, requires_grad=True)
    value = variance_floor(theta)
    assert float(value.detach()) == pytest.approx(0.5 - size, abs=1e-6)
    value.backward()
    assert theta.grad is not None and float(theta.grad.norm()) == pytest.approx(1 / np.sqrt(12 * 8), rel=1e-4)
    above = torch.tensor(drawn * 0.6, requires_grad=True)
    variance_floor(above).backward()
    assert above.grad is not None and float(above.grad.abs().max()) == 0


def test_a_weaker_pull_is_held_at_the_floor():
    """A pull to one point of every text, with half the largest force of the floor: the minimum of the sum is the floor."""
    theta = torch.tensor(np.random.default_rng(0).normal(size=(12, 8)), requires_grad=True)
    optimiser = torch.optim.Adam([theta], lr=3e-3)
    for _ in range(800):
        optimiser.zero_grad()
        pull = 0.5 * (theta - theta.mean(dim=0)).square().mean(dim=0).sqrt().mean()
        (variance_floor(theta) + pull).backward()
        optimiser.step()
    np.testing.assert_allclose(theta.detach().numpy().std(axis=0), 0.5, atol=0.02)


def test_shuffled_labels_give_no_gain():
    made = phases_of(1)
    descended(lambda p: contrast(p, LABELS, PARTNERS), made)
    made = made.detach()
    true = float(contrast(made, LABELS))
    rng = np.random.default_rng(0)
    drawn = [LABELS[torch.tensor(rng.permutation(12))] for _ in range(20)]
    # the same two groups under other names are no shuffle
    shuffled = [float(contrast(made, one)) for one in drawn if 1 <= int((one == LABELS).sum()) <= 11]
    assert len(shuffled) > 15 and true < min(shuffled)


def test_a_dialogue_is_pulled_together_and_two_dialogues_are_not():
    theta = torch.randn(6, 8, requires_grad=True)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    plain = theta.detach()
    expected = np.mean([float((plain[i] - plain[i - 1]).square().mean()) for i in (1, 2, 4, 5)])
    value = temporal(theta, labels)
    assert float(value.detach()) == pytest.approx(expected, rel=1e-6)
    value.backward()
    # the one before is held, so the first of a dialogue, and nothing across dialogues, feels a pull
    assert theta.grad[0].abs().max() == 0 and theta.grad[3].abs().max() == 0 and theta.grad[1].abs().max() > 0


@pytest.mark.parametrize("phase", PHASES)
def test_every_term_of_a_phase_has_a_gradient(tokenizer, phase):
    batch = draw_batch(phase, np.random.default_rng(2), tokenizer, rows=12, length=120)
    theta = (torch.randn(len(batch.ends), 8) * 0.1).requires_grad_(True)
    phases = torch.randn(len(batch.ends), 16, requires_grad=True)
    terms = phase_loss(phase, theta, phases, batch.labels, batch.partners)
    assert "floor" in terms and len(terms) >= 2
    sum(terms.values()).backward()
    assert theta.grad.abs().sum() > 0 and phases.grad.abs().sum() > 0
