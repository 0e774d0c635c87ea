"""What the design asks for: the best rate between worse ones, nothing twice, and nothing once all is there."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.workbench.benchmark.arm import FOLKLORE, OPEN, PEER_DEFAULT, Arm, adamw
from geonb.workbench.benchmark.design import (
    MAIN,
    RATES,
    SEEDS,
    SMALL,
    STAGES,
    ZERO_KNOB_ARMS,
    Cell,
    around,
    best_adamw,
    bracket,
    near_main,
    rivals,
    seeds,
)
from tests.workbench.benchmark.small import row_of

CELL = Cell(MAIN, "kjv")
starts = st.integers(0, len(RATES) - 3).map(lambda place: RATES[place : place + 3])


@st.composite
def unimodal(draw):
    """A loss of each rate that falls to one lowest and rises after it; it may diverge from some rate on."""
    lowest = draw(st.integers(0, len(RATES) - 1))
    steps = draw(st.lists(st.floats(0.01, 2.0), min_size=len(RATES), max_size=len(RATES)))
    losses = {RATES[lowest]: 1.0}
    for place in range(lowest - 1, -1, -1):
        losses[RATES[place]] = losses[RATES[place + 1]] + steps[place]
    for place in range(lowest + 1, len(RATES)):
        losses[RATES[place]] = losses[RATES[place - 1]] + steps[place]
    diverges_at = draw(st.integers(lowest + 1, len(RATES)))
    return {rate: None if place >= diverges_at else losses[rate] for place, rate in enumerate(RATES)}


def search(losses, start, make=adamw):
    """Run a bracket to its end: what it found, and every rate that it asked for, in order."""
    done, asked = {}, []
    while (found := bracket(CELL, make, done, start=start)).jobs:
        assert found.best is None
        for job in found.jobs:
            asked.append(job.arm.rate)
            done[job.key] = row_of(job, losses[job.arm.rate])
    return found, asked


@given(unimodal(), starts)
def test_a_bracket_ends_at_the_lowest_of_any_loss_with_one_lowest(losses, start):
    found, asked = search(losses, start)
    best = min((rate for rate in RATES if losses[rate] is not None), key=lambda rate: losses[rate])
    assert found.best == adamw(best)
    assert found.interior == (best not in (RATES[0], RATES[-1]))
    assert max(Counter(asked).values()) == 1
    if found.interior:
        place = RATES.index(best)
        assert {RATES[place - 1], RATES[place + 1]} <= set(asked)


@given(unimodal())
def test_from_the_middle_no_bracket_asks_for_more_than_the_way_to_the_lowest(losses):
    found, asked = search(losses, RATES[3:6])
    distance = max(0, abs(RATES.index(found.best.rate) - 4))
    assert len(asked) <= 3 + distance


def test_a_run_that_diverged_is_worse_than_any_loss():
    found, asked = search({rate: (1e9 if rate <= 1e-4 else None) for rate in RATES}, (1e-3, 3e-3, 1e-2))
    assert found.best in (adamw(1e-4), adamw(3e-5))
    assert max(asked) == 1e-2


def test_a_bracket_at_the_edge_of_the_grid_says_that_it_has_one_side():
    rising = {rate: rate for rate in RATES}
    falling = {rate: 1 - rate for rate in RATES}
    for losses, edge in ((rising, RATES[0]), (falling, RATES[-1])):
        found, asked = search(losses, (1e-3, 3e-3, 1e-2))
        assert (found.best, found.interior) == (adamw(edge), False)
        assert edge in asked


def test_the_first_question_is_the_start_and_rows_of_other_arms_answer_nothing():
    jobs = bracket(CELL, adamw, {}).jobs
    assert [job.arm for job in jobs] == [adamw(1e-3), adamw(3e-3), adamw(1e-2)]
    other = Cell(SMALL, "kjv").job(adamw(1e-3))
    seed = CELL.job(adamw(1e-3), seed=1)
    done = {job.key: row_of(job, 1.0) for job in (other, seed, CELL.job(adamw(1e-3, "8")))}
    assert bracket(CELL, adamw, done).jobs == jobs


def rows(*pairs, cell=CELL):
    return {job.key: row_of(job, loss) for arm, loss in pairs if (job := cell.job(arm))}


def test_the_best_adamw_is_plain_lora_over_all_targets_at_any_rank():
    done = rows((adamw(1e-3), 2.0), (adamw(3e-3, "8"), 1.5), (adamw(3e-2, "32"), None), (OPEN, 1.0))
    # forms and settings that are rivals of their own, some at rates that are not on the grid
    others = rows(
        (FOLKLORE, 0.5),
        (PEER_DEFAULT, 0.5),
        (adamw(1e-3, form="rslora"), 0.5),
        (adamw(1e-3, targets="q+v"), 0.5),
        (Arm(method="adamw", rate=1e-3, schedule="constant"), 0.5),
        (Arm(method="muon", rate=1e-3), 0.5),
    )
    assert best_adamw(CELL, {**others, **done}) == adamw(3e-3, "8")
    assert best_adamw(CELL, rows((adamw(1e-3), None), (OPEN, 1.0))) is None
    # the other seeds are no part of the choice
    job = CELL.job(adamw(1e-3), seed=1)
    assert best_adamw(CELL, {**done, job.key: row_of(job, 0.1)}) == adamw(3e-3, "8")


def test_a_fixed_setting_that_wins_on_the_main_model_does_not_derail_the_other_cells():
    done = rows((adamw(1e-3), 2.0), (FOLKLORE, 0.5), (PEER_DEFAULT, 0.4))
    jobs = near_main(Cell("gpt2-4m", "kjv"), done)
    assert [job.arm for job in jobs[len(ZERO_KNOB_ARMS) :]] == [adamw(3e-4), adamw(1e-3), adamw(3e-3)]


@given(st.sampled_from(RATES))
def test_around_is_three_neighbours_on_the_grid_that_hold_the_rate(rate):
    found = around(adamw(rate))
    assert rate in found and len(found) == 3
    places = [RATES.index(one) for one in found]
    assert places == list(range(places[0], places[0] + 3))


def test_cells_beyond_the_main_model_wait_for_it():
    assert near_main(Cell("gpt2-4m", "kjv"), {}) == seeds(CELL, {}) == rivals(CELL, {}) == []


def test_seeds_are_those_of_what_decides():
    jobs = seeds(CELL, rows((adamw(3e-3, "32"), 1.0), (adamw(1e-3), 2.0)))
    assert Counter(job.seed for job in jobs) == {1: 4, 2: 4}
    assert {job.arm for job in jobs} == {*ZERO_KNOB_ARMS, adamw(3e-3, "32")}


def loss_of(job):
    """A loss for any job, with one lowest rate for each kind of arm."""
    if job.arm.rate is None:
        return 2.0
    kind = sum(map(ord, f"{job.model}{job.domain}{job.arm.method}{job.arm.form}{job.arm.rank}"))
    lowest = math.log(RATES[1 + kind % (len(RATES) - 2)])
    return None if job.arm.rate > 0.2 else 1.0 + (math.log(job.arm.rate) - lowest) ** 2 / 100 + 0.001 * job.seed


@pytest.fixture(scope="module")
def campaign():
    """The whole design, run to its end on invented losses: every row, and every question in its order."""
    done, asked = {}, []
    while True:
        jobs = next((jobs for stage in STAGES if (jobs := stage.missing(done))), None)
        if jobs is None:
            return done, asked
        for job in jobs:
            asked.append(job.key)
            done[job.key] = row_of(job, loss_of(job))


def test_the_design_comes_to_an_end_without_asking_anything_twice(campaign):
    done, asked = campaign
    assert max(Counter(asked).values()) == 1
    assert len(asked) == len(done) > 1000
    assert all(stage.missing(done) == [] for stage in STAGES)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_no_stage_asks_for_one_run_twice(stage, campaign):
    done, _ = campaign
    for some in ({}, done, dict(list(done.items())[: len(done) // 2])):
        keys = [job.key for job in stage.missing(some)]
        assert len(keys) == len(set(keys)) and not set(keys) & set(some)


def test_every_main_cell_ends_with_a_bracketed_rival_and_three_seeds_of_it(campaign):
    done, _ = campaign
    for cell in STAGES[0].cells:
        best = best_adamw(cell, done)
        assert best is not None
        found = bracket(cell, lambda rate, rank=best.rank: adamw(rate, rank), done)
        assert found.best == best and found.interior
        for arm in (best, *ZERO_KNOB_ARMS):
            assert all(cell.job(arm, seed).key in done for seed in SEEDS)


def test_the_names_of_stages_and_the_models_of_cells_are_those_that_exist():
    from geonb.workbench.benchmark.domains import DOMAINS
    from geonb.workbench.benchmark.models import NAMES

    assert len({stage.name for stage in STAGES}) == len(STAGES)
    assert {cell.model for stage in STAGES for cell in stage.cells} == set(NAMES)
    assert {cell.domain for stage in STAGES for cell in stage.cells} == set(DOMAINS)
