"""Items that share nothing, answers against the model's own logits, and an adjustment against data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from geonb.claims.experiments.expansion import adjusted, answers_of, arithmetic_items, expansion_ratio, next_token_items
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.runtime import TorchRuntime


@pytest.fixture(scope="module")
def runtime():
    return TorchRuntime.load(Checkpoint.open("embedded"), device="cpu")


def test_items_have_the_lengths_that_were_asked_for_and_later_draws_share_none(runtime):
    first = next_token_items(runtime.tokenizer, "documentation", count=30, draw=0)
    second = next_token_items(runtime.tokenizer, "documentation", count=30, draw=1, skip=30)
    assert all(16 <= len(one.prompt) <= 64 for one in (*first, *second))
    assert not {one.prompt for one in first} & {one.prompt for one in second}
    assert {one.draw for one in second} == {1}


def test_an_answer_is_right_where_the_models_own_logits_choose_it(runtime):
    items = next_token_items(runtime.tokenizer, "documentation", count=12, draw=0)
    found = answers_of(runtime, items)
    for item, right, confidence in zip(items, found.right, found.confidence, strict=True):
        shares = runtime.logits(item.prompt)[-1].softmax(-1)
        assert right == (int(shares.argmax()) == item.answer)
        assert confidence == pytest.approx(float(shares.max()), rel=1e-3)
    assert found.length.tolist() == [len(one.prompt) for one in items]


def test_the_ratio_is_that_of_the_largest_dimension_to_the_last():
    rng = np.random.default_rng(0)
    line, plane, cube = (np.pad(rng.random((600, d)), ((0, 0), (0, 5 - d))) for d in (1, 2, 3))
    assert expansion_ratio([plane, cube, line]) == pytest.approx(3, rel=0.25)
    assert expansion_ratio([line, plane, cube]) == 1.0


def test_the_questions_come_with_answers_in_words(runtime):
    items = arithmetic_items(runtime.tokenizer)
    assert len(items) == 256 and all(isinstance(one.answer, str) for one in items)
    assert answers_of(runtime, items[:3]).right.dtype == bool


def test_what_length_and_draw_explain_is_taken_out_and_nothing_else():
    rng = np.random.default_rng(0)
    length, draw, rest = rng.uniform(16, 64, 300), rng.integers(0, 3, 300), rng.standard_normal(300)
    left = adjusted(0.3 * length + 5.0 * draw + rest, length, draw)
    assert np.corrcoef(left, rest)[0, 1] > 0.98
    assert abs(np.corrcoef(left, length)[0, 1]) < 1e-9
    assert all(abs(left[draw == one].mean()) < 1e-9 for one in range(3))


def test_too_little_text_is_refused(runtime):
    with pytest.raises(InputError, match="ask for fewer"):
        next_token_items(runtime.tokenizer, "documentation", count=5000, draw=0)
