"""Forgetting as Chaudhry, backward transfer as Lopez-Paz and Ranzato, written out by hand for small matrices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.coordinates.continual.metrics import continual_metrics, forgotten, mean_of
from geonb.errors import InputError

MATRIX = [[0.8], [0.9, 0.6], [0.5, 0.7, 1.0]]
shares = st.floats(0, 1)


def test_a_matrix_worked_out_by_hand():
    found = continual_metrics(MATRIX, joint=[0.9, 0.9, 0.9])
    assert found.accuracy == pytest.approx((0.5 + 0.7 + 1.0) / 3)
    assert found.just_learned == pytest.approx((0.8 + 0.6 + 1.0) / 3)
    # task 1 was best after task 2 (0.9); task 2 got better later, which is less than nothing forgotten
    assert forgotten(MATRIX).tolist() == pytest.approx([0.4, -0.1])
    assert found.forgetting == pytest.approx(0.15)
    assert found.backward_transfer == pytest.approx(((0.5 - 0.8) + (0.7 - 0.6)) / 2)
    assert found.intransigence == pytest.approx(0.9 - 0.8)


@given(st.lists(shares, min_size=2, max_size=6))
def test_what_never_changes_is_not_forgotten(row):
    matrix = [row[: place + 1] for place in range(len(row))]
    found = continual_metrics(matrix, joint=row)
    assert found.forgetting == found.backward_transfer == found.intransigence == 0


@given(st.data())
def test_forgetting_is_at_least_the_loss_since_learning(data):
    size = data.draw(st.integers(2, 6))
    matrix = [data.draw(st.lists(shares, min_size=place, max_size=place)) for place in range(1, size + 1)]
    found = continual_metrics(matrix)
    assert found.forgetting >= -found.backward_transfer - 1e-12


def test_the_mean_has_an_interval_that_holds_it():
    found = mean_of([0.0, 1.0, 1.0, 0.0, 1.0], what="ACC", null=0.5)
    assert found.interval is not None and found.interval[0] < found.value == 0.6 < found.interval[1]


def test_other_shapes_are_refused():
    with pytest.raises(InputError, match="matrix of 1 tasks was given; forgetting needs at least two"):
        continual_metrics([[1.0]])
    with pytest.raises(InputError, match="row 2 of the accuracy matrix has 1 entries; allowed are 2"):
        continual_metrics([[1.0], [1.0]])
    with pytest.raises(InputError, match="1 joint accuracies were given for 3 tasks"):
        continual_metrics(MATRIX, joint=[1.0])
