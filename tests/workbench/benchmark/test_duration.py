"""How long what is missing takes: steps and what is around them, from rows that are alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.workbench.benchmark.arm import OPEN, STRICT, THREE, adamw
from geonb.workbench.benchmark.design import Cell
from geonb.workbench.benchmark.duration import duration, expected_seconds
from geonb.workbench.benchmark.queue import StageLeft
from tests.workbench.benchmark.small import row_of

CELL = Cell("m", "kjv")


def timed(cell, arm, seconds, step, loss=2.0):
    row = row_of(cell.job(arm), loss, seconds=seconds, seconds_per_step=step)
    return {row.key: row}


def test_a_run_is_its_steps_and_what_is_around_them():
    # 200 steps of .1 s and 30 s around, .3 s and 40 s, .2 s and 20 s
    rows = timed(CELL, OPEN, 50.0, 0.1) | timed(CELL, STRICT, 100.0, 0.3) | timed(CELL, THREE, 60.0, 0.2)
    same, longer = expected_seconds([CELL.job(adamw(1e-3)), Cell("m", "kjv", 800).job(OPEN)], rows)
    assert same == pytest.approx(30 + 200 * 0.2) and longer == pytest.approx(30 + 800 * 0.2)


def test_the_nearest_kind_of_run_counts_and_another_models_never_does():
    rows = timed(CELL, OPEN, 50.0, 0.1) | timed(Cell("m", "chat"), OPEN, 10.0, 0.01)
    rows |= timed(Cell("m", "kjv", batch=4), OPEN, 20.0, 0.05)
    jobs = [CELL, Cell("m", "kjv", batch=4), Cell("m", "kjv", batch=64), Cell("m", "code"), Cell("other", "kjv")]
    told = expected_seconds([cell.job(STRICT) for cell in jobs], rows)
    # its own batch; then the nearest of the domain, a step four times as long; then any domain at that batch (30 and 8 s around)
    assert told == [
        pytest.approx(50),
        pytest.approx(20),
        pytest.approx(30 + 200 * 0.4),
        pytest.approx(19 + 200 * 0.055),
        None,
    ]


def test_a_run_that_diverged_tells_no_time():
    assert expected_seconds([CELL.job(OPEN)], timed(CELL, STRICT, 3.0, 0.1, loss=None)) == [None]


@given(st.floats(1, 1e6))
def test_a_duration_is_off_by_half_a_minute_or_a_twentieth_of_an_hour(seconds):
    number, unit = duration(seconds).split()
    said = float(number) * {"min": 60, "h": 3600}[unit]
    # rounded to the minute, to a tenth of an hour from 100 minutes on; never to nothing
    assert abs(said - seconds) <= (180 if unit == "h" else 30) + 1e-6 or (said == 60 and seconds < 60)


def test_a_stage_says_what_is_known_of_its_time():
    made = (
        StageLeft(name="x", missing=n, seconds=s, untimed=u)
        for n, s, u in ((0, 0, 0), (4, 600, 0), (4, 600, 1), (4, 0, 4))
    )
    assert [one.time() for one in made] == ["", "about 10 min", "more than 10 min", "of unknown length"]
