"""The pictures of claims put every number where it belongs, keep every word inside, and survive every number."""

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.widgets import claim_picture as pictures
from geonb.widgets.claim_text import figure, text_width, wrapped
from geonb.widgets.svg import PALETTE
from tests.tiny import pictures as still_pictures

SVG = "{http://www.w3.org/2000/svg}"
EVIL = '<script>alert(1)</script>"\x00&'
anything = st.floats(width=64) | st.sampled_from([0.0, 1e-300, 1e300, -1e300, math.inf, -math.inf, math.nan])


def measured(value, low=None, high=None, *, n=30, null=None, unit="CKA"):
    interval = None if low is None else (low, high)
    return Measurement(value=value, interval=interval, n=n, null=null, unit=unit, operator="test")


def marks(svg, kind):
    return list(ET.fromstring(svg).iter(f"{SVG}{kind}"))


def texts(svg):
    return [one.text or "" for one in marks(svg, "text")]


def at_of(svg, wanted):
    """Where the text `wanted` stands."""
    (found,) = [one for one in marks(svg, "text") if one.text == wanted]
    return float(found.get("x")), float(found.get("y"))


def reads_across(svg, low, high):
    """A function from data to pixels, from two tick texts of a horizontal axis alone."""
    first, second = at_of(svg, low)[0], at_of(svg, high)[0]
    return lambda value: first + (value - float(low)) / (float(high) - float(low)) * (second - first)


def dots(svg, colour, hollow=False):
    circles = [one for one in marks(svg, "circle") if one.get("stroke") == colour]
    return [float(one.get("cx")) for one in circles if (one.get("fill") == "none") == hollow]


def is_drawn(svg, width):
    """Well-formed, without a number that is none, and with all its words inside."""
    assert not re.search(r'"[^"]*\b(nan|inf)\b[^"]*"', re.sub(r"<text.*?</text>|<title>.*?</title>", "", svg))
    for one in marks(svg, "text"):
        if one.get("transform"):
            continue
        x, wide = float(one.get("x")), text_width(one.text or "") * 0.95
        left = {"start": x, "middle": x - wide / 2, "end": x - wide}[one.get("text-anchor")]
        assert -1 <= left and left + wide <= width + 1, one.text
    return True


EVERY = {
    "interval": lambda v, name: pictures.interval_picture([(name, measured(v, v, v, null=v))], unit=name, title=name),
    "curve": lambda v, name: pictures.curve_picture(
        [(name, [0, 1, v], [v, 1, 2], ([v, 0, 0], [1, v, 3]))], x_title=name, y_title=name, title=name
    ),
    "log curve": lambda v, name: pictures.curve_picture(
        [(name, [1, 2, v], [v, 1, 2])], x_title=name, y_title=name, log_x=True, log_y=True
    ),
    "scatter": lambda v, name: pictures.scatter_picture(
        {name: ([0, 1, v], [v, 1, 2])}, x_title=name, y_title=name, fit=True, correlation=name, diagonal=True
    ),
    "histogram": lambda v, name: pictures.histogram_picture([0, 1, v], [(name, 0.5)], x_title=name, null=name),
    "bars": lambda v, name: pictures.bar_picture(
        {name: {"a": measured(v, v, v, null=v), name: 2.0}}, y_title=name, threshold=1
    ),
    "heat": lambda v, name: pictures.heat_picture(
        [[v, 1], [0, 2]], [name, "b"], [name, "d"], unit=name, x_title=name[:20]
    ),
    "signed heat": lambda v, name: pictures.heat_picture([[v, 1.0]], [name], ["c", "d"], unit=name, centre=0),
}


# -- any number, any name ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EVERY)
@given(value=anything)
@settings(max_examples=60, deadline=None)
def test_every_number_gives_a_whole_picture(kind, value):
    assert is_drawn(EVERY[kind](value, "name"), 760)


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("name", ["w" * 300, "many words " * 40, "", "模型 " * 60, EVIL])
def test_every_name_stays_inside_and_stays_text(kind, name):
    svg = EVERY[kind](3.0, name)
    assert is_drawn(svg, 760) and "<script" not in svg
    assert still_pictures(pictures.show(svg, "a picture").data)


