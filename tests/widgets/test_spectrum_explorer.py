"""The map of a model's spectra agrees with the records behind it, while it fills in and when it is done."""

import json
import math
import shutil
import threading
import time

import numpy as np
import pytest

from geonb.errors import InputError
from geonb.geometry.spectrum import Spectrum
from geonb.models import MatrixGeometry, MatrixRef, model_spectra
from geonb.widgets import spectrum_explorer as module
from geonb.widgets.packing import unpack
from geonb.widgets.spectrum_explorer import SpectrumExplorer
from geonb.widgets.spectrum_picture import random_twin
from geonb.widgets.spectrum_scalars import SCALARS, domain
from tests.families import write_tiny

every_scalar = pytest.mark.parametrize("key", list(SCALARS))
HOSTILE = "</script><img src=x onerror=alert(1)>&'\""


def geometry(name="w", values=(3.0, 2.0, 0.5), **changes):
    size = len(values)
    given = {"role": "q", "layer": 0, "expert": None, "shape": (size, size), "dtype": "float32"} | changes
    ref = MatrixRef(name=name, module=name, targetable=True, because="", parts=(name,), **given)
    return MatrixGeometry(ref=ref, spectrum=Spectrum.of(values))


def eventually(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@pytest.fixture(scope="module")
def embedded():
    return model_spectra("embedded")


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory):
    return SpectrumExplorer(write_tiny("mixtral", tmp_path_factory.mktemp("mixtral"))).complete()


@pytest.fixture
def slowly(monkeypatch):
    """The real stream of matrices at 10 ms a matrix, so that a test can look in between; the names as they come."""
    stream, names = module.stream_geometry, []

    def stream_slowly(*given, **options):
        for found in stream(*given, **options):
            time.sleep(0.01)
            names.append(found.ref.name)
            yield found

    monkeypatch.setattr(module, "stream_geometry", stream_slowly)
    monkeypatch.setattr(module, "_SECONDS_BETWEEN", 0.02)
    return names


def filling():
    return [thread for thread in threading.enumerate() if thread.name == "geonb-spectra"]


@every_scalar
def test_every_cell_of_the_map_is_the_median_of_its_matrices(embedded, key):
    layers, roles, grid = SpectrumExplorer(embedded, scalar=key).grid()
    assert layers == [*sorted({m.ref.layer for m in embedded.matrices} - {None}), "–"]
    for row, layer in enumerate(layers):
        for column, role in enumerate(roles):
            here = [
                m
                for m in embedded.matrices
                if m.ref.role == role and (m.ref.layer, layer) in ((layer, layer), (None, "–"))
            ]
            if not here:
                assert math.isnan(grid[row, column])
                continue
            name = {"tail_share": "tail_dims", "effective_share": "effective_rank", "noise_share": "noise_rank"}.get(
                key, key
            )
            over = [m.spectrum.full_rank if name != key else 1 for m in here]
            values = [getattr(m.spectrum, name) / q for m, q in zip(here, over, strict=True)]
            assert grid[row, column] == pytest.approx(np.median(values))


@every_scalar
def test_the_colours_span_exactly_what_the_map_shows(embedded, key):
    view = SpectrumExplorer(embedded, scalar=key)
    shown = [value for value in view.grid()[2].reshape(-1).tolist() if math.isfinite(value)]
    scale = view.domain()
    if SCALARS[key].share:
        assert (scale.low, scale.high, scale.log) == (0, 1, False)
    else:
        positive = [value for value in shown if value > 0]
        assert scale.high == max(shown) and scale.low == (min(positive) if scale.log else min(shown))
        assert scale.log == (min(shown) >= 0 and max(shown) > 30 * min(positive))
    assert all(0 <= scale.at(value) <= 1 for value in shown if not (scale.log and value <= 0))


