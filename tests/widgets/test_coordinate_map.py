"""A map of coordinates: every cell of the kernel in its place, every coordinate with its name, the figures of its record."""

import json
import math

import numpy as np
import pytest

from geonb.coordinates.clusters import clusters, kernel_matrix
from geonb.widgets import CoordinateMap, show
from geonb.widgets.coordinate_picture import coordinate_picture, kernel_colour, ordered
from tests.tiny import pictures

EVIL = "<script>alert(1)</script>\x1b[31m"


def record(count=12, kinds=3, **more):
    rng = np.random.default_rng(1)
    centres = rng.uniform(0, 2 * math.pi, (kinds, 32))
    phases = centres[np.arange(count) % kinds] + 0.5 * rng.normal(size=(count, 32))
    more = {"names": [f"task {index}" for index in range(count)], "permutations": 39, **more}
    return clusters(kernel_matrix(phases), more.pop("names"), [f"kind {i % kinds}" for i in range(count)], **more)


@pytest.fixture(scope="module")
def found():
    return record(control=np.random.default_rng(2).normal(size=(12, 9)), control_name="counts of words")


def test_what_is_sent_is_strict_json_with_the_kernel_in_the_order_of_the_items(found):
    state = CoordinateMap(found).state()
    assert json.loads(json.dumps(state, allow_nan=False)) == state
    places = [found.names.index(item["name"]) for item in state["items"]]
    assert sorted(places) == list(range(12))
    for i, first in enumerate(places):
        for j, second in enumerate(places):
            assert state["kernel"][i][j] == pytest.approx(found.kernel[first][second], abs=5e-4)
    assert [item["place"] for item in state["items"]] == [list(found.places[place]) for place in places]


def test_items_of_one_label_stand_together_and_the_most_typical_first(found):
    order = ordered(found)
    labels = [found.labels[item] for item in order]
    assert labels == sorted(labels)
    first = [item for item in order if found.labels[item] == "kind 0"]
    typical = [np.mean([found.kernel[item][other] for other in first]) for item in first]
    assert typical == sorted(typical, reverse=True)


def test_the_still_picture_holds_labels_names_and_figures(found):
    (text,) = pictures(CoordinateMap(found).static())
    assert all(f"kind {kind}" in text for kind in range(3)) and "task 7" in text
    assert "counts of words" in text and "permuted labels" in text
    assert f"{found.found.silhouette.value:.3f}, permuted" in text


def test_a_mark_stands_for_each_coordinate_one_for_the_key_and_one_a_side(found):
    assert coordinate_picture(found).count("<circle") == 12 + 1 + 2


def test_without_a_control_there_is_one_row_of_figures():
    view = CoordinateMap(record())
    assert len(view.state()["sides"]) == 1 and "counts of words" not in pictures(view.static())[0]


def test_a_large_map_says_what_it_leaves_out_and_stays_small():
    large = record(count=180)
    (text,) = pictures(CoordinateMap(large).static())
    assert "72 of 180" in text and "names did not find room" in text
    assert len(coordinate_picture(large)) < 150_000


def test_colours_tell_signs_and_sizes_apart():
    assert kernel_colour(0.0) == "#ffffff" and kernel_colour(1.0) == "#003c78" and kernel_colour(-1.0) == "#c85a00"
    assert len({kernel_colour(k / 20) for k in range(-20, 21)}) == 41


def test_coordinates_that_are_all_alike_have_a_picture_too():
    flat = clusters(np.ones((4, 4)), list("abcd"), list("xxyy"), permutations=19)
    assert pictures(CoordinateMap(flat).static()) and flat.shown == 0.0


def test_the_figure_holds_the_kernel_and_a_cloud_for_each_label(found):
    heat, *clouds = CoordinateMap(found).figure().data
    assert np.asarray(heat.z).shape == (12, 12) and [one.name for one in clouds] == ["kind 0", "kind 1", "kind 2"]


def test_a_record_is_shown_as_its_map(found):
    view = show(found)
    assert repr(view) == "CoordinateMap(12 coordinates, 3 labels)" and view.record is found


def test_names_of_strangers_stay_text():
    view = CoordinateMap(record(names=[EVIL] * 12, control=np.ones((12, 2)), control_name=EVIL))
    pictures(view.static())
    assert "<script" not in view.static() and "<script" not in json.dumps(view.figure().to_dict(), default=str)


def test_the_live_form_has_a_module_and_can_be_closed(found):
    view = CoordinateMap(found)
    host = view.widget()
    assert "CoordinateMap" in host._esm and host.state["sentence"] == found.sentence
    view.close()
