"""The rule of papers/zero-knob/README.md on made-up rows, each figure recomputed by hand."""

import dataclasses
import math

import pytest

from geonb.claims import judge, load_claims
from geonb.claims.zero_knob import deciding_rows, default_arm, plain_rows, rule_checks, runs_lacking
from geonb.errors import InputError
from geonb.workbench.benchmark.arm import FOLKLORE, OPEN, STRICT, THREE, Arm, adamw
from geonb.workbench.benchmark.design import STAGES
from geonb.workbench.benchmark.job import Job
from tests.workbench.benchmark.small import row_of

NOISE = (0.0, 0.01, -0.01)
RIVALS = [adamw(rate) for rate in (1e-3, 3e-3, 1e-2)]


def job(arm, seed=0, domain="kjv", model="llama-1m", **changes):
    return Job(model=model, domain=domain, horizon=200, batch=16, seed=seed, arm=arm, **changes)


def rows(*made):
    return {row.key: row for row in made}


def cell(domain, *, three=2.7, strict=3.2, wide=2.9, kept=3.2, seeds=3, model="llama-1m", frontier=((0.5, 4.0, 3.3),)):
    """A cell whose best AdamW has the loss 3.0 and forgets 0.8 (from 3.0 to 3.8), over seeds that go up and down."""
    made = []
    for arm, loss in ((THREE, three), (STRICT, strict), (OPEN, wide)):
        made += [
            row_of(
                job(arm, seed, domain, model),
                None if loss is None else loss + NOISE[seed] / 2,
                retention=kept,
                over_budget=0.9,
            )
            for seed in range(seeds)
        ]
    lost = [list(point) for point in frontier]
    made += [
        row_of(job(RIVALS[1], seed, domain, model), 3.0 + NOISE[seed], retention=3.8, frontier=lost)
        for seed in range(seeds)
    ]
    return [*made, *(row_of(job(arm, 0, domain, model), 3.5) for arm in (RIVALS[0], RIVALS[2]))]


def decisions(found, lacking=0):
    result = judge("zero-knob", rule_checks(found, lacking=lacking), register=load_claims())
    return {one.claim.partition("/")[2]: one.decision for one in result.verdicts}


GOOD = rows(*cell("kjv"), *cell("names"))


def test_every_part_holds_where_the_arm_is_better_everywhere():
    assert default_arm(GOOD) == THREE.key
    assert decisions(GOOD) == dict.fromkeys(("fit", "worst-case", "retention", "frontier", "regret", "bound"), "holds")
    (mean,) = [check for check in rule_checks(GOOD, lacking=0) if check.name.startswith("mean of")]
    assert mean.measured == pytest.approx(2.7 / 3.0) and mean.threshold == 0.95


def test_while_runs_are_lacking_nothing_but_the_bound_is_decided():
    found = decisions(GOOD, lacking=1)
    assert found.pop("bound") == "holds" and set(found.values()) == {"inconclusive"}


def test_a_counterexample_of_three_seeds_decides_what_speaks_of_every_cell_whatever_is_lacking():
    found = decisions(rows(*cell("kjv"), *cell("names", kept=3.41)), lacking=7)
    assert found["retention"] == "fails" and found["fit"] == "inconclusive"
    assert decisions(rows(*cell("kjv"), *cell("names", kept=3.41, seeds=2)), lacking=7)["retention"] == "inconclusive"
    beaten = cell("names", frontier=((0.5, 2.0, 3.15),))
    assert decisions(rows(*cell("kjv"), *beaten), lacking=7)["frontier"] == "fails"


def test_what_has_fewer_than_three_seeds_can_neither_win_nor_lose():
    found = decisions(rows(*cell("kjv"), *cell("names", seeds=2)))
    assert found["fit"] == found["worst-case"] == "inconclusive" and found["retention"] == "holds"


def test_one_lost_cell_makes_the_fit_partly_true_and_more_losses_than_wins_refute_it():
    lost = cell("names", three=3.3, strict=3.4, wide=3.5)
    assert math.sqrt((2.2 / 3) * (3.3 / 3)) < 0.95
    found = decisions(rows(*cell("kjv", three=2.2), *lost))
    assert found["fit"] == found["worst-case"] == "partly"
    more = cell("modules", three=3.3, strict=3.4, wide=3.5)
    found = decisions(rows(*cell("kjv", three=2.2), *lost, *more))
    assert found["fit"] == found["worst-case"] == "fails"


def test_a_mean_between_the_two_thresholds_is_partly_and_one_above_one_fails():
    assert decisions(rows(*cell("kjv", three=2.9, wide=3.0), *cell("names", three=2.9, wide=3.0)))["fit"] == "partly"
    # no cell is a loss: the interval of such noisy seeds holds zero
    noisy = [
        dataclasses.replace(row, validation=row.validation + (0.4, -0.3, 0.0)[row.job.seed])
        if row.job.arm.method == "frank-wolfe"
        else row
        for row in cell("kjv", three=3.05, strict=3.1, wide=3.2)
    ]
    found = decisions(rows(*noisy))
    assert found["fit"] == "fails" and found["worst-case"] == "holds"


