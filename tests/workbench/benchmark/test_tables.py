"""What rows say: ratios, paired intervals, retention damage, the frontier and regret, each recomputed by hand."""

import math

import pytest
from scipy import stats

from geonb.errors import InputError
from geonb.workbench.benchmark.arm import OPEN, STRICT, Arm, adamw
from geonb.workbench.benchmark.job import Job
from geonb.workbench.benchmark.tables import ZeroKnobResults, results
from tests.workbench.benchmark.small import row_of


def job(arm, seed=0, domain="kjv"):
    return Job(model="m", domain=domain, horizon=200, batch=16, seed=seed, arm=arm)


def rows(*made):
    return {row.key: row for row in made}


LOW, MIDDLE, HIGH = (adamw(rate) for rate in (1e-3, 3e-3, 1e-2))


def bracketed(domain="kjv", losses=(3.4, 3.2, 3.3)):
    return [row_of(job(arm, domain=domain), loss) for arm, loss in zip((LOW, MIDDLE, HIGH), losses, strict=True)]


def test_the_rival_is_the_best_plain_lora_at_the_first_seed_whatever_its_others_say():
    found = results(
        rows(
            row_of(job(OPEN), 3.0),
            *bracketed(),
            row_of(job(MIDDLE, 1), 9.0),
            row_of(job(adamw(3e-3, form="pissa")), 1.0),
            row_of(job(adamw(3e-3, targets="q+v")), 1.0),
            row_of(job(Arm(method="muon", rate=1e-2)), 1.0),
            row_of(job(adamw(3e-2)), None),
        )
    )
    (cell,) = found.cells
    assert cell.rival == MIDDLE.key and cell.rival_interior and cell.seeds == 1
    assert cell.ratio == pytest.approx(3.0 / 3.2) and cell.verdict == "lower" and cell.half_width is None


def test_a_best_rate_at_the_edge_of_what_was_tried_is_said_to_be_there():
    (cell,) = results(rows(row_of(job(OPEN), 3.0), *bracketed(losses=(3.1, 3.2, 3.3)))).cells
    assert (
        not cell.rival_interior
        and "(edge)" in results(rows(row_of(job(OPEN), 3.0), *bracketed(losses=(3.1, 3.2, 3.3)))).to_text()
    )


@pytest.mark.parametrize(("shift", "verdict"), [(-0.3, "win"), (0.3, "loss"), (0.0, "tie")])
def test_with_seeds_the_difference_is_paired_and_held_against_students_interval(shift, verdict):
    theirs, noise = [3.2, 3.5, 2.9], [0.01, -0.02, 0.01]
    ours = [a + shift + b for a, b in zip(theirs, noise, strict=True)]
    (cell,) = results(
        rows(
            *bracketed(),
            *(row_of(job(OPEN, seed), loss) for seed, loss in enumerate(ours)),
            *(row_of(job(MIDDLE, seed), loss) for seed, loss in enumerate(theirs)),
        )
    ).cells
    low, high = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert cell.verdict == verdict and cell.seeds == 3
    assert cell.difference == pytest.approx((low + high) / 2) and cell.half_width == pytest.approx((high - low) / 2)


def test_seeds_of_other_data_are_no_pair():
    (cell,) = results(
        rows(
            *bracketed(),
            row_of(job(OPEN), 3.0),
            row_of(job(OPEN, 1), 3.0),
            row_of(job(MIDDLE, 1), 3.0, data_digest="other"),
        )
    ).cells
    assert cell.seeds == 1


def test_another_model_of_the_same_name_is_no_rival():
    other = [row_of(job(arm), 1.0, model_digest="retrained") for arm in (adamw(3e-4),)]
    (cell,) = results(rows(row_of(job(OPEN), 3.0), *bracketed(), *other)).cells
    assert cell.rival == MIDDLE.key
    assert results(rows(row_of(job(OPEN), 3.0, data_digest="other"), *bracketed())).cells == ()


def test_damage_is_the_rise_on_base_text_over_the_rivals():
    (cell,) = results(
        rows(row_of(job(OPEN), 3.0, retention=3.2), row_of(job(LOW), 3.3), row_of(job(MIDDLE), 3.2, retention=3.8))
    ).cells
    assert cell.damage == pytest.approx((3.2 - 3.0) / (3.8 - 3.0))
    (cell,) = results(rows(row_of(job(OPEN), 3.0), row_of(job(MIDDLE), 3.2, retention=2.9))).cells
    assert cell.damage is None, "the rival did not forget"


def test_the_frontier_is_read_at_equal_loss_on_base_text():
    rival = row_of(job(MIDDLE), 3.2, retention=4.0, frontier=[[0.5, 3.6, 3.2]])
    (cell,) = results(rows(row_of(job(OPEN), 3.1, retention=3.6), rival)).cells
    # half way between (3.2, 3.6) and (4.0, 3.2)
    assert cell.frontier == pytest.approx(3.1 - 3.4)
    (cell,) = results(rows(row_of(job(OPEN), 3.1, retention=3.1), rival)).cells
    # half way between the untouched model (3.0, 5.0) and (3.2, 3.6)
    assert cell.frontier == pytest.approx(3.1 - 4.3)
    (cell,) = results(rows(row_of(job(OPEN), 3.1, retention=4.5), rival)).cells
    assert cell.frontier is None, "no rival forgets as much"


def test_means_and_regret_over_cells():
    found = results(
        rows(
            row_of(job(OPEN), 3.0),
            row_of(job(STRICT), 3.6),
            *bracketed(),
            row_of(job(OPEN, domain="code"), 2.2),
            *bracketed("code", (2.0, 2.5, None)),
        )
    )
    assert found.geometric_mean == pytest.approx(math.sqrt((3.0 / 3.2) * (2.2 / 2.0))) and found.worst == pytest.approx(
        1.1
    )
    regret = {one.arm: one for one in found.regrets}
    assert set(regret) == {OPEN.key, LOW.key, MIDDLE.key, HIGH.key}, "strict was not run everywhere"
    assert regret[OPEN.key].mean == pytest.approx((0 + 0.1) / 2) and regret[OPEN.key].worst_cell.startswith("m/code")
    assert regret[LOW.key].worst == pytest.approx(3.4 / 3.0 - 1) and regret[MIDDLE.key].worst == pytest.approx(0.25)
    assert regret[HIGH.key].worst == math.inf, "one that diverged somewhere is no setting for everything"
    assert found.regrets[0].arm == OPEN.key


def test_the_record_goes_through_json_and_html():
    found = results(rows(row_of(job(OPEN), 3.0, over_budget=0.9), *bracketed()))
    assert ZeroKnobResults.from_json(found.to_json()) == found and found.largest_over_budget == 0.9
    assert "m/kjv" in found.to_html() and "0.938 of the best AdamW" in found.to_text()


def test_without_rows_there_is_nothing_to_say_and_an_unknown_arm_is_a_sentence():
    assert results({}).geometric_mean is None and "no cell" in results({}).to_text()
    with pytest.raises(InputError, match="the rows have frank-wolfe"):
        results(rows(row_of(job(OPEN), 3.0)), "mass")