# -- intervals --------------------------------------------------------------------------------------------------------


def test_a_measurement_is_a_dot_an_interval_and_a_ring_at_their_numbers():
    svg = pictures.interval_picture([("a", measured(0.6, 0.2, 0.8, null=0.4))], null="rows shuffled", limits=(0, 1))
    at = reads_across(svg, "0.0", "1.0")
    assert dots(svg, PALETTE["blue"]) == pytest.approx([at(0.6)], abs=0.1)
    assert dots(svg, PALETTE["grey"], hollow=True)[1:] == pytest.approx([at(0.4)], abs=0.1), "the first is the legend's"
    (ends,) = [one.get("d") for one in marks(svg, "path") if one.get("stroke") == PALETTE["blue"]]
    found = re.fullmatch(r"M(\S+) \S+L(\S+) \S+", ends)
    assert [float(found[1]), float(found[2])] == pytest.approx([at(0.2), at(0.8)], abs=0.1)
    assert "rows shuffled" in texts(svg) and "0.60 [0.20, 0.80] n = 30" in " ".join(" ".join(texts(svg)).split())


def test_the_threshold_is_a_dashed_line_with_the_words_of_its_sides():
    svg = pictures.interval_picture(
        [("a", measured(0.6))], threshold=0.5, sides=("refuted", "holds"), limits=(0, 1), unit="CKA"
    )
    at = reads_across(svg, "0.0", "1.0")
    (line,) = [one for one in marks(svg, "path") if one.get("stroke-dasharray")]
    assert float(re.match(r"M(\S+) ", line.get("d"))[1]) == pytest.approx(at(0.5), abs=0.1)
    assert at_of(svg, "← refuted")[0] < at(0.5) < at_of(svg, "holds →")[0]
    assert "threshold 0.5" in texts(svg) and "CKA" in texts(svg)


def test_words_that_do_not_fit_beside_the_threshold_stand_above_it():
    svg = pictures.interval_picture([("a", measured(0.9, 0.8, 1.0))], threshold=1, sides=("x " * 40, "y " * 40))
    left, right = (next(one for one in marks(svg, "text") if sign in (one.text or "")) for sign in "←→")
    assert float(left.get("y")) < float(right.get("y")) and is_drawn(svg, 760)


def test_headings_and_rows_that_were_not_measured_have_no_dot():
    svg = pictures.interval_picture(["Held out", ("a", measured(0.6)), ("b", None), ("c", measured(math.nan))])
    assert len(marks(svg, "circle")) == 1 and texts(svg).count("not measured") == 2 and "Held out" in texts(svg)


def test_a_heading_is_wrapped_beside_the_plot_and_never_crosses_its_lines():
    heading = "a heading of many words that would reach far into the plot"
    svg = pictures.interval_picture([heading, ("a", measured(0.6))], threshold=0.1, limits=(0, 1))
    start = reads_across(svg, "0.0", "1.0")(0)
    lines = [one for one in marks(svg, "text") if one.get("class") == "t"]
    assert " ".join(one.text for one in lines) == heading
    assert all(float(one.get("x")) + text_width(one.text, bold=True) <= start for one in lines)


def test_nulls_of_several_kinds_are_named_row_by_row():
    svg = pictures.interval_picture([("a", measured(1, null=0.0), "shuffled"), ("b", measured(1, null=0.0), "twin")])
    assert {"a (○ shuffled)", "b (○ twin)"} <= set(texts(svg))


def test_what_lies_outside_the_limits_is_an_arrow_at_the_edge():
    inside = pictures.interval_picture([("a", measured(2))], limits=(1, 3))
    outside = pictures.interval_picture([("a", measured(9))], limits=(1, 3))
    assert len(marks(inside, "circle")) == 1 and not marks(outside, "circle")
    assert [one for one in marks(outside, "path") if one.get("fill") == PALETTE["blue"]]


