"""A path's figures are those of its geometry, its walk has its steps and no direction, and scale changes no shape."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.analysis import TokenTrajectory, collect, token_trajectory
from geonb.errors import InputError
from geonb.geometry.dimension import two_nn

SHAPE = ("turning_angle", "curvature", "directness", "two_nn")


def heron(path):
    """Menger curvature by the area of each triangle."""
    found = []
    for p, q, r in zip(path, path[1:], path[2:], strict=False):
        a, b, c = np.linalg.norm(q - p), np.linalg.norm(r - q), np.linalg.norm(r - p)
        s = (a + b + c) / 2
        found.append(4 * np.sqrt(max(0.0, s * (s - a) * (s - b) * (s - c))) / (a * b * c))
    return np.array(found)


@given(st.integers(0, 1000), st.integers(6, 25), st.integers(2, 6))
def test_figures_are_those_of_the_triangles_and_steps(seed, tokens, width):
    path = np.random.default_rng(seed).standard_normal((tokens, width)).cumsum(0)
    found = token_trajectory(path, draws=2)
    steps = np.diff(path, axis=0)
    sizes = np.linalg.norm(steps, axis=1)
    cosines = (steps[:-1] * steps[1:]).sum(1) / sizes[:-1] / sizes[1:]
    assert found["arc_length"].value == pytest.approx(sizes.sum())
    assert found["velocity"].value == pytest.approx(sizes.mean())
    assert found["turning_angle"].value == pytest.approx(np.arccos(cosines).mean(), rel=1e-6)
    assert found["curvature"].value == pytest.approx(heron(path).mean() * sizes.mean(), rel=1e-5)
    assert found["directness"].value == pytest.approx(np.linalg.norm(path[-1] - path[0]) / sizes.sum())
    assert found["two_nn"].value == pytest.approx(two_nn(path), rel=1e-9)


@given(st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_shape_knows_neither_scale_nor_rotation_nor_place(seed, scale):
    rng = np.random.default_rng(seed)
    path = rng.standard_normal((20, 4)).cumsum(0)
    turned = path @ np.linalg.qr(rng.standard_normal((4, 4)))[0] * scale + 5 * scale
    first, second = token_trajectory(path, draws=1), token_trajectory(turned, draws=1)
    for name in SHAPE:
        assert second[name].value == pytest.approx(first[name].value, rel=1e-5), name
    assert second["arc_length"].value == pytest.approx(scale * first["arc_length"].value)


def test_a_straight_line_does_not_turn_and_a_circle_turns_evenly():
    line = token_trajectory(np.arange(12.0)[:, None] * np.ones((1, 3)), draws=2)
    assert line["turning_angle"].value == pytest.approx(0, abs=1e-7) and line["directness"].value == pytest.approx(1)
    angles = np.linspace(0, 2 * np.pi, 101)
    circle = token_trajectory(5 * np.column_stack([np.cos(angles), np.sin(angles)]), draws=2)
    assert circle["turning_angle"].value == pytest.approx(2 * np.pi / 100)
    # curvature 1 / 5 times a step of 2 * 5 * sin(pi / 100)
    assert circle["curvature"].value == pytest.approx(2 * np.sin(np.pi / 100))


def test_a_random_walk_lies_within_its_null_and_a_straight_path_beyond():
    rng = np.random.default_rng(0)
    walk = token_trajectory(rng.standard_normal((60, 30)).cumsum(0))
    for name in ("turning_angle", "curvature", "directness"):
        low, high = walk.null_interval(name)
        assert low - (high - low) < walk[name].value < high + (high - low), name
    # uniformly random steps are at right angles on average
    assert walk["turning_angle"].null == pytest.approx(np.pi / 2, abs=0.05)
    straight = token_trajectory(np.arange(60.0)[:, None] + 0.1 * rng.standard_normal((60, 30)))
    assert straight["turning_angle"].interval[1] < straight.null_interval("turning_angle")[0]
    assert straight["directness"].value > straight.shuffled_interval("directness")[1]
    # three independent points make an angle of 120 degrees on average: -(q - p) and (r - q) share q
    cloud = token_trajectory(rng.standard_normal((300, 200)))
    assert cloud["turning_angle"].value == pytest.approx(2 * np.pi / 3, abs=0.02)
    assert np.mean(cloud.shuffled["turning_angle"]) == pytest.approx(2 * np.pi / 3, abs=0.02)


def test_expansion_is_the_largest_dimension_over_the_last(runtime, verses):
    path = collect(runtime, verses[:1], pool="tokens", states=("out",)).trajectory(0)
    found = token_trajectory(path, draws=3, layer=1)
    dimensions = [two_nn(one) for one in path]
    assert found.dimensions == pytest.approx(dimensions) and found.layer == 1
    assert found["expansion_ratio"].value == pytest.approx(max(dimensions) / dimensions[-1])
    assert found["two_nn"].value == pytest.approx(dimensions[1]) and len(found.nulls["expansion_ratio"]) == 3
    assert TokenTrajectory.from_json(found.to_json()) == found
    assert "expansion_ratio" not in token_trajectory(path[0], draws=1).measured


@pytest.mark.parametrize(
    ("path", "options", "sentence"),
    [
        (np.ones((4, 3)), {}, "with 5 or more tokens"),
        (np.ones(9), {}, "a path of shape"),
        (np.full((9, 2), np.inf), {}, "allowed are finite numbers"),
        (np.ones((9, 2)), {}, "the path does not move"),
        (np.eye(9), {"layer": 1}, "layer 1 was given; allowed are -1 to 0"),
        (np.eye(9), {"draws": 0}, "0 draws"),
        ("abc", {}, "the path is no array of numbers"),
    ],
)
def test_what_is_no_path_is_refused(path, options, sentence):
    with pytest.raises(InputError, match=sentence):
        token_trajectory(path, **options)
