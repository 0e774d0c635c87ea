"""A trace read while it is written is the trace read at the end, whatever happens to the file in between."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.train.events import EvalEvent, LayerState, StepEvent, StopEvent, event_from_line
from geonb.widgets.decimate import extremes
from geonb.widgets.packing import unpack
from geonb.widgets.trace_columns import BINDINGS, SERIES, TraceColumns, TraceReader


def layer(over=0.75):
    return LayerState(name="ü.weight", eta_step=0.1, binding="sps", norm=0.5, budget_used=0.25, over_sigma_k=over)


def step(number, *, layers=False, **changes):
    given = {
        "loss": 3.0 - number / 100, "tokens": 9, "eta_ceiling": 2.0, "eta_sps": 1.0, "eta_weyl": 0.1 * number,
        "eta_step": 0.1, "binding": BINDINGS[number % 3], "layers": (layer(),) if layers else (), **changes,
    }  # fmt: skip
    return StepEvent(step=number, **given)


def a_run(steps=12, salt=0.0):
    yield EvalEvent(step=0, loss=3.0)
    for number in range(1, steps + 1):
        more = {"layers": (layer(salt + 0.75),)} if number % 4 == 0 else {}
        yield step(number, gap=math.inf if number == 5 else number, gradient_norm=salt + number / 7, **more)
        if number % 6 == 0:
            yield EvalEvent(step=number, loss=2.5, delta_interval=(-0.6, -0.4), topology=salt + number / 7)
    yield StopEvent(step=steps, reason="horizon", horizon=steps, because="ünd", best_step=6, best_loss=salt + 2.5)


def lines(events):
    """The bytes that `RunFolder.append` writes."""
    return [
        (json.dumps(event.to_dict(), allow_nan=False, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
        for event in events
    ]


def contents(columns):
    """Everything that a view shows of a trace, as plain lists (nan as None)."""
    plain = [[None if math.isnan(value) else value for value in row] for row in columns.series.values.tolist()]
    strip = columns.strip.values.tolist() if columns.strip is not None else None
    return (
        columns.step.values.tolist(), plain, columns.binding.values.tolist(), strip, columns.strip_step.values.tolist(),
        columns.layers, columns.layer_facts, columns.evaluations, columns.stop, columns.unit,
    )  # fmt: skip


def read_all(reader):
    while reader.read():
        pass
    return reader.columns


@pytest.fixture
def reader(tmp_path):
    return TraceReader(tmp_path / "trace.jsonl", TraceColumns())


WHOLE = b"".join(lines(a_run()))


def test_the_columns_are_the_fields_of_the_events(reader):
    reader.path.write_bytes(WHOLE)
    columns = read_all(reader)
    events = [event_from_line(line) for line in WHOLE.splitlines()]
    steps = [event for event in events if isinstance(event, StepEvent)]
    assert columns.step.values.tolist() == [event.step for event in steps] and len(columns) == 12
    for place, name in enumerate(SERIES):
        expected = [math.nan if getattr(event, name) is None else getattr(event, name) for event in steps]
        np.testing.assert_array_equal(columns.series.values[:, place], np.array(expected, dtype=np.float32))
    assert [BINDINGS[code] for code in columns.binding.values] == [event.binding for event in steps]
    assert columns.strip_step.values.tolist() == [4, 8, 12] and columns.strip.values.tolist() == [[64]] * 3
    assert columns.layers == ["ü.weight"] and columns.layer_facts == [(0.5, 0.75)]
    assert [event["step"] for event in columns.evaluations] == [0, 6, 12]
    assert columns.stop["because"] == "ünd" and columns.unit == steps[0].unit


def test_events_in_memory_and_their_lines_on_disk_give_the_same_columns(reader):
    reader.path.write_bytes(WHOLE)
    assert contents(TraceColumns(a_run())) == contents(read_all(reader))


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_a_file_that_grows_by_any_pieces_gives_the_columns_of_the_whole(tmp_path_factory, cuts):
    path = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    reader = TraceReader(path, TraceColumns())
    for end in [*sorted(cuts), len(WHOLE)]:
        path.write_bytes(WHOLE[:end])
        finished = WHOLE[:end].count(b"\n")
        columns = read_all(reader)
        shown = len(columns) + len(columns.evaluations) + (columns.stop is not None)
        assert shown == finished and reader.unreadable == 0
    assert contents(columns) == contents(TraceColumns(a_run()))


@given(st.integers(0, len(WHOLE)), st.integers(0, len(WHOLE)))
def test_a_trace_that_was_cut_and_goes_on_differently_shows_only_the_new_one(tmp_path_factory, cut, seen):
    path = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    reader = TraceReader(path, TraceColumns())
    path.write_bytes(WHOLE[:seen])
    read_all(reader)
    other = b"".join(lines(a_run(14, salt=0.5)))
    cut = WHOLE[:cut].rfind(b"\n") + 1
    path.write_bytes(WHOLE[:cut] + other)
    read_all(reader)
    fresh = read_all(TraceReader(path, TraceColumns()))
    assert contents(reader.columns) == contents(fresh)


def test_a_new_trace_whose_line_ends_as_the_old_one_did_at_the_same_byte_is_still_new(reader):
    reader.path.write_bytes(b"".join(lines([step(1, loss=2.25)])))
    read_all(reader)
    reader.path.write_bytes(b"".join(lines([step(1, loss=1.75), step(2)])))
    assert read_all(reader).series.values[0, 0] == 1.75


def test_a_last_line_that_is_still_being_written_waits_for_its_end(reader):
    first, second = lines([step(1), step(2)])
    reader.path.write_bytes(first + second[:-1])
    assert reader.read() and not reader.read() and len(reader.columns) == 1
    with reader.path.open("ab") as stream:
        stream.write(b"\n")
    assert reader.read() and len(reader.columns) == 2 and reader.unreadable == 0


@pytest.mark.parametrize(
    "damaged",
    [
        b"{", b"", b"\x00\xff\xfe", b"[1, 2]", b"null", b'"step"', b"7", b'{"kind":"step"}', b'{"kind":"step","step":"x"}',
        b'{"kind":"step","step":3,"loss":1' + b"0" * 400 + b"}", b"[" * 100_000,
    ],
    ids=lambda line: repr(line[:30]),
)  # fmt: skip
def test_a_damaged_line_is_counted_and_hides_nothing_of_the_others(reader, damaged):
    good = lines([step(1), step(2)])
    reader.path.write_bytes(good[0] + damaged + b"\n" + good[1])
    columns = read_all(reader)
    assert reader.unreadable == 1
    assert columns.step.values.tolist() == [1, 2]
    assert len(columns.series.values) == len(columns.binding.values) == 2


def test_damaged_lines_are_not_counted_twice_when_the_file_is_read_again(reader):
    good = lines(a_run())
    reader.path.write_bytes(good[0] + b"{damaged\n" + b"".join(good[1:]))
    read_all(reader)
    reader.path.write_bytes(good[0] + b"{damaged\n" + good[1])
    read_all(reader)
    assert reader.unreadable == 1


def test_a_trace_cut_back_to_nothing_is_news(reader):
    reader.path.write_bytes(WHOLE)
    read_all(reader)
    reader.path.write_bytes(b"")
    assert reader.read() is True
    assert len(reader.columns) == 0 and reader.read() is False


def test_a_deleted_file_keeps_what_was_read_and_a_new_one_replaces_it(reader):
    assert reader.read() is False, "a run that has not begun has no trace yet"
    reader.path.write_bytes(WHOLE)
    before = contents(read_all(reader))
    reader.path.unlink()
    assert reader.read() is False and contents(reader.columns) == before
    reader.path.write_bytes(b"".join(lines([step(1, loss=9.0)])))
    assert reader.read() and reader.columns.series.values[:, 0].tolist() == [9.0]


@pytest.mark.parametrize(("value", "shown"), [(math.inf, math.inf), (-math.inf, -math.inf), (math.nan, math.nan)])
def test_numbers_that_json_cannot_hold_are_read_from_their_names(reader, value, shown):
    reader.path.write_bytes(b"".join(lines([step(1, loss=value, eta_sps=value)])))
    row = dict(zip(SERIES, read_all(reader).series.values[0].tolist(), strict=True))
    np.testing.assert_equal([row["loss"], row["eta_sps"], row["gap"]], [shown, shown, math.nan])


def test_a_loss_that_left_float32_is_shown_as_infinity(reader):
    reader.path.write_bytes(b"".join(lines([step(1, loss=1e300)])))
    assert read_all(reader).series.values[0, 0] == math.inf


def test_budgets_are_kept_between_nothing_and_all_and_a_new_set_of_layers_starts_a_new_strip():
    layer = {"name": "w", "norm": 1.0, "over_sigma_k": 1.0}
    columns = TraceColumns()
    for number, used in enumerate([[-1.0], ["inf"], ["nan"], [0.5, 1.0]], start=1):
        event = {"kind": "step", "step": number, "loss": 1.0, "layers": [{**layer, "budget_used": one} for one in used]}
        columns.add(event)
        if number == 3:
            assert columns.strip.values.tolist() == [[0], [255], [0]]
    assert columns.strip.values.tolist() == [[128, 255]] and columns.strip_step.values.tolist() == [4]


def test_a_stop_is_forgotten_when_the_run_goes_on():
    columns = TraceColumns([*a_run(2), step(3)])
    assert columns.stop is None and columns.step.values.tolist() == [1, 2, 3]


def test_a_spike_of_one_step_among_a_hundred_thousand_is_among_the_points_a_view_sends(reader):
    from geonb.widgets.mass_trace import MassTrace

    plain = lines([step(1)])[0].decode().replace('"step":1,', '"step":%d,', 1).replace('"loss":2.99', '"loss":%s', 1)
    with reader.path.open("w", encoding="utf-8") as stream:
        stream.writelines(plain % (n, "1.25" if n != 54_321 else "77.5") for n in range(1, 100_001))
    columns = read_all(reader)
    assert len(columns) == 100_000 and reader.offset == reader.path.stat().st_size > 4 * 2**20
    rows, values = extremes(columns.series.values, 1400)
    assert len(rows) <= 1400 and values[:, 0].max() == 77.5
    view = MassTrace([])
    view.columns = columns
    sent, meta = unpack(view.data())
    assert len(sent["step"]) <= 1400 and meta["thinned"] and meta["total"] == 100_000
    at = sent["step"][sent["loss"] == 77.5]
    assert len(at) == 1 and abs(at[0] - 54_321) < 100_000 / 700
