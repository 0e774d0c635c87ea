"""A form beside the product at equal forgetting: the loss of the dial there, and the rule's verdict."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.workbench.benchmark.arm import DEFAULT, OPEN, STRICT
from geonb.workbench.benchmark.design import DIALLED, SEEDS, Cell, dial
from geonb.workbench.benchmark.dial import DIAL, FORMS, DialResult, at_equal_rise, beside_scaled, dial_results
from tests.workbench.benchmark.small import row_of

CELLS = [Cell("m", name) for name in ("arithmetic", "chat", "kjv")]
FORM = "tail to tail, R = 3 sigma_k"
NOISE = (0.001, -0.002, 0.001)
BASE = 3.0  # loss of the untouched model on base text, as in `row_of`


def row(cell, arm, loss, rise, seed=0):
    return row_of(cell.job(arm, seed), loss, retention=BASE + rise)


RISES = (0.2, 0.5, 1.0, 1.6)
POINTS = [(rise, rise**-0.1) for rise in RISES]


def points(cell, seed=0):
    """The dial: the loss falls like rise^-0.1."""
    return [row(cell, arm, loss, rise, seed) for arm, (rise, loss) in zip(DIAL, POINTS, strict=True)]


def judged(shift, rise=0.7, cells=CELLS, without=()):
    """The verdict on a form whose loss is exp(shift) of the dial's at its rise."""
    done = {}
    for cell in cells:
        for seed in SEEDS:
            loss = None if shift is None else rise**-0.1 * math.exp(shift + NOISE[seed])
            made = [*points(cell, seed), row(cell, FORMS[FORM], loss, rise, seed)]
            done |= {one.key: one for one in made if (cell.domain, seed) not in without}
    return next(one for one in dial_results(done, [cell.job(OPEN) for cell in CELLS], SEEDS) if one.form == FORM)


@given(st.floats(0.21, 1.59), st.floats(-0.3, 0.3))
def test_at_equal_rise_a_loss_is_compared_with_the_line_between_the_dials_points(rise, shift):
    form = row(CELLS[0], FORMS[FORM], rise**-0.1 * math.exp(shift), rise)
    # a power law is a line in logarithms, wherever its points are
    assert at_equal_rise(form, POINTS) == pytest.approx(shift, abs=1e-9)


def test_an_adapter_scaled_after_training_is_compared_where_it_forgets_as_much():
    cell = CELLS[0]
    larger = row_of(cell.job(OPEN), 1.2, retention=BASE + 1.0, frontier=[(0.5, 1.6, BASE + 0.25)])
    # halfway between the two in logarithms
    found = beside_scaled(row(cell, STRICT, 1.3, 0.5), larger)
    assert found == pytest.approx(math.log(math.sqrt(1.2 * 1.6) / 1.3), abs=1e-12) and found > 0
    # below its first point but the untouched model, and above its last
    assert beside_scaled(row(cell, STRICT, 1.3, 0.1), larger) is None
    assert beside_scaled(row(cell, STRICT, 1.3, 1.1), larger) is None


def test_a_rise_that_no_radius_has_is_not_compared():
    cell = CELLS[0]
    for rise in (0.1, 1.7, -0.2):
        assert at_equal_rise(row(cell, FORMS[FORM], 0.5, rise), POINTS) is None
    assert at_equal_rise(row(cell, FORMS[FORM], 0.5, 0.5), POINTS[:1]) is None
    found = judged(-0.1, rise=1.7)
    assert (found.pairs, found.beyond, found.verdict) == (0, 9, "waiting")


@pytest.mark.parametrize(
    ("shift", "verdict"), [(-0.05, "a better dial"), (0.05, "a worse dial"), (0.0, "the same dial")]
)
def test_the_verdict_is_that_of_the_rule(shift, verdict):
    found = judged(shift)
    values = np.array(NOISE * 3) + shift
    assert (found.pairs, found.beyond, found.asked, found.verdict) == (9, 0, 9, verdict)
    assert found.loss == pytest.approx(values.mean(), abs=1e-9)
    assert found.half_width == pytest.approx(2.306 * values.std(ddof=1) / 3, rel=1e-3)
    assert DialResult.from_json(found.to_json()) == found


def test_there_is_no_verdict_before_all_runs_and_none_where_one_diverged():
    assert judged(-0.05, without={("chat", 2)}).verdict == "waiting"
    assert judged(None).verdict == "diverged"
    assert {one.verdict for one in dial_results({}, [cell.job(OPEN) for cell in CELLS], SEEDS)} == {"waiting"}


def test_the_stage_asks_every_radius_and_every_form_of_every_seed():
    cell = DIALLED[0]
    asked = {(job.seed, job.arm) for job in dial(cell, {})}
    assert {DEFAULT, OPEN, STRICT} < set(DIAL) and not set(DIAL) & set(FORMS.values())
    assert asked == {(seed, arm) for seed in SEEDS for arm in (*DIAL, *FORMS.values())} and len(asked) == 3 * (
        4 + len(FORMS)
    )