def test_a_scale_goes_logarithmic_with_wide_values_and_has_no_place_for_what_is_no_number():
    wide = domain(SCALARS["sigma_max"], [0.01, 1.0, math.nan, 0.0])
    assert (
        wide.log and wide.at(0.1) == pytest.approx(0.5) and math.isnan(wide.at(0.0)) and math.isnan(wide.at(math.nan))
    )
    assert domain(SCALARS["sigma_max"], [2.0, 2.0]).at(2.0) == 0.5
    assert domain(SCALARS["sigma_max"], []) == domain(SCALARS["tail_share"], [0.3])


def test_the_experts_of_a_layer_share_one_cell_by_their_median(mixtral):
    layers, roles, grid = mixtral.grid()
    for role in ("fused", "down"):
        experts = [m for m in mixtral.geometries if m.ref.layer == 1 and m.ref.role == role]
        assert [m.ref.expert for m in experts] == [0, 1, 2]
        middle = sorted(m.spectrum.tail_dims / m.spectrum.full_rank for m in experts)[1]
        assert grid[layers.index(1), roles.index(role)] == pytest.approx(middle)
    assert {entry["expert"] for entry in mixtral.state()["matrices"]} == {None, 0, 1, 2}


def test_the_scalars_that_are_sent_are_those_of_the_records(embedded):
    view = SpectrumExplorer(embedded)
    data, meta = unpack(view.data())
    for key in set(SCALARS) - {"tail_share", "effective_share", "noise_share"}:
        np.testing.assert_allclose(data[key], [getattr(m.spectrum, key) for m in embedded.matrices], rtol=1e-6)
    np.testing.assert_allclose(data["noise_edge"], [m.spectrum.noise_edge for m in embedded.matrices], rtol=1e-6)
    assert data["curve_of"].tolist() == list(range(len(embedded.matrices))) and meta["points"] == 96
    json.dumps(view.state(), allow_nan=False)


def test_every_point_of_a_curve_lies_on_the_spectrum_and_both_ends_are_there(embedded):
    data, meta = unpack(SpectrumExplorer(embedded).data())
    for number, place in enumerate(data["curve_of"]):
        spectrum = embedded.matrices[place].spectrum
        part = slice(number * meta["points"], (number + 1) * meta["points"])
        known = ~np.isnan(data["index"][part])
        index = data["index"][part][known].astype(int)
        assert index[0] == 1 and index[-1] == len(spectrum.values) and (np.diff(index) > 0).all()
        np.testing.assert_allclose(data["values"][part][known], spectrum.values[index - 1], rtol=1e-6)
        twin = random_twin(spectrum.shape, float(np.linalg.norm(spectrum.values)))
        np.testing.assert_allclose(data["twin"][part][known], twin[index - 1], rtol=1e-6)
        assert np.isnan(data["values"][part][~known]).all()


def test_of_more_than_a_thousand_matrices_only_the_chosen_curve_is_sent():
    view = SpectrumExplorer([geometry(f"w{n}", layer=n) for n in range(1001)], select="w700")
    data, _ = unpack(view.data())
    assert data["curve_of"].tolist() == [700] and len(data["values"]) == 96 and len(data["sigma_k"]) == 1001


def test_a_zero_matrix_has_no_colour_and_every_picture_of_it_stands():
    view = SpectrumExplorer([geometry("zero", (0.0, 0.0)), geometry("w", layer=1)])
    data, _ = unpack(view.data())
    assert [math.isnan(value) for value in data["sigma_k"]] == [True, False]
    assert np.isnan(view.grid()[2][0, 0]) and view.selected.is_zero
    assert view.static().startswith("<img ") and len(view.figure().data) == 1


def test_an_empty_list_of_matrices_is_an_empty_map():
    view = SpectrumExplorer([])
    assert view.grid()[2].shape == (0, 0) and view.selected is None and view.record is None
    assert view.static().startswith("<img ") and view.figure().data
    assert unpack(view.data())[0]["values"].size == 0


