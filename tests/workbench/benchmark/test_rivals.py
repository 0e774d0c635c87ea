"""Other ways of fine-tuning: which arms are one, what is asked of each, and geonb's loss over theirs, by hand."""

import dataclasses
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.workbench.benchmark.arm import DEFAULT, FOLKLORE, OPEN, PEER_DEFAULT, STRICT, Arm, adamw
from geonb.workbench.benchmark.cells import is_tuned_lora
from geonb.workbench.benchmark.design import RATES, SEEDS, STAGES, Cell, best_adamw, rival_seeds, rivals
from geonb.workbench.benchmark.rivals import FIXED, TUNED, RivalResult, rival_results
from tests.workbench.benchmark.small import row_of

EVERY = (*FIXED, *TUNED)
CELL = Cell("m", "kjv", 60)
MUON, PISSA = (one for one in TUNED if one.title in ("PiSSA", "Muon"))
FULL = next(one for one in TUNED if one.title == "full fine-tuning")


def rows(*made):
    return {row.key: row for row in made}


def tuned_adamw(cell=CELL, losses=(3.4, 3.0, 3.3)):
    return rows(*(row_of(cell.job(adamw(rate)), loss) for rate, loss in zip((1e-3, 3e-3, 1e-2), losses, strict=True)))


@given(st.sampled_from(EVERY), st.sampled_from(RATES))
def test_every_arm_of_a_rival_is_its_own_and_no_others(rival, rate):
    arm = rival.at(rate) if rival.start else rival.arm
    assert [one.title for one in EVERY if one.holds(arm)] == [rival.title]
    # and none of them is geonb's, or the plain LoRA that a cell is decided by
    assert not is_tuned_lora(arm) and not any(rival.holds(one) for one in (OPEN, STRICT, DEFAULT))


def test_a_setting_that_is_shipped_is_no_rate_of_the_search():
    # both are PiSSA at rank 32: one is searched, the other is 2e-4 wherever it is used
    assert PISSA.holds(PISSA.at(3e-4)) and not PISSA.holds(PEER_DEFAULT)
    assert not any(one.holds(FOLKLORE) for one in TUNED) and 2e-4 not in RATES


def test_each_rival_is_asked_and_searched_until_its_best_rate_has_worse_neighbours():
    done = tuned_adamw()
    assert rivals(CELL, {}) == rival_seeds(CELL, {}) == []  # without an AdamW there is nothing to stand beside
    losses = {rate: 3.0 + abs(place - 1) for place, rate in enumerate(RATES)}  # best at 1e-4, below every start
    asked = 0
    while missing := [job for job in rivals(CELL, done) if job.key not in done]:
        asked += len(missing)
        done |= rows(*(row_of(job, losses.get(job.arm.rate, 4.0)) for job in missing))
    first = {job.arm for job in rivals(CELL, {**tuned_adamw()})}
    assert first == {*(one.arm for one in FIXED), *(one.at(rate) for one in TUNED for rate in one.start)}
    for one in TUNED:
        tried = sorted(row.job.arm.rate for row in done.values() if one.holds(row.job.arm))
        assert tried == [rate for rate in RATES if rate <= max(one.start)]
    assert asked == len(done) - 3 and best_adamw(CELL, done) == adamw(3e-3)
    seeds = rival_seeds(CELL, done)
    expected = {*(one.arm for one in FIXED), *(one.at(1e-4) for one in TUNED), DEFAULT}
    assert {(job.seed, job.arm) for job in seeds} == {(seed, arm) for seed in SEEDS[1:] for arm in expected}


def test_the_quick_stage_asks_cells_whose_adamw_decides_already():
    (stage,) = (one for one in STAGES if one.name == "every rival, where a run takes seconds")
    assert len(stage.cells) == 4 and not stage.decides
    assert {(cell.horizon, cell.batch) for cell in stage.cells} == {(60, 16), (200, 4)}
    assert {cell.domain for cell in stage.cells} == {"arithmetic", "chat"}


