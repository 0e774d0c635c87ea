"""What is packed arrives: the same numbers, at places a typed array can start from, and text as it was."""

import json
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from geonb.widgets.packing import pack, unpack

_LETTER = {"float32": "f", "uint8": "B", "int32": "i"}
_DTYPES = ("float32", "uint8", "int32")
_column = st.sampled_from(_DTYPES).flatmap(lambda kind: arrays.arrays(kind, st.integers(0, 9)))
_columns = st.dictionaries(st.text(max_size=6), _column, max_size=5)
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def read_as_the_page_does(block: bytes):
    """An independent reader: struct and json alone, with the alignment that a typed array insists on."""
    (length,) = struct.unpack_from("<I", block)
    header = json.loads(block[4 : 4 + length].decode("ascii"))
    found, end = {}, 4 + length
    for column in header["columns"]:
        start = 4 + length + column["offset"]
        assert start % 4 == 0 and start >= end, "a column starts off its boundary, or inside the one before it"
        layout = f"<{column['length']}{_LETTER[column['kind']]}"
        found[column["name"]] = struct.unpack_from(layout, block, start)
        end = start + struct.calcsize(layout)
    assert end <= len(block) and len(block) % 4 == 0
    return found, header["meta"]


@given(_columns)
def test_every_column_comes_back_bit_by_bit_in_its_own_kind(columns):
    found, _ = unpack(pack(columns))
    assert list(found) == list(columns)
    for name, values in columns.items():
        assert found[name].dtype == values.dtype
        assert found[name].tobytes() == values.tobytes()


@given(_columns)
def test_a_reader_that_knows_only_the_layout_finds_the_same_numbers(columns):
    found, _ = read_as_the_page_does(pack(columns))
    for name, values in columns.items():
        np.testing.assert_array_equal(np.array(found[name], dtype=values.dtype), values)


@given(st.lists(st.floats(width=32), max_size=9))
def test_float64_is_narrowed_to_float32_and_nan_and_infinity_stay_what_they_are(values):
    found = unpack(pack({"x": np.array(values, dtype=np.float64)}))[0]["x"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array(values, dtype=np.float64))


def test_a_number_too_large_for_float32_arrives_as_infinity_without_a_warning():
    assert unpack(pack({"x": np.array([1e300, -1e300, 1.0])}))[0]["x"].tolist() == [math.inf, -math.inf, 1.0]


@pytest.mark.parametrize("odd", [1, 2, 3, 5, 6, 7])
def test_a_column_of_odd_bytes_does_not_shift_the_one_behind_it(odd):
    block = pack({"bytes": np.arange(odd, dtype=np.uint8), "after": np.array([1.5, -2.5], dtype=np.float32)})
    found, _ = read_as_the_page_does(block)
    assert found == {"bytes": tuple(range(odd)), "after": (1.5, -2.5)}


def test_nothing_at_all_and_columns_without_rows_are_blocks_too():
    assert unpack(pack({})) == ({}, {})
    found, meta = read_as_the_page_does(pack({"a": np.zeros(0), "b": np.zeros(0, dtype=np.uint8)}, n=0))
    assert found == {"a": (), "b": ()} and meta == {"n": 0}


@pytest.mark.parametrize("kind", [">f4", ">i4", "<f4"])
def test_the_bytes_are_little_endian_whatever_the_machine_or_the_array(kind):
    found, _ = read_as_the_page_does(pack({"x": np.array([1, 2, 70000], dtype=kind)}))
    assert found["x"] == (1, 2, 70000)


@pytest.mark.parametrize("values", [np.array([True, False]), np.array([1, 2], dtype=np.int64), np.float16([0.5, 2])])
def test_any_other_kind_travels_as_float32(values):
    found = unpack(pack({"x": values}))[0]["x"]
    assert found.dtype == np.float32 and found.tolist() == values.astype(float).tolist()


def test_slices_and_tables_are_packed_row_by_row_whatever_their_layout_in_memory():
    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    found, _ = read_as_the_page_does(pack({"every other": table[0, ::2], "turned": table.T}))
    assert found["every other"] == (0, 2)
    assert found["turned"] == (0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11)


@given(_json)
def test_the_meta_comes_back_as_it_was(value):
    assert unpack(pack({}, value=value))[1] == {"value": value}


@pytest.mark.parametrize(
    "text",
    [
        "</script><img src=x onerror=alert(1)>", '"}],"columns":[]}', "\0\x01\x1b[31m", "\u2028\u2029", "ünï ∂ 🙂",
        "\ud800", "a" * 10_001,
    ],
)  # fmt: skip
def test_hostile_text_is_carried_and_moves_nothing(text):
    block = pack({text: np.array([1, 2, 3], dtype=np.uint8), "x": np.array([0.25])}, name=text)
    for found, meta in (unpack(block), read_as_the_page_does(block)):
        assert meta == {"name": text}
        assert list(found[text]) == [1, 2, 3] and list(found["x"]) == [0.25]


def test_what_json_cannot_say_is_said_as_text():
    assert unpack(pack({}, high=math.inf, none=math.nan))[1] == {"high": "inf", "none": "nan"}
