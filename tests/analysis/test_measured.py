"""A figure knows its null, and asking for what is not there says what is."""

import subprocess
import sys

import numpy as np
import pytest

import geonb.analysis
from geonb.analysis.measured import Measured, assemble, finite_matrix
from geonb.errors import InputError


@pytest.fixture
def measured():
    figures, nulls = assemble(
        {"size": (3.0, (2.0, 4.0)), "bare": (1.0, None)},
        {"size": [1.0, 2.0, 3.0], "other": [9.0]},
        n=7,
        units={"size": "m"},
        operators={"size": "by hand"},
        said="seed 0",
    )
    return Measured(subject="<a>", measured=figures, nulls=nulls)


def test_a_figure_carries_interval_count_null_unit_and_operator(measured):
    one = measured["size"]
    assert (one.value, one.interval, one.n, one.null, one.unit) == (3.0, (2.0, 4.0), 7, 2.0, "m")
    assert one.operator == "by hand; seed 0" and measured["bare"].operator == "seed 0" and measured["bare"].null is None
    assert "other" not in measured.nulls


def test_the_null_answers_how_often_chance_does_as_much(measured):
    assert measured.p_value("size") == 0.5 and measured.p_value("size", above=False) == 1.0
    assert measured.null_interval("size") == (0.0, 4.0) and measured.over_null("size") == 1.5
    assert (
        measured.p_value("bare") is None
        and measured.null_interval("bare") is None
        and np.isnan(measured.over_null("bare"))
    )


def test_a_record_goes_through_json_and_shows_itself_escaped(measured):
    assert Measured.from_json(measured.to_json()) == measured
    assert "3 m [2, 4] (n = 7, null 2)" in measured.to_text()
    assert "<a>" not in measured.to_html() and "&lt;a&gt;" in measured.to_html()


def test_an_unknown_figure_is_refused(measured):
    for ask in (measured.__getitem__, measured.null_interval, measured.p_value):
        with pytest.raises(InputError, match="'nothing' was not measured of <a>; there are size, bare"):
            ask("nothing")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [("abc", "W is a str"), (np.zeros(3), r"W has the shape \(3,\)"), ([[1.0, np.nan]], "W holds NaN or infinity")],
)
def test_what_is_no_matrix_is_refused(given, sentence):
    with pytest.raises(InputError, match=sentence):
        finite_matrix(given, name="W")


def test_the_package_imports_nothing_heavy_and_offers_its_functions_by_their_own_names():
    code = (
        "import geonb.analysis, sys; print([n for n in ('torch', 'transformers', 'scipy', 'peft') if n in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
    # a submodule of the same name would take the function's place once it is imported
    for _ in range(2):
        for name in geonb.analysis.__all__:
            assert callable(getattr(geonb.analysis, name)), name