def test_a_run_of_the_arm_that_diverged_is_counted_although_its_cell_has_no_ratio():
    found = rows(*cell("kjv"), *cell("names", three=None))
    assert decisions(found)["worst-case"] == "partly" and decisions(found)["fit"] == "partly"


def test_more_than_half_of_the_rivals_damage_in_one_cell_refutes_retention():
    assert decisions(rows(*cell("kjv"), *cell("names", kept=3.39)))["retention"] == "holds"
    assert decisions(rows(*cell("kjv"), *cell("names", kept=3.41)))["retention"] == "fails"


def test_one_cell_on_or_above_a_scaled_rival_refutes_the_frontier_and_one_out_of_reach_leaves_it_open():
    # from (0.15, 2.0) to (0.8, 3.0) the chord is at 2.08 where the arm, with 2.7, stands at 0.2
    beaten = cell("names", frontier=((0.5, 2.0, 3.15),))
    assert decisions(rows(*cell("kjv"), *beaten))["frontier"] == "fails"
    out_of_reach = cell("names", kept=3.9)
    assert decisions(rows(*cell("kjv"), *out_of_reach))["frontier"] == "inconclusive"


def test_the_radius_is_chosen_on_looked_at_cells_and_tested_on_the_others():
    chosen_here, better_there = cell("kjv", three=2.7, wide=2.8), cell("names", three=2.8, wide=2.7)
    found = rows(*chosen_here, *better_there)
    assert default_arm(found) == THREE.key and decisions(found)["regret"] == "fails"
    # without a cell that tests it nothing was measured
    assert decisions(rows(*chosen_here))["regret"] == "inconclusive"


def test_a_matrix_that_left_its_ball_refutes_the_bound_under_whatever_condition():
    over = row_of(job(OPEN, domain="kjv", loss_scale=1000.0), 3.0, over_budget=1.001)
    assert decisions(GOOD | rows(over))["bound"] == "fails"
    within = dataclasses.replace(over, over_budget=1.00005)
    assert decisions(GOOD | rows(within))["bound"] == "holds"
    # what promises no bound is not held to it
    other = row_of(job(Arm(method="nb-lora", rate=1e-3)), 3.0, over_budget=1.2)
    assert decisions(GOOD | rows(other))["bound"] == "holds"


def test_what_was_made_to_break_the_method_is_no_cell_of_the_rule():
    broken = [row_of(dataclasses.replace(row.job, loss_scale=1000.0), 9.0) for row in cell("kjv")]
    broken = [dataclasses.replace(row, key=row.job.key, cell=row.job.cell) for row in broken]
    assert plain_rows(GOOD | rows(*broken)) == GOOD
    assert rule_checks(GOOD | rows(*broken), lacking=0)[5:] == rule_checks(GOOD, lacking=0)[5:]


def test_the_runs_that_are_lacking_are_those_that_decide():
    lacking = runs_lacking({})
    # of nothing the design knows its first stages: three radii and three rates, and rank 32, in ten cells
    assert lacking > 10 * (6 + 3)
    first = STAGES[0].missing({})
    assert runs_lacking(rows(row_of(first[0], 3.0))) == lacking - 1
    # what decides nothing changes nothing
    assert runs_lacking(rows(row_of(job(FOLKLORE), 3.0))) == lacking


def test_a_cell_that_does_not_decide_changes_nothing_but_the_bound():
    dear = cell("modules", model="embedded", three=9.0, kept=9.0)
    assert deciding_rows(GOOD | rows(*dear)) == GOOD
    assert decisions(GOOD | rows(*dear)) == decisions(GOOD)


def test_without_a_run_of_the_arm_there_is_nothing_to_judge():
    found = decisions({})
    assert set(found.values()) == {"inconclusive"}
    with pytest.raises(InputError, match="the arm 'frank-wolfe' was given; the rows have none of geonb"):
        rule_checks(rows(row_of(job(RIVALS[0]), 3.0)))


def test_a_cell_whose_rival_is_at_the_edge_of_its_bracket_is_no_cell_of_the_rule():
    # its best rate is the only one that was run: three more cells of it would carry the mean to 0.3
    lucky = [row_of(job(THREE, 0, "modules"), 0.3, over_budget=0.9), row_of(job(RIVALS[1], 0, "modules"), 3.0)]
    (mean,) = [one for one in rule_checks(GOOD | rows(*lucky), lacking=0) if one.name.startswith("mean of")]
    assert mean.measured == pytest.approx(2.7 / 3.0) and "2 cells" in mean.name
