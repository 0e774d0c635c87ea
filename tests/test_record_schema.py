"""A schema is what the record's types say: everything that `to_dict` writes passes, and nothing of another type does."""

import dataclasses
import json
import math
import subprocess
import sys
from typing import Any, Literal, Optional

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from geonb.errors import InputError
from geonb.record_schema import DIALECT, field_comments, record_schema
from geonb.records import Record


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Leaf(Record):
    name: str
    value: float  # in metres # per second
    note: str | None = None  # pragma: no cover


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Branch(Record):
    """A branch, and
    what hangs on it.

    >>> Branch
    """

    leaf: Leaf
    leaves: tuple[Leaf, ...]  # in order
    pair: tuple[int, float]
    grid: tuple[tuple[int, ...], ...]
    texts: list[str]
    table: dict[str, Leaf | None]
    array: np.ndarray
    free: Any
    bare: dict[str, tuple]
    old: Optional[bool]  # noqa: UP045
    mode: Literal["up", "down"]
    inner: tuple["Branch", ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Grown(Leaf):
    value: float  # in feet
    added: int = 0  # behind


def validator(*records):
    schema = record_schema(*records)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


texts = st.text(max_size=4)
floats = st.floats() | st.integers(-5, 5)
# a record counts in 64 bits
whole = st.integers(1 - 2**64, 2**64 - 1)
leaves = st.builds(Leaf, name=texts, value=floats, note=st.none() | texts)
free = st.recursive(
    st.none() | st.booleans() | st.integers() | texts | floats, lambda inner: st.lists(inner, max_size=2)
)


def branches(inner):
    return st.builds(
        Branch,
        leaf=leaves,
        leaves=st.lists(leaves, max_size=2).map(tuple),
        pair=st.tuples(whole, floats),
        grid=st.lists(st.lists(whole, max_size=2).map(tuple), max_size=2).map(tuple),
        texts=st.lists(texts, max_size=2),
        table=st.dictionaries(texts, st.none() | leaves, max_size=2),
        array=st.lists(st.floats(), max_size=3).map(np.array),
        free=free,
        bare=st.dictionaries(texts, st.lists(free, max_size=2).map(tuple), max_size=2),
        old=st.none() | st.booleans(),
        mode=st.sampled_from(["up", "down"]),
        inner=inner,
    )


records = branches(st.lists(branches(st.just(())), max_size=1).map(tuple))


@given(records)
def test_whatever_a_record_writes_passes_its_schema(record):
    document = json.loads(record.to_json())
    validator(Branch).validate(document)
    assert not validator(Leaf).is_valid(document) and validator(Leaf, Branch).is_valid(document)


def leaf_paths(document, path=()):
    """Every place of a document that holds no list or object with something in it."""
    if isinstance(document, dict | list) and document:
        for key, value in document.items() if isinstance(document, dict) else enumerate(document):
            yield from leaf_paths(value, (*path, key))
    else:
        yield path


def with_value(document, path, value):
    """A copy of `document` with another value at `path`."""
    copy = json.loads(json.dumps(document))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copy


OTHERS = [None, True, 3, 2.5, "x", "nan", [], {}, [1], {"x": 1}]


@given(records, st.data())
def test_a_value_of_another_type_is_refused_just_where_the_record_itself_refuses_it(record, data):
    document = json.loads(record.to_json())
    paths = [path for path in leaf_paths(document) if "bare" not in path]
    changed = with_value(document, data.draw(st.sampled_from(paths)), data.draw(st.sampled_from(OTHERS)))
    try:
        Branch.from_dict(changed)
        reads = True
    except InputError:
        reads = False
    assert validator(Branch).is_valid(changed) == reads


@pytest.fixture
def branch():
    leaf = Leaf(name="a", value=math.inf)
    return Branch(leaf=leaf, leaves=(leaf,), pair=(1, 2.0), grid=(), texts=[], table={"x": None}, array=np.array([math.nan]),
                  free=None, bare={}, old=None, mode="up")  # fmt: skip


def test_a_field_more_or_less_is_refused_at_every_depth(branch):
    good = branch.to_dict()
    validator(Branch).validate(good)
    for changed in (
        {**good, "colour": 1},
        {**good, "leaf": {**good["leaf"], "colour": 1}},
        {key: value for key, value in good.items() if key != "inner"},  # a default is written all the same
        {**good, "leaf": {"name": "a", "value": 1.0}},
        {**good, "pair": [1]},
        {**good, "pair": [1, 2.0, 3.0]},
        {**good, "mode": "sideways"},
        {**good, "bare": {"x": 1}},
        {**good, "leaf": {**good["leaf"], "value": "Infinity"}},
    ):
        assert not validator(Branch).is_valid(changed)


def test_a_schema_names_its_dialect_and_describes_by_docstring_and_comment():
    schema = record_schema(Branch, title="what it is")
    assert schema["$schema"] == DIALECT and schema["title"] == "what it is" and schema["$ref"] == "#/$defs/Branch"
    defined = schema["$defs"]
    assert defined["Branch"]["description"] == "A branch, and what hangs on it."
    assert defined["Branch"]["properties"]["leaves"]["description"] == "in order"
    assert "description" not in defined["Leaf"]  # the docstring that dataclass writes says nothing
    assert list(defined["Leaf"]["properties"]) == defined["Leaf"]["required"] == ["name", "value", "note"]


def test_the_comment_of_a_field_is_the_last_that_was_written_and_never_one_for_tools():
    assert field_comments(Leaf) == {"value": "in metres # per second"}
    assert field_comments(Grown) == {"value": "in feet", "added": "behind"}


def test_without_source_there_are_no_descriptions():
    namespace = {"Record": Record, "dataclass": dataclasses.dataclass, "__name__": "nowhere"}
    exec("@dataclass(frozen=True, kw_only=True)\nclass Typed(Record):\n    x: int  # never seen\n", namespace)
    assert record_schema(namespace["Typed"])["$defs"]["Typed"]["properties"] == {"x": {"type": "integer"}}


def test_records_of_one_name_stay_apart():
    def other():
        @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
        class Leaf(Record):
            colour: str

        return Leaf

    schema = record_schema(Leaf, other())
    assert len(schema["anyOf"]) == 2 and len(schema["$defs"]) == 3  # and the number
    assert Draft202012Validator(schema).is_valid({"colour": "red"})


def test_what_no_record_can_store_is_named():
    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class Raw(Record):
        content: bytes

    with pytest.raises(TypeError, match=r"Raw\.content is of the type <class 'bytes'>, which no record can store"):
        record_schema(Raw)
    with pytest.raises(InputError, match="a schema was asked of no record"):
        record_schema()


def test_every_record_of_geonb_has_a_schema():
    import importlib
    import pkgutil

    import geonb

    for module in pkgutil.walk_packages(geonb.__path__, "geonb."):
        if not module.name.startswith(("geonb.widgets", "geonb.assets.build", "geonb.magics")):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)

    def below(kind):
        for inner in kind.__subclasses__():
            yield inner
            yield from below(inner)

    found = {kind for kind in below(Record) if kind.__module__.startswith("geonb.")}
    assert len(found) > 80
    for kind in found:
        Draft202012Validator.check_schema(record_schema(kind))


def test_the_floor_of_schemas_imports_nothing_heavy():
    code = "import sys, geonb.record_schema; print(sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"'torch'", "'transformers'", "'typer'", "'jsonschema'"} & set(loaded.strip("[]\n").split(", "))