def test_ratios_are_those_of_the_best_rate_of_each_cell_over_the_cells_that_have_both():
    other = Cell("m", "chat", 60)
    done = tuned_adamw() | tuned_adamw(other)
    for cell, ours, theirs in ((CELL, 2.0, (2.2, 2.5, None)), (other, 3.0, (2.8, 2.4, 2.6))):
        done |= rows(row_of(cell.job(DEFAULT), ours, retention=3.25, state_bytes=10, seconds=5.0))
        for rate, loss in zip(MUON.start, theirs, strict=True):
            made = row_of(cell.job(MUON.at(rate)), loss, state_bytes=40, seconds=4.0)
            done |= rows(made)
    # a cell without any other rival says nothing of them: its AdamW is not counted either
    third = Cell("m", "code", 60)
    done |= tuned_adamw(third) | rows(row_of(third.job(DEFAULT), 1.0))
    muon, plain = sorted(rival_results(done, DEFAULT.key, seeds=3), key=lambda one: one.rival != "Muon")
    assert (muon.rival, plain.rival) == ("Muon", "AdamW-LoRA, best of the ranks")
    # 2.2 is best at the lowest rate that was tried, 2.4 between two worse ones
    assert [one.ratio for one in muon.cells] == pytest.approx([3.0 / 2.4, 2.0 / 2.2])
    assert (muon.edges, muon.diverged) == (1, 0) and (plain.edges, len(plain.cells)) == (0, 2)
    assert muon.geometric_mean == pytest.approx(statistics.geometric_mean([3.0 / 2.4, 2.0 / 2.2]))
    assert (muon.best, muon.worst) == pytest.approx((2.0 / 2.2, 3.0 / 2.4))
    # base text stands at 3.0, the rival ends at 3.5; two runs of three that cost 4 s each ended, the third is counted as they
    assert muon.damage == pytest.approx(0.25 / 0.5) and muon.memory == 0.25 and muon.cost == pytest.approx(5 / 12)
    assert muon.wins == muon.ties == muon.losses == 0  # one seed
    assert RivalResult.from_json(muon.to_json()) == muon


def test_the_strongest_rival_stands_first_and_one_that_always_diverges_has_no_ratio():
    done = tuned_adamw() | rows(row_of(CELL.job(DEFAULT), 2.0))
    done |= rows(*(row_of(CELL.job(FULL.at(rate)), 1.9) for rate in FULL.start))
    done |= rows(*(row_of(CELL.job(MUON.at(rate)), None) for rate in MUON.start))
    found = rival_results(done, DEFAULT.key, seeds=3)
    assert [one.rival for one in found] == ["full fine-tuning", "AdamW-LoRA, best of the ranks", "Muon"]
    last = found[-1]
    assert last.diverged == 1 and last.cells == () and last.geometric_mean is last.worst is last.cost is None
    assert "no cell has both" in last.summary()


def test_means_that_are_compared_are_over_the_cells_that_were_asked_the_most_rivals():
    other = Cell("m", "chat", 60)
    done = tuned_adamw() | tuned_adamw(other) | rows(*(row_of(cell.job(DEFAULT), 2.0) for cell in (CELL, other)))
    for cell in (CELL, other):
        done |= rows(row_of(cell.job(Arm(method="dog", rank="32")), 4.0))
    both = {one.rival: len(one.cells) for one in rival_results(done, DEFAULT.key, seeds=3)}
    assert both == {"DoG": 2, "AdamW-LoRA, best of the ranks": 2}
    # one of two cells is asked another: what was asked of both is compared with it there alone
    done |= rows(row_of(other.job(Arm(method="mass")), 3.0))
    found = rival_results(done, DEFAULT.key, seeds=3)
    assert {tuple(cell.cell for cell in one.cells) for one in found} == {(other.job(DEFAULT).cell,)} and len(found) == 3


@pytest.mark.parametrize(("gap", "counts"), [(-0.3, (1, 0, 0)), (0.0, (0, 1, 0)), (0.3, (0, 0, 1))])
def test_three_paired_seeds_make_a_win_a_tie_or_a_loss(gap, counts):
    noise = (0.01, -0.02, 0.01)
    done = tuned_adamw()
    for seed in range(3):
        done |= rows(
            row_of(CELL.job(DEFAULT, seed), 3.0 + gap + noise[seed]), row_of(CELL.job(Arm(method="mass"), seed), 3.0)
        )
    (mass,) = (one for one in rival_results(done, DEFAULT.key, seeds=3) if one.rival.startswith("MASS"))
    assert (mass.wins, mass.ties, mass.losses) == counts and mass.edges == 0
    two = {key: row for key, row in done.items() if row.job.seed < 2}
    (mass,) = (one for one in rival_results(two, DEFAULT.key, seeds=3) if one.rival.startswith("MASS"))
    assert (mass.wins, mass.ties, mass.losses) == (0, 0, 0)


def test_runs_under_a_condition_are_no_sample_of_how_a_rival_fares():
    broken = dataclasses.replace(CELL, loss_scale=1000.0)
    done = tuned_adamw(broken) | rows(
        row_of(broken.job(DEFAULT), 2.0), row_of(broken.job(Arm(method="dog", rank="32")), 2.0)
    )
    assert rival_results(done, DEFAULT.key, seeds=3) == ()
