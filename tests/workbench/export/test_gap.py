"""The four numbers of a comparison, against scipy and against what they must be at the ends."""

import math

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from geonb.workbench.export.gap import GAP, KL_MAX, KL_MEAN, SAME_TOKEN, TYPICAL, measure_gap, read_reference

IDS = [[1, 2, 3], [4, 5]]
GENERATOR = np.random.default_rng(1)
ADAPTED = {tuple(ids): GENERATOR.standard_normal((len(ids), 7)).astype(np.float32) for ids in IDS}
BASE = {
    ids: logits + 0.5 * GENERATOR.standard_normal(logits.shape).astype(np.float32) for ids, logits in ADAPTED.items()
}
NOISY = {
    ids: logits + 0.1 * GENERATOR.standard_normal(logits.shape).astype(np.float32) for ids, logits in ADAPTED.items()
}


def given(table):
    return lambda ids: torch.from_numpy(table[tuple(ids)])


@pytest.fixture
def reference():
    return read_reference(IDS, "2 texts", given(ADAPTED), given(BASE))


def divergences(table):
    return [
        rel_entr(softmax(ADAPTED[tuple(i)].astype(float), 1), softmax(table[tuple(i)].astype(float), 1)).sum(1)
        for i in IDS
    ]


def test_the_numbers_are_those_of_scipy(reference):
    found = measure_gap(reference, given(NOISY), arithmetic="here")
    spread = np.concatenate([one.ravel() for one in ADAPTED.values()]).astype(float).std(ddof=1)
    gaps = np.concatenate([np.abs(NOISY[i].astype(float) - ADAPTED[i]).max(1) for i in ADAPTED])
    kl = divergences(NOISY)
    assert found[GAP].value == pytest.approx(gaps.max() / spread)
    assert found[TYPICAL].value == pytest.approx(np.quantile(gaps, 0.9) / spread)
    assert found[KL_MEAN].value == pytest.approx(np.mean([one.mean() for one in kl]))
    assert found[KL_MAX].value == pytest.approx(max(one.max() for one in kl))
    same = np.mean(np.concatenate([NOISY[i].argmax(1) == ADAPTED[i].argmax(1) for i in ADAPTED]))
    assert found[SAME_TOKEN].value == pytest.approx(same)
    assert found[GAP].n == 5 and found[KL_MEAN].n == 2 and "2 texts" in found[GAP].operator


def test_the_null_is_the_base_without_its_adapter(reference):
    found = measure_gap(reference, given(NOISY), arithmetic="here")
    assert found[KL_MEAN].null == pytest.approx(np.mean([one.mean() for one in divergences(BASE)]))
    forgotten = measure_gap(reference, given(BASE), arithmetic="here")
    assert all(one.value == one.null for one in forgotten.values())


def test_the_same_model_has_no_gap(reference):
    found = measure_gap(reference, given(ADAPTED), arithmetic="here")
    assert found[GAP].value == found[KL_MEAN].value == found[KL_MAX].value == 0 and found[SAME_TOKEN].value == 1


def test_a_padded_vocabulary_is_compared_where_the_base_has_tokens(reference):
    padded = {ids: np.pad(logits, ((0, 0), (0, 2)), constant_values=50.0) for ids, logits in ADAPTED.items()}
    assert measure_gap(reference, given(padded), arithmetic="here")[GAP].value == 0


def test_a_logit_that_is_not_a_number_shows(reference):
    broken = {ids: logits.copy() for ids, logits in ADAPTED.items()}
    broken[4, 5][1, 3] = math.nan
    found = measure_gap(reference, given(broken), arithmetic="here")
    assert math.isnan(found[GAP].value) and math.isnan(found[KL_MEAN].value) and math.isnan(found[KL_MAX].value)
