"""What the design asks for: the best rate between worse ones, nothing twice, and nothing once all is there."""

import dataclasses
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.workbench.benchmark.arm import DEFAULT, FOLKLORE, OPEN, PEER_DEFAULT, Arm, adamw
from geonb.workbench.benchmark.conditions import DATA, WEIGHTS, parted
from geonb.workbench.benchmark.design import (
    BROKEN,
    BROKEN_AGAIN,
    DECIDING,
    MAIN,
    RATES,
    SEEDS,
    SMALL,
    SMALL_AGAIN,
    STAGES,
    ZERO_KNOB_ARMS,
    Cell,
    around,
    best_adamw,
    bracket,
    broken,
    comes_close,
    first_look,
    headline,
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
    jobs = near_main(Cell("gpt2-4m-2k", "kjv"), done)
    assert [job.arm for job in jobs[len(ZERO_KNOB_ARMS) :]] == [adamw(3e-4), adamw(1e-3), adamw(3e-3)]


@given(st.sampled_from(RATES))
def test_around_is_three_neighbours_on_the_grid_that_hold_the_rate(rate):
    found = around(adamw(rate))
    assert rate in found and len(found) == 3
    places = [RATES.index(one) for one in found]
    assert places == list(range(places[0], places[0] + 3))


def test_cells_beyond_the_main_model_wait_for_it():
    assert near_main(Cell("gpt2-4m-2k", "kjv"), {}) == seeds(CELL, {}) == rivals(CELL, {}) == []


def test_seeds_are_those_of_what_decides():
    jobs = seeds(CELL, rows((adamw(3e-3, "32"), 1.0), (adamw(1e-3), 2.0)))
    assert Counter(job.seed for job in jobs) == {1: 4, 2: 4}
    assert {job.arm for job in jobs} == {*ZERO_KNOB_ARMS, adamw(3e-3, "32")}
    # what the verdict hangs on comes first
    assert {job.arm for job in jobs[:4]} == {DEFAULT, adamw(3e-3, "32")}
    assert jobs[:4] == headline(CELL, rows((adamw(3e-3, "32"), 1.0), (adamw(1e-3), 2.0)))


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
        # the other radii have more seeds where the model can still be made
        for arm in (best, *(ZERO_KNOB_ARMS if cell.model == MAIN else (DEFAULT,))):
            assert all(cell.job(arm, seed).key in done for seed in SEEDS)


def test_the_names_of_stages_and_the_models_of_cells_are_those_that_exist():
    from geonb.workbench.benchmark.domains import DOMAINS
    from geonb.workbench.benchmark.models import CLOSED, NAMES

    assert len({stage.name for stage in STAGES}) == len(STAGES)
    cells = [cell for stage in STAGES for cell in stage.cells]
    # of the closed models one has cells that are whole; the other's rows are shown and decide nothing
    names = set(NAMES) - set(CLOSED) | {SMALL}
    assert {cell.model for cell in cells if cell.is_plain} == names
    assert {cell.domain for cell in cells if cell.is_plain} == set(DOMAINS)
    assert {parted(cell.model)[0] for cell in cells} == names
    assert {cell.domain.partition("+")[0] for cell in cells} == {*DOMAINS, "base"}


def test_the_cells_that_decide_come_first_and_each_ends_with_three_seeds_of_both_sides(campaign):
    done, asked = campaign
    stages = [stage.decides for stage in STAGES]
    assert stages == sorted(stages, reverse=True)
    assert {cell for stage in STAGES if stage.decides for cell in stage.cells} == set(DECIDING)
    assert len(DECIDING) == len(set(DECIDING)) == 29 and all(cell.is_plain for cell in DECIDING)
    for cell in DECIDING:
        rival = best_adamw(cell, done)
        assert all(cell.job(arm, seed).key in done for arm in (DEFAULT, rival) for seed in SEEDS)
    # no answer of the cells after them makes them ask anew
    deciding = tuple(stage for stage in STAGES if stage.decides)
    before = {}
    while jobs := next((jobs for stage in deciding if (jobs := stage.missing(before))), None):
        before |= {job.key: done[job.key] for job in jobs}
    assert list(before) == asked[: len(before)]


# -- what loses is halved -------------------------------------------------------------------------------------------------


def at_ranks(cell, **best):
    """Rows of a whole bracket of every rank with that best loss: a rank's name begins with `r`."""
    done = {}
    for rank, loss in best.items():
        for rate, more in ((1e-3, 0.5), (3e-3, 0.0), (1e-2, 0.5)):
            job = cell.job(adamw(rate, rank.removeprefix("r")))
            done[job.key] = row_of(job, loss + more)
    return done


def rank_8_of(model, done):
    """The runs at rank 8 that the design asks for on `model` in `kjv`, once the tail and rank 32 are there."""
    there = at_ranks(Cell(model, "kjv"), rtail=1.0, r32=1.0) | done
    stage = next(stage for stage in STAGES if stage.name == "AdamW at rank 32 and 8")
    wanted = [job for job in stage.missing(there) if (job.model, job.domain) == (model, "kjv")]
    return [job.arm for job in wanted if job.arm.rank == "8"]


THREE_RATES = [adamw(rate, "8") for rate in (1e-3, 3e-3, 1e-2)]


@pytest.mark.parametrize(("loss", "asked"), [(0.9, True), (1.0, True), (1.049, True), (1.051, False), (2.0, False)])
def test_rank_8_is_asked_on_the_main_model_only_where_it_came_within_a_twentieth_on_the_small_one(loss, asked):
    small = at_ranks(Cell(SMALL, "kjv"), rtail=1.3, r32=1.0, r8=loss)
    assert comes_close("8", Cell(SMALL, "kjv"), small) is asked
    assert rank_8_of(MAIN, small) == (THREE_RATES if asked else [])


def test_rank_8_on_the_main_model_waits_for_every_rank_of_the_small_one_and_that_domain_alone():
    for done in (
        {},
        at_ranks(Cell(SMALL, "kjv"), r8=1.0),
        at_ranks(Cell(SMALL, "kjv"), r8=1.0, r32=1.0),
        at_ranks(Cell(SMALL, "code"), r8=1.0, r32=1.0, rtail=1.0),
    ):
        assert rank_8_of(MAIN, done) == []
    # the small model's own is asked at once
    assert rank_8_of(SMALL, {}) == THREE_RATES


def test_the_main_model_has_rank_8_where_the_campaigns_small_model_says_so(campaign):
    done, _ = campaign
    for name in {cell.domain for cell in STAGES[0].cells}:
        least = {
            rank: min(
                row.validation
                for row in done.values()
                if row.job.cell == f"{SMALL}/{name}/T200/b16" and row.job.arm == adamw(row.job.arm.rate or 1, rank)
                and row.validation is not None
            )
            for rank in ("8", "32", "tail")
        }  # fmt: skip
        found = Cell(MAIN, name).job(adamw(3e-3, "8")).key in done
        assert found == (least["8"] <= 1.05 * min(least.values()))


# -- what was made to break the method ------------------------------------------------------------------------------------


def test_every_condition_is_asked_on_the_small_model_after_what_decides_and_none_is_plain():
    names = [stage.name for stage in STAGES]
    at = [place for place, name in enumerate(names) if name.startswith("break it")]
    assert min(at) > max(place for place, stage in enumerate(STAGES) if stage.decides)
    look, *whole = (STAGES[place].cells for place in at)
    assert tuple(whole) == BROKEN_AGAIN
    again = [dataclasses.replace(cell, model=cell.model.replace(SMALL, SMALL_AGAIN)) for cell in BROKEN]
    assert [cell for cells in whole for cell in cells] == again
    assert len(look) == len(BROKEN) and set(look) == set(BROKEN)
    # the cheap ones come first, and each condition that chat has too is seen there before the prose
    assert [cell.job(OPEN).steps for cell in look[:3]] == [4, 50, 80]
    assert [cell.domain for cell in look[:3]] == ["chat+64", "chat", "chat+64"]
    for cell in look:
        sister = dataclasses.replace(cell, domain=cell.domain.replace("kjv", "chat"))
        assert sister not in look or look.index(sister) <= look.index(cell)
    assert not any(cell.is_plain for cell in BROKEN) and len(set(BROKEN)) == len(BROKEN)
    assert all(cell.is_plain for stage in STAGES for cell in stage.cells if not stage.name.startswith("break it"))
    assert {parted(cell.model)[0] for cell in BROKEN} == {SMALL}
    assert {parted(cell.model)[1] for cell in BROKEN} - {""} == set(WEIGHTS)
    assert {cell.domain.partition("+")[2] for cell in BROKEN} - {""} == set(DATA)
    assert {(cell.horizon, cell.planned) for cell in BROKEN if cell.planned} == {(200, 50), (200, 800)}
    # one epoch and twenty of 64 examples in batches of 16
    assert {cell.horizon * 16 / 64 for cell in BROKEN if cell.domain.endswith("+64")} == {1, 20}


@pytest.mark.parametrize("cell", BROKEN, ids=lambda cell: cell.job(OPEN).cell)
def test_a_condition_is_bracketed_from_the_best_rate_and_at_the_best_rank_without_it(cell):
    plain = "kjv" if cell.domain == "base" else cell.domain.partition("+")[0]
    assert cell.without_condition == Cell(SMALL, plain)
    assert broken(cell, {}) == first_look(cell, {}) == []
    reference = rows((adamw(1e-2, "32"), 1.0), (adamw(3e-3, "8"), 2.0), cell=Cell(SMALL, plain))
    jobs = broken(cell, reference)
    rates = [adamw(rate, "32") for rate in (3e-3, 1e-2, 3e-2)]
    assert [job.arm for job in jobs] == [*ZERO_KNOB_ARMS, *rates]
    assert {job.cell for job in jobs} == {cell.job(OPEN).cell}
    # and a first look is at the default and at the very setting that was best
    assert [job.arm for job in first_look(cell, reference)] == [DEFAULT, adamw(1e-2, "32")]
    assert {job.key for job in first_look(cell, reference)} < {job.key for job in jobs}
    # where the condition has moved the best rate, the rival's bracket follows it
    done = reference | rows((rates[0], 1.0), (rates[1], 2.0), (rates[2], 3.0), cell=cell)
    assert [job.arm for job in broken(cell, done)] == [*ZERO_KNOB_ARMS, adamw(1e-3, "32")]


def test_rows_under_a_condition_are_no_evidence_for_the_cell_without_it():
    cell = Cell(SMALL, "kjv")
    done = rows((adamw(1e-3), 2.0), cell=cell)
    for other in BROKEN:
        done |= rows((adamw(3e-3), 0.1), cell=other)
    assert best_adamw(cell, done) == adamw(1e-3)
