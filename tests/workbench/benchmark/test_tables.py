"""What rows say: ratios, paired intervals, retention damage, the frontier and regret, each recomputed by hand."""

import dataclasses
import math
from pathlib import Path

import pytest
from scipy import stats

from geonb.errors import InputError
from geonb.workbench.benchmark.arm import OPEN, STRICT, THREE, Arm, adamw
from geonb.workbench.benchmark.cells import rows_by_cell, scaled_points
from geonb.workbench.benchmark.job import Job
from geonb.workbench.benchmark.queue import read_rows
from geonb.workbench.benchmark.tables import ZeroKnobResults, geometric_mean, results
from tests.workbench.benchmark.small import row_of


def job(arm, seed=0, domain="kjv", model="m", **changes):
    return Job(**{"model": model, "domain": domain, "horizon": 200, "batch": 16, "seed": seed, "arm": arm, **changes})


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


def test_a_rate_whose_neighbour_diverged_is_inside_its_bracket():
    (cell,) = results(rows(row_of(job(OPEN), 3.0), *bracketed(losses=(3.4, 3.2, None)))).cells
    assert cell.rival == MIDDLE.key and cell.rival_interior


def test_the_price_counts_every_run_of_the_search_at_the_median_of_its_kind():
    thin = adamw(3e-3, "8")
    (cell,) = results(
        rows(
            row_of(job(OPEN), 3.0, seconds=100.0),
            row_of(job(STRICT), 3.0, seconds=20.0),
            row_of(job(THREE), 3.0, seconds=30.0),
            row_of(job(OPEN, 1), 3.0, seconds=31.0),
            row_of(job(Arm(method="frank-wolfe", rank="8")), 3.0, seconds=1.0),
            *(
                row_of(job(arm), loss, seconds=seconds)
                for arm, loss, seconds in ((LOW, 3.4, 10.0), (MIDDLE, 3.2, 90.0), (HIGH, None, 2.0), (thin, 3.3, 7.0))
            ),
            row_of(job(MIDDLE, 1), 3.2, seconds=12.0),
        )
    ).cells
    # the median of 100, 20, 30, 31 and of 10, 90, 12; the run at another rank and the one that diverged are not of the kind
    assert cell.seconds == 30.5 and cell.tuning_runs == 4
    assert cell.tuning_seconds == 12 + 12 + 12 + 7


def test_memory_and_bits_of_both_are_told():
    found = results(
        rows(
            row_of(job(OPEN), 3.0, state_bytes=6_000_000, bits_per_byte=1.5, seconds=10.0),
            row_of(job(LOW), 3.3, seconds=10.0),
            row_of(job(MIDDLE), 3.2, state_bytes=24_000_000, bits_per_byte=1.6, seconds=20.0),
        )
    )
    (cell,) = found.cells
    assert (cell.bits_per_byte, cell.rival_bits_per_byte) == (1.5, 1.6)
    assert (cell.state_bytes, cell.rival_state_bytes) == (6_000_000, 24_000_000) and found.memory_ratio == 0.25
    # two runs at the median of 10 and 20
    assert found.tuning_ratio == 3.0
    text = found.to_text()
    assert "1.50 / 1.60" in text and "0.25 of the rival's bytes" in text and "3.0 times the seconds" in text


def test_wins_ties_losses_and_cells_of_half_the_damage_are_counted():
    def three_seeds(domain, shift, kept):
        noise = (0.01, -0.02, 0.01)
        return [
            *(row_of(job(OPEN, seed, domain), 3.0 + shift + noise[seed], retention=kept) for seed in range(3)),
            *(row_of(job(MIDDLE, seed, domain), 3.0, retention=4.0) for seed in range(3)),
        ]

    found = results(
        rows(
            *three_seeds("kjv", -0.3, 3.5),
            *three_seeds("code", 0.0, 3.51),
            *three_seeds("chat", 0.3, 3.2),
            row_of(job(OPEN, domain="names"), 2.0, retention=3.1),
            row_of(job(MIDDLE, domain="names"), 3.0, retention=4.0),
        )
    )
    assert (found.wins, found.ties, found.losses, found.half_damage) == (1, 1, 1, 3)
    assert "1 wins, 1 ties, 1 losses; 1 cells with fewer than three seeds" in found.counts()


def test_a_rival_that_forgets_no_more_and_fits_no_worse_dominates_even_where_it_never_rises_as_far():
    (cell,) = results(rows(row_of(job(OPEN), 3.1, retention=3.9), row_of(job(MIDDLE), 3.0, retention=3.5))).cells
    assert cell.dominated and cell.frontier is None
    (cell,) = results(rows(row_of(job(OPEN), 3.1, retention=3.4), row_of(job(MIDDLE), 3.0, retention=3.5))).cells
    assert not cell.dominated
    scaled = row_of(job(MIDDLE), 3.3, retention=3.9, frontier=[[0.5, 3.05, 3.2]])
    (cell,) = results(rows(row_of(job(OPEN), 3.1, retention=3.4), scaled)).cells
    assert cell.dominated, "the dose of a half does"
    assert scaled_points(scaled) == [(3.0, 5.0), (3.2, 3.05), (3.9, 3.3)]