@pytest.mark.parametrize(
    ("rows", "more", "sentence"),
    [
        ([], {}, "given no measurement"),
        ([("a", None)], {}, "given no measurement"),
        ([("a", 0.5)], {}, r"allowed are \(label, Measurement\)"),
        ([("a", measured(1), "b", "c")], {}, r"allowed are \(label, Measurement\)"),
        ([(1, measured(1))], {}, r"allowed are \(label, Measurement\)"),
        ([("a", measured(1))], {"threshold": math.nan}, "allowed is any finite number"),
        ([("a", measured(1))], {"limits": (2, 1)}, "two growing numbers"),
        ([("a", measured(1))], {"limits": (0, 1), "log": True}, "positive on a log scale"),
        ([("a", measured(1))], {"width": 100}, "allowed are 240 pixels and more"),
    ],
)
def test_intervals_of_nothing_are_refused(rows, more, sentence):
    with pytest.raises(InputError, match=sentence):
        pictures.interval_picture(rows, **more)


# -- curves and points ------------------------------------------------------------------------------------------------


def curve(*curves, **more):
    return pictures.curve_picture(curves, x_title="layer", y_title="TwoNN", **more)


def test_a_curve_goes_through_its_points_and_is_named_at_its_end():
    svg = curve(("trained", [0, 1, 2], [0, 4, 10]), x_limits=(0, 2), y_limits=(0, 10))
    across = reads_across(svg, "0.0", "2.0")
    (path,) = [
        one.get("d") for one in marks(svg, "path") if one.get("stroke-width") == "2" and "h0" not in one.get("d")
    ]
    found = [tuple(map(float, pair)) for pair in re.findall(r"([\d.]+) ([\d.]+)", path)]
    assert [x for x, _ in found] == pytest.approx([across(0), across(1), across(2)], abs=0.1)
    heights = [at_of(svg, text)[1] - 4 for text in ("0", "10")]
    assert [y for _, y in found] == pytest.approx(np.interp([0, 4, 10], [0, 10], heights), abs=0.1)
    assert at_of(svg, "trained")[0] > across(2) and abs(at_of(svg, "trained")[1] - 4 - heights[1]) < 8


def test_what_is_not_finite_or_not_positive_on_a_log_axis_breaks_the_curve():
    svg = curve(("a", [1, 2, 3, 4, 5], [1, 2, math.nan, 0, 5]), log_y=True)
    (path,) = [one.get("d") for one in marks(svg, "path") if one.get("stroke-width") == "2"]
    assert path.count("M") == 2 and path.count("L") == 1


def test_names_at_the_ends_do_not_lie_on_each_other():
    svg = curve(*((f"curve {n}", [0, 1], [0, 1 + n / 1000]) for n in range(9)))
    heights = sorted(at_of(svg, f"curve {n}")[1] for n in range(9))
    assert min(np.diff(heights)) >= 13


def test_marked_lines_stand_at_their_values_and_their_names_apart():
    svg = curve(
        ("a", [0, 10], [0, 1]), x_limits=(0, 10),
        marks=[("x", 5.0, "first long name"), ("x", 5.1, "second long name"), ("x", 9.9, "third"), ("y", 0.5, "level")],
    )  # fmt: skip
    across = reads_across(svg, "0", "10")
    dashed = [one.get("d") for one in marks(svg, "path") if one.get("stroke-dasharray") == "5 3"]
    upright = [re.fullmatch(r"M(\S+) (\S+)L(\S+) (\S+)", one) for one in dashed]
    assert sorted(float(one[1]) for one in upright if one[1] == one[3]) == pytest.approx(
        [across(5), across(5.1), across(9.9)], abs=0.1
    )
    assert at_of(svg, "first long name")[1] < at_of(svg, "second long name")[1] - 12 and "level" in texts(svg)


def test_a_null_curve_is_grey_and_dashed():
    svg = curve(("a", [0, 1], [0, 1]), ("twin", [0, 1], [1, 1]), nulls=["twin"])
    (found,) = [one for one in marks(svg, "path") if one.get("stroke-dasharray") == "6 3"]
    assert found.get("stroke") == PALETTE["grey"]


