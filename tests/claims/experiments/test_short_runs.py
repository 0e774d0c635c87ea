"""Short runs: the recipe is AdamW's own, runs are paired, and what is measured is what was trained."""

from __future__ import annotations

import math

import pytest
import torch

from geonb.claims.experiments.lora_factors import factors_of, lora_layers, norms, set_dropout, start_at
from geonb.claims.experiments.published_mass import MassTrace, mass_run, most_frequent
from geonb.claims.experiments.short_runs import (
    DOCUMENTED,
    Recipe,
    ShortRun,
    ShortRuns,
    controller_of,
    gain_ratio,
    lost_share,
    search,
)
from geonb.claims.experiments.stopping_tests import fires, frozen_losses, share
from geonb.errors import InputError
from geonb.workbench.benchmark.arm import Arm, adamw

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
STEPS = 3


@pytest.fixture(scope="module")
def runs():
    return ShortRuns("embedded", "arithmetic", steps=STEPS, batch=2, n_train=16, n_evaluation=4)


def made(seed: int, base: float, loss: float) -> ShortRun:
    return ShortRun(
        arm="x", seed=seed, base=base, loss=loss, base_retention=None, retention=None, training=(), gradients=()
    )


def test_the_customary_recipe_is_the_benchmarks_own_adamw(runs):
    own = runs.run(adamw(3e-3, "8"), 0)
    again = runs.run(adamw(3e-3, "8"), 0, recipe=Recipe(rate=3e-3))
    assert again.training == own.training and again.loss == own.loss < own.base


def test_a_run_starts_as_the_untouched_model_and_sees_the_same_batches_whatever_the_arm(runs):
    first = runs.run(adamw(1e-3, "8"), 1)
    second = runs.run(Arm(method="frank-wolfe", rank="8"), 1)
    assert first.training[0] == pytest.approx(second.training[0], abs=1e-6)
    assert len(first.training) == len(first.gradients) == STEPS


def test_documented_epsilons_and_decays_are_those_of_the_plan(runs):
    seen = {}

    def prepare(attached, plan):
        optimizer = attached.step.__closure__
        cells = [cell.cell_contents for cell in optimizer]
        adam = next(cell for cell in cells if isinstance(cell, torch.optim.AdamW))
        seen["eps"] = sorted(group["eps"] for group in adam.param_groups)
        seen["decay"] = sorted(group["weight_decay"] for group in adam.param_groups)
        seen["wanted"] = [
            sorted(plan.derivation(key).documented_value.values()) for key in ("adam_epsilon", "weight_decay")
        ]

    runs.run(adamw(1e-3, "8"), 0, recipe=Recipe(rate=1e-3, epsilon=DOCUMENTED, decay=DOCUMENTED), prepare=prepare)
    assert [seen["eps"], seen["decay"]] == seen["wanted"]


def test_a_scale_of_the_loss_scales_the_gradients_and_not_the_reported_loss(runs):
    plain, scaled = (runs.run(Arm(method="frank-wolfe", rank="8"), 0, loss_scale=scale) for scale in (1.0, 8.0))
    assert scaled.training[0] == plain.training[0]
    assert scaled.gradients[0] == pytest.approx(8 * plain.gradients[0], rel=1e-5)
    spiked = runs.run(adamw(1e-3, "8"), 0, loss_scale=lambda number: 8.0 if number == 1 else 1.0)
    assert spiked.gradients[0] == pytest.approx(runs.run(adamw(1e-3, "8"), 0).gradients[0])


def test_the_schedule_of_a_recipe():
    constant = Recipe(rate=1.0, ramp=0.5, schedule="constant")
    assert [constant.share(step, 4) for step in range(4)] == [0.5, 1.0, 1.0, 1.0]
    cosine = [Recipe(rate=1.0, ramp=0.0).share(step, 4) for step in range(4)]
    assert cosine == pytest.approx([1, 0.5 * (1 + math.cos(math.pi / 4)), 0.5, 0.5 * (1 + math.cos(3 * math.pi / 4))])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"epsilon": "small"}, "the epsilon 'small'"),
        ({"schedule": "stairs"}, "the schedule 'stairs'"),
        ({"ramp": 2.0}, "a ramp from 0 to 1"),
    ],
)
def test_a_recipe_refuses_what_it_does_not_know(wrong, said):
    with pytest.raises(InputError, match=said):
        Recipe(**{"rate": 1.0, **wrong})


def test_short_runs_refuse_no_steps_and_an_unknown_domain():
    with pytest.raises(InputError, match="0 for steps"):
        ShortRuns("embedded", "chat", steps=0)
    with pytest.raises(InputError, match="the domain 'cooking'"):
        ShortRuns("embedded", "cooking", steps=1)