def test_each_radius_is_judged_over_its_own_cells_and_chosen_on_the_looked_at_ones():
    made = []
    for domain, model, losses in (
        ("kjv", "embedded", (3.0, 3.3, 3.15)),
        ("code", "llama-1m", (3.0, 3.0, 3.03)),
        ("names", "embedded", (3.6, 3.0, 3.0)),
        ("kjv", "gpt2-4m", (3.3, 3.0, 3.0)),
    ):
        made += [
            row_of(job(arm, 0, domain, model), loss) for arm, loss in zip((OPEN, STRICT, THREE), losses, strict=True)
        ]
        made.append(row_of(job(MIDDLE, 0, domain, model), 4.0))
    # under a condition nothing is chosen
    made += [
        row_of(job(arm, 0, "kjv", "embedded", loss_scale=9.0), loss)
        for arm, loss in ((OPEN, 9.0), (STRICT, 1.0), (THREE, 9.0))
    ]
    found = results(rows(*made))
    radius = {one.radius: one for one in found.radii}
    assert {name: one.cells for name, one in radius.items()} == {"sigma_max": 4, "sigma_k": 4, "3 sigma_k": 4}
    assert radius["sigma_max"].geometric_mean == pytest.approx((0.75 * 0.75 * 0.9 * 0.825) ** 0.25)
    assert radius["sigma_max"].looked_at_regret == 0.0 and radius["sigma_k"].looked_at_regret == pytest.approx(0.1)
    assert radius["3 sigma_k"].looked_at_regret == pytest.approx(0.05)
    assert found.chosen_radius == OPEN.key
    plain = results({key: row for key, row in rows(*made).items() if row.job.is_plain})
    other = {one.radius: one.other_regret for one in plain.radii}
    assert other == {"sigma_max": pytest.approx(0.2), "sigma_k": 0.0, "3 sigma_k": 0.0}


def test_the_table_of_the_committed_rows_fits_a_screen_and_goes_through_json():
    committed = read_rows(Path(__file__).parents[3] / "papers" / "zero-knob" / "results.jsonl")
    found = results({key: row for key, row in committed.items() if row.job.is_plain})
    assert found.cells and ZeroKnobResults.from_json(found.to_json()) == found
    assert max(map(len, found.to_text().splitlines())) <= 125
    # the geometric mean once more, from the raw rows
    ratios = []
    for group in rows_by_cell({key: row for key, row in committed.items() if row.job.is_plain}).values():
        ours = {row.job.seed: row.validation for row in group if row.job.arm == OPEN}
        plain = [
            row for row in group if row.job.arm == adamw(row.job.arm.rate or 1.0, row.job.arm.rank) and row.job.arm.rate
        ]
        first = [row for row in plain if row.job.seed == 0 and row.validation is not None]
        if 0 in ours and first:
            rival = min(first, key=lambda row: row.validation).job.arm
            theirs = {row.job.seed: row.validation for row in plain if row.job.arm == rival}
            seeds = set(ours) & set(theirs)
            ratios.append(sum(ours[seed] for seed in seeds) / sum(theirs[seed] for seed in seeds))
    assert len(ratios) == len(found.cells)
    assert found.geometric_mean == pytest.approx(math.prod(ratios) ** (1 / len(ratios)))


def test_the_mean_of_nothing_is_none():
    assert geometric_mean([]) is None and geometric_mean([2.0, 0.5]) == pytest.approx(1.0)
    assert dataclasses.asdict(results({}))["radii"] == ()


def test_regret_is_over_the_main_cells_where_the_whole_grid_is_asked():
    def three(model, losses, **changes):
        made = zip((OPEN, MIDDLE, LOW), losses, strict=True)
        return [row_of(job(arm, 0, "kjv", model, **changes), loss) for arm, loss in made if loss is not None]

    main = [*three("embedded", (3.0, 3.3, 3.6)), *three("llama-1m", (3.3, 3.0, 3.6))]
    elsewhere = [*three("gpt2-4m", (9.0, 3.0, None)), *three("embedded", (9.0, 3.0, None), horizon=60)]
    regret = {one.arm: one for one in results(rows(*main, *elsewhere)).regrets}
    assert set(regret) == {OPEN.key, MIDDLE.key, LOW.key} and regret[LOW.key].cells == 2
    assert regret[OPEN.key].worst == pytest.approx(0.1) and regret[LOW.key].mean == pytest.approx(0.2)
    # without a main cell every cell counts
    (only, _) = results(rows(*elsewhere)).regrets
    assert only.arm == MIDDLE.key and only.cells == 2


def test_the_page_of_a_hundred_cells_is_small_and_escaped():
    made = [row for n in range(100) for row in (row_of(job(OPEN, domain=f"<d{n}>"), 3.0), *bracketed(f"<d{n}>"))]
    page = results(rows(*made)).to_html()
    assert len(page) < 60_000 and "&lt;d7&gt;" in page and "<d7>" not in page
