"""Records read from strangers' files: another type is a sentence that names the field, never another exception."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.errors import GeonbError, InputError
from geonb.geometry.measurement import Measurement
from geonb.records import parse_json
from geonb.train.events import StopEvent, event_from_line
from geonb.train.gates import Verification

GOOD = {"value": 0.5, "interval": [0.4, 0.6], "n": 30, "null": None, "unit": "nats", "operator": "mean"}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("value", "x", "a number"), ("value", True, "a number"), ("value", [1], "a number"), ("value", 10**400, "a number"),
        ("interval", 3, "a list"), ("interval", [1, 2, 3], "a list of 2"), ("n", 1.5, "a whole number"),
        ("n", "3", "a whole number"), ("unit", None, "a text"), ("operator", {}, "a text"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_named_with_its_field(field, value, allowed):
    with pytest.raises(InputError, match=rf"Measurement has .* in the field '{field}'; allowed is {allowed}"):
        Measurement.from_dict({**GOOD, field: value})


@given(st.sampled_from(sorted(GOOD)), ANYTHING)
def test_any_value_in_any_field_gives_a_record_that_shows_itself_or_a_sentence(field, value):
    try:
        found = Measurement.from_dict({**GOOD, field: value})
    except InputError:
        return
    assert found.to_text() and Measurement.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    "text", [b"", b"\xff", b"[" * 100_000, b"9" * 5000, b"null", b"[]", b'{"verdict": 3}', b'{"verdict": {}}']
)
def test_what_is_no_json_of_a_record_is_a_sentence(text):
    with pytest.raises(InputError):
        Verification.from_json(text)


@given(ANYTHING | st.dictionaries(st.sampled_from(["kind", "step", "loss"]), ANYTHING))
def test_a_trace_line_of_any_kind_is_an_event_or_a_sentence(data):
    try:
        event_from_line(json.dumps(data))
    except GeonbError:
        pass


def test_a_record_reads_back_what_it_wrote():
    stop = StopEvent(step=3, reason="horizon", horizon=3, because="done", best_step=2, best_loss=float("inf"))
    assert event_from_line(stop.to_json()) == stop


@pytest.mark.parametrize(
    "text", ['{"x": "\\ud800"}', b'{"x": "\xed\xa0\x80"}', '{"x": "\ud800"}', '{"\\udc00": 1}'], ids=repr
)
def test_half_a_character_is_refused_however_it_is_written(text):
    with pytest.raises(InputError, match=r"half a character|is not JSON that is read"):
        parse_json(text, "the file")


@pytest.mark.parametrize(
    "text", ['"\\ud83d\\ude00"', '"\U0001f600"', '"\U0001f600"'.encode(), b'\xef\xbb\xbf"\\ud83d\\ude00"']
)
def test_a_whole_character_is_read_however_it_is_written(text):
    assert parse_json(text, "the file") == "\U0001f600"
