"""Clusters of coordinates are those of a silhouette counted by hand, and chance alone makes none."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geonb.coordinates.clusters import (
    CoordinateClusters,
    clusters,
    coordinate_clusters,
    kernel_matrix,
    scaled,
    silhouettes,
)
from geonb.coordinates.configuration import preset
from geonb.coordinates.model import CoordinateModel
from geonb.errors import InputError

EVIL = "<script>alert(1)</script>\x1b[31m"


def by_hand(distances, labels):
    """Rousseeuw's silhouette, item by item in plain loops."""
    found = []
    for i, mine in enumerate(labels):
        groups = {}
        for j, label in enumerate(labels):
            if j != i:
                groups.setdefault(label, []).append(distances[i][j])
        if mine not in groups:
            found.append(0.0)
            continue
        a = sum(groups[mine]) / len(groups[mine])
        b = min(sum(one) / len(one) for label, one in groups.items() if label != mine)
        found.append((b - a) / max(a, b) if max(a, b) > 0 else 0.0)
    return found


def planted(count=24, pairs=64, kinds=3, spread=0.4, seed=0):
    """Phases of `kinds` groups about a centre of their own, as one would hope to find them."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, 2 * math.pi, (kinds, pairs))
    labels = [f"kind {index % kinds}" for index in range(count)]
    return centres[np.arange(count) % kinds] + spread * rng.normal(size=(count, pairs)), labels


def names(count):
    return [f"task {index}" for index in range(count)]


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 14), st.integers(2, 4), st.integers(0, 10_000))
def test_the_silhouette_is_the_one_counted_by_hand(count, kinds, seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, 3))
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    labels = [f"l{one}" for one in rng.integers(0, kinds, count)]
    if len(set(labels)) < 2:
        labels[0] = "another"
    assert silhouettes(distances, labels) == pytest.approx(by_hand(distances.tolist(), labels), abs=1e-12)


def test_an_item_alone_with_its_label_counts_nothing():
    distances = np.array([[0.0, 1, 4], [1, 0, 4], [4, 4, 0]])
    assert silhouettes(distances, ["a", "a", "b"]).tolist() == [0.75, 0.75, 0.0]


def test_the_kernel_is_the_mean_cosine_of_phase_differences_over_all_layers():
    model = CoordinateModel(preset("tiny"), seed=1)
    thetas = torch.randn(6, model.sizes.coordinates, generator=torch.Generator().manual_seed(2))
    found = coordinate_clusters(model, thetas, names(6), list("aabbcc"), permutations=19)
    for i in range(6):
        for j in range(6):
            layers = []
            for layer in model.layers:
                turned = layer.directions.directions.detach().double() @ (thetas[i] - thetas[j]).double()
                layers.append(sum(math.cos(float(one)) for one in turned) / len(turned))
            assert found.kernel[i][j] == pytest.approx(sum(layers) / len(layers), abs=1e-5)


def test_planted_clusters_are_found_beyond_every_permutation():
    phases, labels = planted()
    found = clusters(kernel_matrix(phases), names(24), labels, permutations=199)
    assert found.found.p == pytest.approx(1 / 200)
    low, high = found.found.null_interval
    assert found.found.silhouette.value > 0.5 > high > low
    assert found.found.silhouette.null == pytest.approx(0, abs=0.1)
    assert "are clusters" in found.sentence


def test_labels_that_mean_nothing_are_clusters_no_more_often_than_chance_says():
    phases = np.random.default_rng(3).uniform(0, 2 * math.pi, (15, 32))
    kernel = kernel_matrix(phases)
    rng = np.random.default_rng(4)
    hits = 0
    for seed in range(60):
        labels = [f"l{one}" for one in rng.permutation(np.arange(15) % 3)]
        hits += clusters(kernel, names(15), labels, permutations=99, seed=seed).found.p <= 0.05
    assert hits <= 9  # 60 draws at 5 %: more than nine have a chance below one in a thousand


def test_two_places_keep_the_distances_of_a_kernel_of_rank_two():
    angles = np.linspace(0, 2.5, 7)[:, None]
    kernel = kernel_matrix(angles)
    places, shown = scaled(kernel)
    assert shown == pytest.approx(1.0)
    wanted = np.sqrt(np.maximum(2 - 2 * np.cos(angles - angles.T), 0))
    assert np.linalg.norm(places[:, None] - places[None], axis=-1) == pytest.approx(wanted, abs=1e-7)


def test_the_share_that_two_places_show_is_small_where_coordinates_are_orthogonal():
    _, shown = scaled(np.eye(20))
    assert shown == pytest.approx(2 / 19)


def test_a_control_that_clusters_as_well_takes_the_finding_away():
    phases, labels = planted()
    kernel = kernel_matrix(phases)
    better = clusters(
        kernel, names(24), labels, control=np.random.default_rng(5).normal(size=(24, 40)), permutations=99
    )
    words = np.eye(3)[np.arange(24) % 3]
    worse = clusters(kernel, names(24), labels, control=words, permutations=99, control_name="counts of words")
    assert better.over_control.interval[0] > 0 and "more than in bag of words" in better.sentence
    assert worse.control.silhouette.value == pytest.approx(1.0) and worse.over_control.interval[1] < 0
    assert "less than in counts of words" in worse.sentence


def test_the_difference_from_the_control_is_that_of_the_silhouettes_by_hand():
    phases, labels = planted(count=9, spread=1.0)
    features = np.random.default_rng(6).normal(size=(9, 4))
    kernel = kernel_matrix(phases)
    found = clusters(kernel, names(9), labels, control=features, permutations=19)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    own = by_hand((1 - kernel).tolist(), labels)
    theirs = by_hand((1 - unit @ unit.T).tolist(), labels)
    assert found.over_control.value == pytest.approx(np.mean(own) - np.mean(theirs))
    assert found.found.by_label["kind 1"] == pytest.approx(np.mean(own[1::3]))


def test_a_record_comes_back_from_json_and_shows_its_figures():
    phases, labels = planted(count=12)
    found = clusters(kernel_matrix(phases), names(12), labels, control=np.ones((12, 2)), permutations=39)
    assert CoordinateClusters.from_json(found.to_json()) == found
    assert "kind 2" in found.to_text() and "difference" in found.to_html()


def test_names_of_strangers_stay_text():
    phases, labels = planted(count=8, kinds=2)
    labels = [EVIL if one == "kind 0" else one for one in labels]
    found = clusters(
        kernel_matrix(phases), [EVIL] * 8, labels, control=np.ones((8, 2)), control_name=EVIL, permutations=19
    )
    assert "<script" not in found.to_html() and "\x1b" not in found.to_text()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kernel": np.eye(5)}, "allowed is one of each a coordinate"),
        ({"kernel": np.eye(6) * 2}, "symmetric matrix from -1 to 1"),
        ({"kernel": np.full((6, 6), np.nan)}, "symmetric matrix from -1 to 1"),
        ({"labels": ["a"] * 6}, "1 labels of 6 coordinates"),
        ({"labels": list("abcdef")}, "6 labels of 6 coordinates"),
        ({"permutations": 5}, "allowed are 19 or more"),
        ({"control": np.ones((5, 2))}, "allowed are 6 rows of finite numbers"),
        ({"control": np.zeros((6, 2))}, "the control's row 0 is zero"),
    ],
)
def test_what_cannot_be_judged_is_refused(change, sentence):
    given = {"kernel": np.eye(6), "names": names(6), "labels": list("aabbcc"), **change}
    with pytest.raises(InputError, match=sentence):
        clusters(given.pop("kernel"), given.pop("names"), given.pop("labels"), **given)


def test_a_theta_of_another_width_is_refused():
    with pytest.raises(InputError, match=r"allowed is \(K, 64\)"):
        coordinate_clusters(CoordinateModel(preset("tiny")), torch.zeros(4, 3), names(4), list("aabb"))
