"""Clouds of known dimension."""

import numpy as np
import pytest

from geonb.claims.experiments.known_manifolds import MANIFOLDS, points_on
from geonb.errors import InputError


@pytest.mark.parametrize("name", ["segment", "cube of 5", "cube of 20"])
def test_a_flat_manifold_spans_as_many_dimensions_as_it_has(name):
    points = points_on(name, 200, seed=0)
    assert points.shape == (200, 64)
    assert np.linalg.matrix_rank(points - points.mean(0)) == MANIFOLDS[name][0]


def test_the_sphere_has_its_points_at_one_distance_from_the_origin():
    assert np.allclose(np.linalg.norm(points_on("sphere", 50, seed=0), axis=1), 1)


def test_the_swiss_roll_is_no_plane_and_lies_in_three_dimensions():
    points = points_on("Swiss roll", 400, seed=0)
    values = np.linalg.svd(points - points.mean(0), compute_uv=False)
    assert values[2] > 0.3 * values[0] and values[3] < 1e-9 * values[0]


def test_an_unknown_manifold_is_refused():
    with pytest.raises(InputError, match="'torus' was given; allowed are segment"):
        points_on("torus", 10, seed=0)