def test_a_band_is_as_wide_as_it_was_given():
    svg = curve(("a", [0, 1], [5, 5], ([2, 2], [8, 8])), y_limits=(0, 10), x_limits=(0, 1))
    (band,) = [one.get("d") for one in marks(svg, "path") if one.get("fill-opacity") == "0.18"]
    heights = sorted({float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", band)})
    ends = [at_of(svg, text)[1] - 4 for text in ("10", "0")]
    assert heights == pytest.approx(np.interp([2, 8], [0, 10], ends[::-1])[::-1], abs=0.1)


@pytest.mark.parametrize(
    ("curves", "more", "sentence"),
    [
        ([], {}, "allowed is at least one"),
        ([("a", [1, 2], [1])], {}, "given 2 xs and 1 other values"),
        ([("a", [1], [1], ([1],))], {}, "allowed are two"),
        ([("a", [1], ["b"])], {}, "no number"),
        ([("a", [1])], {}, "another shape"),
        ([("a", [1], [1])], {"marks": [("z", 1, "b")]}, 'allowed is \\("x" or "y"'),
        ([("a", [1], [1])], {"nulls": ["b"]}, "allowed are names of curves"),
    ],
)
def test_curves_that_cannot_be_drawn_are_refused(curves, more, sentence):
    with pytest.raises(InputError, match=sentence):
        curve(*curves, **more)


def test_the_fitted_line_is_the_least_squares_line():
    generator = np.random.default_rng(0)
    xs = generator.uniform(0, 10, 50)
    ys = 3 * xs - 4 + generator.normal(size=50)
    svg = pictures.scatter_picture({"q": (xs, ys)}, x_title="x", y_title="y", fit=True)
    (line,) = [one.get("d") for one in marks(svg, "path") if one.get("stroke") == "currentColor"]
    found = np.array([tuple(map(float, pair)) for pair in re.findall(r"([\d.]+) ([\d.]+)", line)])
    slope, offset = np.polyfit(xs, ys, 1)

    def ticks(anchor, place):
        found = [one for one in marks(svg, "text") if one.get("text-anchor") == anchor and (one.text or "").isdigit()]
        return np.polyfit(
            [float(one.get(place)) - 4 * (place == "y") for one in found], [int(one.text) for one in found], 1
        )

    at, height = np.polyval(ticks("middle", "x"), found[:, 0]), np.polyval(ticks("end", "y"), found[:, 1])
    assert height == pytest.approx(slope * at + offset, abs=0.05)


def test_points_are_all_there_and_many_are_thinned_aloud():
    few = pictures.scatter_picture(
        {"q": (range(40), range(40))}, x_title="x", y_title="y", correlation=measured(0.5, 0.4, 0.6, unit="r")
    )
    assert sum(one.get("d").count("h0") for one in marks(few, "path")) == 41, "and one in the legend"
    assert "r = 0.50 [0.40, 0.60], n = 30" in texts(few) and "q (40)" in texts(few)
    many = pictures.scatter_picture({"q": (range(4000), range(4000))}, x_title="x", y_title="y")
    assert "q (4000, one in 3 drawn)" in texts(many) and len(many) < 40_000


def test_twelve_groups_look_different():
    svg = pictures.scatter_picture({f"g{n}": ([n, n], [1, 2]) for n in range(12)}, x_title="x", y_title="y")
    drawn = [one for one in marks(svg, "path") if one.get("stroke-linecap") and one.get("d").count("M") == 2]
    shapes = [re.sub(r"M[-\d.]+ [-\d.]+", "", one.get("d")) for one in drawn]
    paints = [one.get("fill") + one.get("stroke") for one in drawn]
    assert len(drawn) == 12 == len(set(zip(shapes, paints, strict=True)))


# -- distributions, bars, heat ----------------------------------------------------------------------------------------


def test_the_p_of_a_mark_counts_the_draws_that_are_as_far_out():
    draws = np.arange(99)
    for tail, p in (("upper", 0.1), ("lower", 0.92), ("both", 0.2)):
        svg = pictures.histogram_picture(draws, [("seen", 90)], x_title="x", tail=tail)
        assert f"seen: 90, p = {p:.2g}" in texts(svg)
    svg = pictures.histogram_picture(draws, [("seen", measured(90.0), 0.004)], x_title="x")
    assert "seen: 90, p = 0.004" in texts(svg)


def test_the_bars_of_a_null_are_as_high_as_their_draws_are_many():
    svg = pictures.histogram_picture([0.0] * 30 + [1.0] * 10, [("seen", 0.5)], x_title="x", bins=2, null="null")
    heights = [float(one.get("height")) for one in marks(svg, "rect")]
    assert max(heights) / min(one for one in heights[2:]) == pytest.approx(3, rel=0.01)


@pytest.mark.parametrize(
    ("draws", "mark", "more", "sentence"),
    [
        ([1.0], ("a", 1), {}, "allowed are two and more"),
        ([1, 2], ("a", 1), {"tail": "left"}, "allowed are upper, lower, both"),
        ([1, 2], ("a",), {}, "another shape"),
        ([1, 2], ("a", math.inf), {}, "any finite number"),
        ([1, 2], ("a", 1), {"bins": 0}, "allowed are 1 to 500"),
    ],
)
def test_a_null_that_is_none_is_refused(draws, mark, more, sentence):
    with pytest.raises(InputError, match=sentence):
        pictures.histogram_picture(draws, [mark], x_title="x", **more)


def test_bars_are_as_high_as_their_numbers_from_zero():
    svg = pictures.bar_picture({"a": {"x": 2.0, "y": measured(-1, -2, 0, null=1.0)}, "b": {"x": 4.0}}, y_title="CKA")
    bars = [float(one.get("height")) for one in marks(svg, "rect") if float(one.get("width")) > 20]
    assert np.array(bars) / bars[0] == pytest.approx([1, 0.5, 2], rel=0.01)
    assert {"a", "b", "x", "y", "–"} <= set(texts(svg)) and len(marks(svg, "circle")) == 2


def test_bars_of_nothing_are_refused():
    for groups in ({}, {"a": None}, {"a": {"x": math.nan}}):
        with pytest.raises(InputError, match="no finite number"):
            pictures.bar_picture(groups, y_title="CKA")


def test_heat_has_a_cell_and_a_number_for_each_entry():
    svg = pictures.heat_picture([[0.25, 1], [math.nan, 0.5]], ["a", "b"], ["c", "d"], unit="CKA", limits=(0, 1))
    assert {"0.25", "1.00", "0.50", "–", "a", "b", "c", "d", "CKA"} <= set(texts(svg))
    cells = [one.get("fill") for one in marks(svg, "rect") if float(one.get("width")) > 40]
    assert len(cells) == 3 and cells[1] == "#00224e", "the largest is the darkest"


def test_two_sided_heat_is_white_at_its_centre():
    svg = pictures.heat_picture([[-1.0, 0.0, 1.0]], ["a"], ["b", "c", "d"], unit="r", centre=0)
    low, middle, high = [one.get("fill") for one in marks(svg, "rect") if float(one.get("width")) > 40]
    assert (low, middle, high) == ("#be5500", "#ffffff", "#005aa0")


def test_heat_of_another_shape_is_refused():
    with pytest.raises(InputError, match="allowed are equal numbers"):
        pictures.heat_picture([[1, 2]], ["a"], ["b"], unit="CKA")
    with pytest.raises(InputError, match="too many"):
        pictures.heat_picture([[1] * 900], ["a"], ["b"] * 900, unit="CKA")


# -- text ------------------------------------------------------------------------------------------------------------


def test_figures_have_the_decimals_that_their_interval_is_worth():
    assert figure(0.98765, (0.97, 0.99)) == "0.988 [0.970, 0.990]"
    assert figure(123.4, (100, 140)) == "123 [100, 140]"
    assert figure(1e-9, (0, 2e-9)) == "1e-09 [0, 2e-09]"
    assert figure(0.5) == "0.5"


@given(st.text(max_size=200), st.integers(30, 300))
def test_wrapped_lines_fit(text, pixels):
    lines = wrapped(text, pixels)
    assert len(lines) <= 3 and all(text_width(line) <= pixels for line in lines)
