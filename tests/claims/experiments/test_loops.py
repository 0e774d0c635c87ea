"""Loops of clouds whose homology is known, and against an independent count of ranks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geonb.claims.experiments.loops import (
    difference,
    difference_beyond,
    effect_size,
    h1_intervals,
    permuted_p,
    total_loop_persistence,
)
from geonb.errors import InputError


def circle(n: int) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_a_hexagon_has_one_loop_from_its_side_to_its_shorter_diagonal():
    assert h1_intervals(circle(6)).tolist() == [[pytest.approx(1.0), pytest.approx(np.sqrt(3))]]


def test_a_circle_of_many_points_dies_near_the_side_of_an_inscribed_triangle():
    ((birth, death),) = h1_intervals(circle(60))
    assert birth == pytest.approx(2 * np.sin(np.pi / 60))
    assert death == pytest.approx(np.sqrt(3), rel=0.01)


def test_two_circles_far_apart_have_two_loops_and_a_line_has_none():
    pair = np.concatenate([circle(12), circle(12) + np.array([50.0, 0.0])])
    assert len(h1_intervals(pair)) == 2
    assert len(h1_intervals(np.arange(8.0)[:, None])) == 0


def betti_1(points: np.ndarray, scale: float) -> int:
    """Dimension of the kernel of the edges' boundary less the rank of the triangles', by elimination over Z/2."""
    from itertools import combinations

    n = len(points)
    near = np.linalg.norm(points[:, None] - points, axis=2) <= scale
    edges = [pair for pair in combinations(range(n), 2) if near[pair]]
    triangles = [t for t in combinations(range(n), 3) if near[t[0], t[1]] and near[t[0], t[2]] and near[t[1], t[2]]]

    def rank(matrix: np.ndarray) -> int:
        matrix, found = matrix.copy() % 2, 0
        for column in range(matrix.shape[1]):
            rows = np.flatnonzero(matrix[found:, column]) + found
            if len(rows):
                matrix[[found, rows[0]]] = matrix[[rows[0], found]]
                others = np.flatnonzero(matrix[:, column])
                others = others[others != found]
                matrix[others] = (matrix[others] + matrix[found]) % 2
                found += 1
                if found == len(matrix):
                    break
        return found

    if not edges:
        return 0
    ends = np.array([[point in edge for edge in edges] for point in range(n)], dtype=int)
    sides = np.array([[set(edge) <= set(triangle) for triangle in triangles] for edge in edges], dtype=int)
    return len(edges) - rank(ends) - (rank(sides) if triangles else 0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 2.5))
def test_the_loops_alive_at_any_scale_are_the_first_betti_number_there(seed, scale):
    points = np.random.default_rng(seed).standard_normal((11, 2))
    found = h1_intervals(points)
    alive = sum(birth <= scale < death for birth, death in found)
    assert alive == betti_1(points, scale)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 100))
def test_the_persistence_does_not_depend_on_scale_place_or_repeated_points(seed, factor):
    points = np.random.default_rng(seed).standard_normal((15, 3))
    moved = np.concatenate([points, points[:3]]) * factor + 7.0
    assert total_loop_persistence(moved) == pytest.approx(total_loop_persistence(points), rel=1e-6, abs=1e-9)


def test_an_effect_size_counts_in_pooled_deviations():
    assert effect_size(np.array([3.0, 5.0]), np.array([1.0, 3.0])) == pytest.approx(2 / np.sqrt(2))


def test_a_difference_that_is_there_has_a_small_p_and_an_interval_above_zero_and_a_control_takes_it_away():
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal(40) + 1.5, rng.standard_normal(40)
    assert difference(first, second, resamples=300).interval[0] > 0
    assert permuted_p(first, second, permutations=300) == pytest.approx(1 / 301)
    assert permuted_p(second, first, permutations=300) == 1.0
    beyond = difference_beyond((first, second), (first, second), resamples=50)
    assert beyond.value == 0 and beyond.interval == (0, 0)


def test_too_many_points_and_numbers_that_are_none_are_refused():
    with pytest.raises(InputError, match="4 to 120 points"):
        h1_intervals(np.zeros((121, 2)))
    with pytest.raises(InputError, match="finite"):
        h1_intervals(np.full((5, 2), np.nan))
