"""Fewer points than pixels: nothing that a reader would look for is lost on the way."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from geonb.widgets.decimate import buckets, extremes, majority

_numbers = st.floats(-1e6, 1e6) | st.just(np.nan) | st.sampled_from([np.inf, -np.inf])
_tables = st.tuples(st.integers(0, 60), st.integers(1, 3)).flatmap(
    lambda shape: arrays.arrays(np.float64, shape, elements=_numbers)
)
# a bucket gives two rows, its minimum and its maximum, so two is the least that a limit can mean
_limits = st.integers(2, 40)


def by_hand(values, limit):
    """`extremes` as a loop: the buckets' bounds from `buckets`, their extremes from plain Python."""
    starts = [*buckets(len(values), limit // 2).tolist(), len(values)]
    rows = []
    for first, last in itertools.pairwise(starts):
        for pick in (min, max):
            row = []
            for column in range(values.shape[1]):
                known = [value for value in values[first:last, column].tolist() if value == value]
                row.append(pick(known) if known else np.nan)
            rows.append(row)
    return np.array(rows)


@given(st.integers(0, 5000), st.integers(1, 300))
def test_buckets_cover_every_row_once_and_differ_by_at_most_one(count, limit):
    starts = buckets(count, limit)
    assert len(starts) == min(count, limit)
    if count:
        sizes = np.diff([*starts, count])
        assert starts[0] == 0 and sizes.sum() == count
        assert sizes.min() >= 1 and sizes.max() - sizes.min() <= 1


@given(_tables, _limits)
def test_no_more_rows_are_kept_than_the_limit(values, limit):
    rows, kept = extremes(values, limit)
    assert len(rows) == len(kept) <= max(limit, 0)
    assert kept.shape[1] == values.shape[1]


@given(_tables, _limits)
def test_the_smallest_and_the_largest_number_of_every_column_are_kept(values, limit):
    _, kept = extremes(values, limit)
    for column in range(values.shape[1]):
        known = [value for value in values[:, column].tolist() if value == value]
        shown = [value for value in kept[:, column].tolist() if value == value]
        assert bool(known) == bool(shown)
        if known:
            assert min(shown) == min(known) and max(shown) == max(known)


@given(_tables, _limits)
def test_rows_stay_in_order_and_inside_the_table(values, limit):
    rows, _ = extremes(values, limit)
    assert (np.diff(rows) > 0).all()
    assert all(0 <= row < len(values) for row in rows)


@given(_tables, _limits)
def test_only_numbers_that_are_there_are_shown(values, limit):
    _, kept = extremes(values, limit)
    for column in range(values.shape[1]):
        known = set(values[:, column][~np.isnan(values[:, column])].tolist())
        assert set(kept[:, column][~np.isnan(kept[:, column])].tolist()) <= known


@given(_tables, _limits)
def test_what_is_kept_is_what_a_plain_loop_keeps(values, limit):
    if len(values) > limit:
        np.testing.assert_array_equal(extremes(values, limit)[1], by_hand(values, limit))


@given(_tables)
def test_few_enough_rows_are_kept_as_they_are(values):
    rows, kept = extremes(values, max(2, len(values)))
    assert rows.tolist() == list(range(len(values)))
    np.testing.assert_array_equal(kept, values)


def test_nan_is_skipped_where_a_number_is_near_and_shown_where_none_is():
    values = np.array([np.nan, 1.0, np.nan, np.nan, 3.0, 2.0, np.nan, np.nan])[:, None]
    _, kept = extremes(values, 4)
    assert kept[:, 0].tolist() == [1.0, 1.0, 2.0, 3.0]
    _, kept = extremes(np.full((9, 1), np.nan), 4)
    assert np.isnan(kept).all()


@pytest.mark.parametrize("at", [0, 1, 499, 5_000, 9_998, 9_999])
def test_a_spike_of_one_step_is_seen_wherever_it_stands(at):
    values = np.zeros((10_000, 2))
    values[at, 1] = 1.0
    rows, kept = extremes(values, 100)
    shown = rows[kept[:, 1] == 1.0]
    assert len(shown) == 1 and abs(int(shown[0]) - at) <= 10_000 / 50
    assert not kept[:, 0].any()


@given(st.lists(st.integers(0, 3), max_size=80), st.integers(1, 20))
def test_the_majority_of_a_bucket_is_the_code_that_a_plain_loop_counts_most(codes, limit):
    found = majority(np.array(codes, dtype=np.uint8), limit)
    starts = [*buckets(len(codes), limit).tolist(), len(codes)]
    expected = []
    for first, last in itertools.pairwise(starts):
        inside = codes[first:last]
        expected.append(max(range(4), key=lambda code, inside=inside: (inside.count(code), -code)))
    assert found.tolist() == expected
    assert found.dtype == np.uint8


@given(st.lists(st.integers(0, 3), max_size=30))
def test_few_enough_codes_are_kept_as_they_are(codes):
    assert majority(np.array(codes, dtype=np.uint8), 30).tolist() == codes