def test_gains_and_shares_are_paired_by_seed():
    first, second = [made(0, 4.0, 3.0), made(1, 4.0, 2.0)], [made(1, 4.0, 0.0), made(0, 4.0, 2.0)]
    assert gain_ratio(first, second).value == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert lost_share(first, second).value == pytest.approx((1 / 2 + 2 / 4) / 2)
    with pytest.raises(InputError, match="the same seeds"):
        gain_ratio(first, second[:1])


def test_a_search_finds_the_lowest_loss_and_says_when_it_lies_at_the_edge():
    losses = {1e-3: 3.0, 3e-3: 2.0, 1e-2: math.inf}
    found = search((1e-2, 1e-3, 3e-3), lambda rate: made(0, 4.0, losses[rate]))
    assert found.best == 3e-3 and found.interior
    assert not search((1e-3, 3e-3), lambda rate: made(0, 4.0, losses[rate])).interior
    with pytest.raises(InputError, match="diverged"):
        search((1.0,), lambda rate: made(0, 4.0, math.inf))


def test_published_mass_takes_the_smallest_of_its_three_rates_and_no_other(runs):
    trace = mass_run(runs, 0)
    assert len(trace.rates) == STEPS
    plan = runs.plan(0)
    chosen = plan.chosen()
    ceiling = min(t.sigma_k for t in chosen) / max(t.sigma_max for t in chosen)
    norm, loss = trace.run.gradients[0], trace.run.training[0]
    assert trace.rates[0] == pytest.approx((ceiling, loss / norm**2, min(t.sigma_k for t in chosen) / norm), rel=1e-4)


def test_the_binding_bound_is_the_smallest_and_its_share_is_counted_over_all_steps():
    trace = MassTrace(run=made(0, 1, 1), rates=((0.1, 0.2, 0.3), (0.1, 0.05, 0.3), (0.1, 0.2, 0.3), (0.1, 0.2, 0.01)))
    assert trace.binding() == ["ceiling", "sps", "ceiling", "weyl"]
    name, found = most_frequent([trace])
    assert (name, found.value, found.n) == ("ceiling", 0.5, 4)
    assert most_frequent([trace], batches=10_000)[1].value == 1.0


def test_only_geonbs_own_arms_have_a_controller(runs):
    def prepare(attached, plan):
        with pytest.raises(InputError, match="no controller"):
            controller_of(attached)

    runs.run(adamw(1e-3, "8"), 0, prepare=prepare)


def test_norms_from_the_core_are_those_of_the_whole_product(runs):
    seen = {}
    runs.run(adamw(1e-2, "8"), 0, watch=lambda step, attached, said: seen.update(attached=attached))
    found = norms(seen["attached"], runs.plan(0))
    for name, layer in list(lora_layers(seen["attached"], runs.plan(0)).items())[:3]:
        left, right, scale = factors_of(layer)
        assert found[name] == pytest.approx(
            float(torch.linalg.matrix_norm(scale * (left @ right).detach(), 2)), rel=1e-4
        )


def test_an_exact_start_has_the_norm_sigma_k_and_a_documented_one_at_most_that(runs):
    def prepare(attached, plan):
        exact = start_at(attached, plan, generator=torch.Generator().manual_seed(0))
        assert all(abs(ratio - 1) < 1e-5 for ratio in exact.values())
        loose = start_at(attached, plan, exact=False, generator=torch.Generator().manual_seed(0))
        assert max(loose.values()) < 1
        with pytest.raises(InputError, match="share 0"):
            start_at(attached, plan, share=0)

    runs.run(adamw(1e-3, "8"), 0, prepare=prepare)


def test_dropout_acts_in_training_and_not_in_scoring(runs):
    kept = {}

    def prepare(attached, plan):
        set_dropout(attached, plan, 0.9)
        kept["attached"] = attached
        with pytest.raises(InputError, match="from 0 to below 1"):
            set_dropout(attached, plan, 1.0)

    dropped = runs.run(adamw(1e-2, "8"), 0, prepare=prepare)
    plain = runs.run(adamw(1e-2, "8"), 0)
    # B = 0 at the first step: there is nothing yet to drop
    assert dropped.training[0] == plain.training[0] and dropped.training[-1] != plain.training[-1]
    scores = [runs.score(kept["attached"].model, 0)[0] for _ in range(2)]
    assert scores[0] == scores[1] == dropped.loss


def test_the_loss_change_test_and_frozen_batches(runs):
    assert fires([3.0, 2.0, 2.0001, 1.0, 1.0]) == [2, 4]
    assert share([(1, 10), (3, 10)]).value == pytest.approx(0.2)
    frozen = frozen_losses(runs, 0, STEPS)
    assert frozen[0] == pytest.approx(runs.run(adamw(1e-3, "8"), 0).training[0], abs=1e-6)
