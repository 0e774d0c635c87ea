"""A check is a figure, a comparison and a threshold; what was not measured is never met."""

import math
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.claims.checks import Check
from geonb.errors import InputError
from geonb.geometry.measurement import Measurement

FINITE = st.floats(-1e6, 1e6)


def measured(value, interval):
    return Measurement(value=value, interval=interval, n=12, null=None, unit="nats", operator="made up")


@given(FINITE, st.sampled_from("< <= > >=".split()), FINITE)
def test_a_figure_is_held_against_its_threshold_as_written(value, comparison, threshold):
    expected = eval(f"{value!r} {comparison} {threshold!r}")
    assert Check.of("x", value, comparison, threshold).met is expected


@pytest.mark.parametrize("value", [None, math.nan])
@pytest.mark.parametrize("comparison", ["<", "<=", ">", ">="])
def test_what_was_not_measured_is_never_met(value, comparison):
    assert Check.of("x", value, comparison, 0).met is None


@given(FINITE, FINITE, FINITE)
def test_both_ends_of_an_interval_must_agree(first, second, threshold):
    low, high = sorted((first, second))
    met = Check.of("x", measured(low, (low, high)), "<=", threshold).met
    assert met is (True if high <= threshold else False if low > threshold else None)


def test_infinity_is_a_figure_and_a_scalar_of_numpy_becomes_one():
    assert Check.of("x", math.inf, ">", 1).met is True and Check.of("x", math.inf, "<=", 1).met is False
    check = Check.of("x", np.float32(0.5), "<", 1)
    assert type(check.measured) is float and check.met is True


def test_a_measurement_brings_its_interval_its_count_and_its_unit():
    check = Check.of("drop", measured(0.5, (0.4, 0.6)), ">", 0)
    assert check.sentence == "drop: 0.5 nats [0.4, 0.6] (n = 12) > 0" and repr(check).startswith("✓")


def test_a_check_says_what_was_found_and_what_was_wanted():
    assert Check.of("loss", 1.25, "<=", 1).summary() == "✗ loss: 1.25, which is not <= 1"
    assert Check.of("loss", None, "<=", 1).summary() == "– loss: not measured; needed is a figure <= 1"
    assert "undecided against > 0" in Check.of("drop", measured(0.1, (-0.1, 0.3)), ">", 0).summary()
    assert Check.of("loss", 0.9, ">", 1, decides="refuted").summary().startswith("○")
    assert Check.of("loss", 1.1, ">", 1, decides="refuted").summary().startswith("✗")


@pytest.mark.parametrize("value", [None, 0.5, math.inf, measured(0.5, None), measured(0.5, (0.4, 0.6))])
def test_a_check_goes_through_json(value):
    check = Check.of("x", value, "<", 1, part="fit", decides="holds")
    assert Check.from_json(check.to_json()) == check


def test_a_name_cannot_steer_the_terminal():
    assert "\x1b" not in str(Check.of("a\x1b[2J", 1, "<", 2))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"comparison": "=="}, "the comparison '=='; allowed are <, <=, >, >="),
        ({"decides": "maybe"}, "the use 'maybe'; allowed are machinery, evidence, holds, refuted, construction"),
        ({"threshold": math.inf}, "the threshold inf; allowed is any finite number"),
    ],
)
def test_what_no_check_can_be_made_of_is_a_sentence(changes, sentence):
    given = {"comparison": "<", "threshold": 1.0, "decides": "machinery"} | changes
    with pytest.raises(InputError, match=sentence):
        Check.of("x", 1.0, given["comparison"], given["threshold"], decides=given["decides"])


def test_every_comparison_is_the_operator_of_its_sign():
    from geonb.claims.checks import COMPARISONS

    assert COMPARISONS == {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@pytest.mark.parametrize("threshold", [0.4, 0.6])
def test_an_undecided_check_says_how_many_units_would_decide_it(threshold):
    # half-width 0.2 at n = 25 falls to the distance 0.1 at four times as many
    wide = Measurement(value=0.5, interval=(0.3, 0.7), n=25, null=None, unit="", operator="mean")
    check = Check.of("r", wide, ">", threshold)
    assert check.met is None and check.n_needed in (100, 101)  # round-off
    assert check.sentence.endswith(f"undecided against > {threshold}; at this spread n = {check.n_needed} would decide")


def test_no_number_of_units_is_promised_where_none_follows():
    on_it = Measurement(value=0.5, interval=(0.3, 0.7), n=25, null=None, unit="", operator="mean")
    assert Check.of("r", on_it, ">", 0.5).n_needed is None
    assert Check.of("r", on_it, ">", 0.1).n_needed is None  # decided
    assert Check.of("r", 0.5, ">", 0.1).n_needed is None  # no interval
