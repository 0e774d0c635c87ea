"""Short trainings on equal terms, the search for a rate, the largest curvature, and Page's trend."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geonb.claims.experiments.controller_trace import Trace, largest_curvature
from geonb.claims.experiments.penalties import page_trend
from geonb.claims.experiments.short_training import Workshop, clipped, gradient_steps, search_rate
from geonb.errors import InputError
from geonb.train.controllers.base import StepReport
from geonb.train.controllers.registry import make_controller


@pytest.fixture(scope="module")
def workshop():
    return Workshop.open("embedded", rank=2)


def test_an_adapter_is_gone_after_its_block_and_starts_at_no_change(workshop):
    examples, held_out = workshop.examples("arithmetic", 0)
    before = workshop.loss(held_out, 4)
    for kind in ("adamw", "mass", "mass-layer", "frank-wolfe"):
        with workshop.adapted(kind, seed=0) as matrices:
            assert abs(workshop.loss(held_out, 4) - before) < 1e-5
            workshop.learn(examples, matrices, gradient_steps(matrices, 0.5), steps=1, batch=2, seed=0)
        assert workshop.loss(held_out, 4) == before


def test_a_gradient_step_is_the_gradient_times_the_rate(workshop):
    examples, _ = workshop.examples("arithmetic", 0)
    with workshop.adapted("adamw", seed=0) as matrices:
        leaf = matrices[0].factors.trained()["B"]
        start = leaf.detach().clone()
        workshop.learn(examples, matrices, gradient_steps(matrices, 0.5), steps=1, batch=2, seed=0)
        assert torch.allclose(leaf.detach(), start - 0.5 * leaf.grad)


def test_arms_with_one_seed_see_the_same_batches(workshop):
    examples, _ = workshop.examples("arithmetic", 0)
    seen = []
    for kind in ("adamw", "mass"):
        with workshop.adapted(kind, seed=0) as matrices:
            seen.append(workshop.learn(examples, matrices, lambda loss, step: None, steps=3, batch=2, seed=4))
    assert np.allclose(*seen, atol=1e-5)


def test_the_scales_of_a_chart_stay_in_their_interval_whatever_the_rate(workshop):
    examples, _ = workshop.examples("arithmetic", 0)
    with workshop.adapted("mass", seed=0) as matrices:
        update = clipped(matrices, make_controller("adamw", matrices, horizon=3, rate=30.0).step)
        workshop.learn(examples, matrices, update, steps=3, batch=2, seed=0)
        for matrix in matrices:
            assert float(matrix.factors.S.detach().min()) >= 0
            assert matrix.factors.product_norm() <= matrix.budget * (1 + 1e-6)


def test_a_rank_below_one_is_refused():
    with pytest.raises(InputError, match="the rank 0 was given; allowed is any whole number from 1 on"):
        Workshop.open("embedded", rank=0)


@settings(deadline=None)
@given(best=st.floats(-3, 3))
def test_a_search_ends_beside_the_bottom_of_any_bowl(best):
    found = search_rate(lambda rate: (np.log10(rate) - best) ** 2, (0.1, 1.0, 10.0), most=20)
    assert found.closed
    assert abs(np.log10(found.rate) - best) <= 0.25 + 1e-9 or found.rate in (0.1, 1.0, 10.0)


def test_a_rate_that_diverges_is_never_the_best_and_a_slope_without_end_is_not_closed():
    found = search_rate(lambda rate: float("nan") if rate > 2 else 1 / rate, (1.0, 3.0), factor=2)
    assert found.losses == {0.5: 2.0, 1.0: 1.0, 3.0: float("inf")}
    assert found.rate == 1.0 and found.closed
    assert not search_rate(lambda rate: 1 / rate, (1.0, 2.0), most=5).closed
    with pytest.raises(InputError, match="allowed are 2 or more, above 1"):
        search_rate(lambda rate: rate, (1.0,))


def test_the_largest_curvature_is_the_upper_end_of_the_spectrum_where_the_lower_end_is_larger_in_size():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(30, 30, generator=generator, dtype=torch.float64)
    matrix = matrix + matrix.mT - 8 * torch.eye(30, dtype=torch.float64)
    values = torch.linalg.eigvalsh(matrix)
    assert -values[0] > values[-1]
    found = largest_curvature(lambda x: matrix @ x, torch.zeros(30, dtype=torch.float64), iterations=30)
    assert found == pytest.approx(float(values[-1]), rel=1e-6)
    assert largest_curvature(lambda x: 0 * x, torch.zeros(3)) == 0


def test_shares_count_the_smallest_bound_of_every_matrix_at_every_step():
    def report(sps):
        return StepReport(
            eta_ceiling=(1.0, 1.0), eta_sps=sps, eta_weyl=(2.0, 2.0), eta_step=(1.0, 1.0), gap=None, gradient_norm=1.0
        )

    trace = Trace((report((0.5, 3.0)), report((3.0, 3.0))), (1.0, 1.0), 1.0)
    assert trace.shares == {"ceiling": 0.75, "sps": 0.25, "weyl": 0.0}
    assert trace.medians()["sps"] == [1.75, 3.0]


def test_pages_p_is_the_share_of_all_permutations_that_reach_its_statistic():
    table = [[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]]
    statistic, p = page_trend(table, resamples=40000)
    assert statistic == (1 + 4 + 9) + (1 + 6 + 6)
    exact = [
        sum(place * rank for place, rank in zip((1, 2, 3), first, strict=True))
        + sum(place * rank for place, rank in zip((1, 2, 3), second, strict=True))
        for first in itertools.permutations((1, 2, 3))
        for second in itertools.permutations((1, 2, 3))
    ]
    assert p == pytest.approx(np.mean([value >= statistic for value in exact]), abs=0.01)
    with pytest.raises(InputError, match="a trend was asked of a table"):
        page_trend([[1.0, 2.0, 3.0]])
