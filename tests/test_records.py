"""Records: equal by content, JSON there and back, atomic files, escaped display."""

import dataclasses
import math

import numpy as np
import pytest

from geonb.errors import InputError
from geonb.records import Record, atomic_write


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inner(Record):
    name: str
    value: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outer(Record):
    inner: tuple[Inner, ...]
    pair: tuple[float, float]
    table: dict[str, Inner]
    array: np.ndarray
    worst: float


@pytest.fixture
def record():
    inner = Inner(name="<b>", value=1.5)
    return Outer(inner=(inner, inner), pair=(1.0, 2.0), table={"a": inner}, array=np.array([1.0, 2.0]), worst=math.inf)


def test_json_there_and_back(record, tmp_path):
    assert Outer.from_json(record.to_json()) == record
    assert Outer.load(record.save(tmp_path / "r.json")) == record
    assert hash(Outer.from_json(record.to_json())) == hash(record)
    assert record != Outer.from_dict({**record.to_dict(), "worst": 1.0})
    nan = dataclasses.replace(record, worst=math.nan)
    assert math.isnan(Outer.from_json(nan.to_json()).worst)


def test_unknown_and_missing_fields_are_named():
    with pytest.raises(InputError, match="unknown field 'colour'; allowed are name, value"):
        Inner.from_dict({"name": "x", "colour": 1})
    with pytest.raises(InputError, match="needs the field 'name'"):
        Inner.from_dict({})
    with pytest.raises(InputError, match="not JSON"):
        Inner.from_json("{")
    with pytest.raises(InputError, match="one JSON object"):
        Inner.from_json("[]")
    with pytest.raises(InputError, match="is not a file"):
        Inner.load("/no/such/record")


def test_a_record_is_frozen_and_shows_itself_without_addresses(record):
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.worst = 2.0  # type: ignore[misc]
    assert repr(record.inner[0]) == "Inner(name='<b>', value=1.5)"
    bundle = record.inner[0]._repr_mimebundle_()
    assert "&lt;b&gt;" in bundle["text/html"] and "<b>" not in bundle["text/html"]
    assert bundle["application/vnd.geonb.inner.v1+json"] == {"name": "<b>", "value": 1.5}


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = atomic_write(tmp_path / "file", "old")

    def fail(descriptor):
        raise OSError("full")

    monkeypatch.setattr("geonb.records.os.fsync", fail)
    with pytest.raises(OSError, match="full"):
        atomic_write(path, "new")
    assert path.read_text() == "old" and [item.name for item in tmp_path.iterdir()] == ["file"]