def test_the_first_choice_is_a_matrix_of_a_layer_and_another_can_be_made(embedded):
    view = SpectrumExplorer(embedded)
    first = next(m.ref for m in embedded.matrices if m.ref.layer is not None)
    assert view.selected_title() == first.name == view.selected.ref.name
    last, host = embedded.matrices[-1].ref.name, view.widget()
    host.event = {"kind": "select", "name": last}
    assert view.selected_title() == last and host.state["selected"] == len(embedded.matrices) - 1
    host.event = {"kind": "scalar", "key": "sigma_max"}
    assert view.scalar == "sigma_max" and view.label == SCALARS["sigma_max"].label
    for ignored in ({"kind": "scalar", "key": "__class__"}, {"kind": "select", "name": 3}, {"kind": "odd"}, {"odd": 1}):
        host.event = ignored
    assert view.scalar == "sigma_max" and view.selected_title() == last
    view.close()


def test_what_does_not_exist_is_refused_with_what_does(embedded):
    with pytest.raises(InputError, match=r"scalar was given 'colour'; allowed are tail_share, "):
        SpectrumExplorer(embedded, scalar="colour")
    with pytest.raises(InputError, match=r"no matrix is called 'w'; allowed are names such as .*geonb model info"):
        SpectrumExplorer(embedded, select="w")


def test_a_map_fills_in_while_it_is_looked_at_and_ends_as_the_whole_record(embedded, slowly):
    view = SpectrumExplorer("embedded")
    assert not view.is_complete and view.record is None and "not%20measured" in view.static().replace(" ", "%20")
    host, seen = view.widget(), []
    host.observe(lambda change: seen.append(change["new"]["done"]), names="state")
    assert eventually(lambda: host.state["done"] == len(view.refs))
    assert seen == sorted(seen) and len(set(seen)) > 2, "the page saw it fill in"
    assert view.record == embedded and unpack(host.data)[0].keys() == unpack(view.data())[0].keys()
    assert host.data == SpectrumExplorer(embedded).data()
    view.close()


def test_closing_the_last_host_ends_the_measuring(slowly):
    view = SpectrumExplorer("embedded")
    view.widget()
    assert eventually(lambda: slowly)
    view.close()
    assert eventually(lambda: not filling()) and not view.is_complete
    assert view.complete() is view and view.is_complete


def test_a_map_that_is_shown_again_while_it_fills_is_not_measured_twice(slowly):
    view = SpectrumExplorer("embedded")
    for _ in range(4):
        view.widget()
        view.close()
    view.widget()
    assert eventually(lambda: view.is_complete and not filling())
    view.close()
    assert len(slowly) <= len(view.refs) + 4, "one matrix may be on its way at each closing"


def test_a_model_that_vanishes_while_it_is_measured_is_said_under_the_view(tmp_path):
    view = SpectrumExplorer(write_tiny("llama", tmp_path / "model"))
    shutil.rmtree(tmp_path / "model")
    host = view.widget()
    assert eventually(lambda: host.state["error"] != "", 2)


def test_hostile_names_are_text_in_every_form_and_the_still_one_is_one_image():
    view = SpectrumExplorer([geometry(HOSTILE), geometry("w", layer=1)], select=HOSTILE)
    text = view.static()
    assert text.startswith("<img ") and text.count("<") == text.count(">") == 1, "one image, no script"
    assert text.replace("http://www.w3.org/2000/svg", "").count("http") == 0
    assert "<img" not in json.dumps(view.figure().layout.to_plotly_json()["annotations"])


def test_the_figure_shows_the_map_and_the_chosen_spectrum_beside_its_twin(embedded):
    figure = SpectrumExplorer(embedded, select=embedded.matrices[-1].ref.name).figure()
    spectrum = embedded.matrices[-1].spectrum
    heat, values, twin, edge, mark = figure.data
    assert np.asarray(heat.z).shape == (5, len(heat.x)) and heat.y[-1] == "–"
    np.testing.assert_array_equal(values.y, spectrum.values)
    assert np.linalg.norm(twin.y) == pytest.approx(np.linalg.norm(spectrum.values))
    assert list(edge.y) == [spectrum.noise_edge] * 2
    assert (list(mark.x), list(mark.y)) == ([spectrum.structural_rank], [spectrum.sigma_k])
    assert figure.layout.xaxis2.type == figure.layout.yaxis2.type == "log"
