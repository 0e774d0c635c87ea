"""Distortion is 0 where the graph has every edge, that of an arc is known, and the controls keep what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geonb.claims.experiments import distortion as experiment
from geonb.errors import InputError


def test_points_on_a_line_have_none():
    line = np.linspace(0, 1, 40)[:, None] * np.ones(3)
    assert experiment.distortion(line, (2, 5))[2] == pytest.approx(0, abs=1e-12)


def test_a_graph_with_every_edge_has_none():
    points = np.random.default_rng(0).standard_normal((20, 4))
    assert experiment.distortion(points, (19,))[19] == pytest.approx(0, abs=1e-12)


def test_a_half_circle_has_what_arc_over_chord_gives():
    angles = np.linspace(0, np.pi, 60)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    gaps = np.abs(angles[:, None] - angles)[np.triu_indices(60, 1)]
    # steps of one chord each: the polygon's length, not the arc's
    step = 2 * np.sin(np.pi / 59 / 2)
    expected = (np.round(gaps / (np.pi / 59)) * step / (2 * np.sin(gaps / 2))).mean() - 1
    # with two neighbours only the ends reach further than one step
    assert experiment.distortion(circle, (2,))[2] == pytest.approx(expected, rel=2e-3)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_it_never_rises_with_the_neighbours(seed, width):
    points = np.random.default_rng(seed).standard_normal((25, width))
    found = experiment.distortion(points, (3, 6, 12))
    assert found[3] >= found[6] - 1e-12 and found[6] >= found[12] - 1e-12


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(30, 5), (12, 40)]))
def test_both_controls_keep_mean_and_sample_covariance(seed, shape):
    rng = np.random.default_rng(seed)
    cloud = rng.standard_normal(shape) ** 3 + 2.0
    for control in (experiment.gaussian_like, experiment.unlinked):
        made = control(cloud, rng)
        assert made.shape == shape
        assert np.allclose(made.mean(0), cloud.mean(0))
        assert np.allclose(np.cov(made.T), np.cov(cloud.T), atol=1e-8 * np.abs(np.cov(cloud.T)).max())
        assert not np.allclose(made, cloud)


def test_gaussian_points_lie_as_far_as_their_control_on_average():
    rng = np.random.default_rng(0)
    scale = np.linspace(2, 0.1, 60)
    found = [
        experiment.excess(rng.standard_normal((50, 60)) * scale, (5, 10), experiment.gaussian_like, rng, 2)
        for _ in range(25)
    ]
    mean, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / 5
    assert (np.abs(mean) < 3.5 * error).all()


def test_a_swiss_roll_lies_above_its_control():
    rng = np.random.default_rng(0)
    assert (experiment.excess(experiment.swiss_roll(150, rng), (5, 10), experiment.gaussian_like, rng) > 0.02).all()


@pytest.mark.parametrize(
    ("points", "neighbours", "words"),
    [
        (np.zeros((5, 2)) + np.arange(5)[:, None], (5,), "more points or fewer neighbours"),
        (np.zeros((5, 2)) + np.arange(5)[:, None], (0,), "from 1 to n - 1"),
        (np.zeros((5, 2)), (2,), "two points of the cloud coincide"),
    ],
)
def test_what_cannot_be_measured_is_refused(points, neighbours, words):
    with pytest.raises(InputError, match=words):
        experiment.distortion(points, neighbours)
