"""Forms of the step beside the default: which are asked where, and the rule's verdict on fit and forgetting."""

import math

import pytest
from scipy import stats

from geonb.workbench.benchmark.arm import DEFAULT
from geonb.workbench.benchmark.design import LONG, QUICK, SEEDS, SHORT, Cell, forms, growing
from geonb.workbench.benchmark.forms import GROWING, FormResult, form_results, forms_at, growing_radius
from tests.workbench.benchmark.small import row_of

CELLS = [Cell("m", "chat", 60), Cell("m", "chat", 200, 4)]
FORM = "measured memory"
NOISE = (0.001, -0.002, 0.001)


def judged(losses, rises, form=FORM, seeds=SEEDS):
    """The verdict on a form whose ln ratios lie around `losses` and `rises`, in two cells of three seeds."""
    done = {}
    for cell in CELLS:
        arm = forms_at(cell.horizon).get(form)
        for seed in SEEDS:
            rows = [row_of(cell.job(DEFAULT, seed), 2.0, retention=3.5)]
            if arm is not None:
                loss = None if losses is None else 2.0 * math.exp(losses + NOISE[seed])
                rows.append(
                    row_of(cell.job(arm, seed), loss, retention=3.0 + 0.5 * math.exp((rises or 0.0) + NOISE[seed]))
                )
            done |= {row.key: row for row in rows}
    return next(one for one in form_results(done, [cell.job(DEFAULT) for cell in CELLS], seeds) if one.form == form)


@pytest.mark.parametrize(
    ("losses", "rises", "verdict"),
    [
        (0.0, -0.3, "better"),  # forgets less and fits as well
        (-0.05, 0.0, "better"),  # fits better and forgets as much
        (-0.05, -0.3, "better"),
        (0.005, -0.3, "better"),  # within the hundredth that it may lose
        (0.05, -0.3, "another point of the dial"),
        (-0.05, 0.3, "another point of the dial"),
        (0.05, 0.3, "worse"),
        (0.0, 0.3, "worse"),
        (0.0, 0.0, "no effect seen"),
    ],
)
def test_the_verdict_is_that_of_the_rule(losses, rises, verdict):
    assert judged(losses, rises).verdict == verdict


def test_the_intervals_are_students_over_all_pairs():
    found = judged(-0.1, 0.2)
    values = [-0.1 + noise for noise in NOISE] * 2
    low, high = stats.t.interval(0.95, 5, loc=sum(values) / 6, scale=stats.sem(values))
    assert found.pairs == 6
    assert (found.loss - found.loss_half_width, found.loss + found.loss_half_width) == pytest.approx((low, high))
    assert found.rise == pytest.approx(0.2) and found.rise_half_width == pytest.approx((high - low) / 2)
    assert FormResult.from_json(found.to_json()) == found


def test_a_form_that_diverged_or_lacks_a_pair_has_no_verdict():
    assert judged(None, None).verdict == "diverged"
    missing = form_results({}, [cell.job(DEFAULT) for cell in CELLS], SEEDS)
    assert {one.verdict for one in missing} == {"waiting"} and {one.pairs for one in missing} == {0}
    # the same pairs, of three seeds where five were asked for
    five = judged(-0.05, -0.3, seeds=range(5))
    assert (five.pairs, five.asked, five.verdict) == (6, 10, "waiting")


def test_the_radius_that_grows_is_another_form_only_where_it_differs():
    name = GROWING
    assert name not in forms_at(200) and growing_radius(200) == DEFAULT
    assert forms_at(60)[name].budget == pytest.approx(3 * math.sqrt(0.3), abs=5e-4)
    assert judged(-0.05, 0.0, name).pairs == 3


def test_the_stage_asks_the_default_and_every_form_at_every_seed():
    cell = QUICK[0]
    asked = {(job.seed, job.arm) for job in forms(cell, {})}
    assert asked == {(seed, arm) for seed in SEEDS for arm in (DEFAULT, *forms_at(cell.horizon).values())}
    assert len({arm.key for arm in forms_at(60).values()}) == len(forms_at(60)) == 9


def test_the_radius_that_grows_is_asked_where_it_is_another_one_and_never_on_the_blind_domains():
    cells = (*SHORT, *LONG)
    assert {cell.horizon for cell in SHORT} == {60} and {cell.horizon for cell in LONG} == {800, 2000}
    assert not {cell.domain for cell in cells} & {"modules", "names"}
    for cell in cells:
        asked = {(job.seed, job.arm) for job in growing(cell, {})}
        assert asked == {(seed, arm) for seed in SEEDS for arm in (DEFAULT, growing_radius(cell.horizon))}
        # what a first step loses to the steps after it is the same at every horizon: sigma_k sqrt(T) / (2 R)
        kept = math.sqrt(cell.horizon) / (2 * growing_radius(cell.horizon).budget)
        assert kept == pytest.approx(math.sqrt(200) / 6, rel=1e-3)


def test_one_form_may_be_judged_by_itself():
    cell = CELLS[0]
    done = {}
    for seed in SEEDS:
        made = [row_of(cell.job(DEFAULT, seed), 2.0), row_of(cell.job(growing_radius(60), seed), 1.0 + NOISE[seed])]
        done |= {row.key: row for row in made}
    (found,) = form_results(done, [cell.job(DEFAULT)], SEEDS, lambda horizon: {GROWING: growing_radius(horizon)})
    assert (found.form, found.pairs, found.asked) == (GROWING, 3, 3)
    assert found.loss == pytest.approx(-math.log(2), abs=1e-3)
