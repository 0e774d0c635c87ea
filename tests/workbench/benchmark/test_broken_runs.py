"""Runs under conditions made to break a method: the horizon, the loss, the weights and the data are wrong as named."""

import dataclasses
import math

import pytest
import torch

from geonb.models.runtime import TorchRuntime
from geonb.plan.inputs import load_inputs
from geonb.workbench.benchmark import attach as attaching
from geonb.workbench.benchmark import derived
from geonb.workbench.benchmark.arm import OPEN, adamw
from geonb.workbench.benchmark.job import Job, Row
from geonb.workbench.benchmark.measure import score
from geonb.workbench.benchmark.models import model_source
from geonb.workbench.benchmark.plans import plan_of
from geonb.workbench.benchmark.run_job import run_job
from tests.tiny import tiny_model
from tests.workbench.benchmark.small import but_for_times
from tests.workbench.benchmark.test_run_job import Watched

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.usefixtures("small"),
]


@pytest.fixture
def make(tmp_path_factory):
    """A job on the tiny model, or on what a condition makes of it."""

    def made(arm, *, domain="arithmetic", horizon=4, condition="", **more):
        model = f"{tiny_model(tmp_path_factory)}{condition}"
        return Job(model=model, domain=domain, horizon=horizon, batch=8, seed=0, arm=arm, **more)

    return made


@pytest.fixture
def watched(monkeypatch):
    return Watched(monkeypatch)


def weights(watched):
    return [tensor.detach().clone() for tensor in watched.attached.trained]


@pytest.mark.parametrize("arm", [OPEN, adamw(1e-2, "8")], ids=lambda arm: arm.key)
def test_a_plan_four_times_too_long_is_the_first_quarter_of_the_longer_run(arm, make, data, watched):
    row = run_job(make(arm, planned=16), data)
    cut = watched.changes.copy()
    watched.changes.clear()
    whole = run_job(make(arm, horizon=16), data)
    assert len(cut) == 4 and cut == watched.changes[:4]
    assert [point for point in whole.curve if point[0] == 4] == row.curve[-1:]
    assert row.curve[-1][0] == row.job.steps == 4


@pytest.mark.parametrize("arm", [OPEN, adamw(1e-2, "8")], ids=lambda arm: arm.key)
def test_a_plan_four_times_too_short_ends_the_run_with_the_plan(arm, make, data):
    told = []
    row = run_job(make(arm, planned=1), data, progress=lambda step, total: told.append((step, total)))
    right = run_job(make(arm, horizon=1), data)
    assert told == [(1, 1)]
    same = dataclasses.replace(row, key=right.key, cell=right.cell, job=right.job)
    assert but_for_times(same) == but_for_times(right)


def test_a_loss_times_1024_gives_frank_wolfe_the_same_row_to_the_bit_and_times_1000_nearly(make, data, watched):
    plain = run_job(make(OPEN), data)
    first = weights(watched)
    losses, gradients = watched.losses.copy(), watched.gradients[0]
    watched.losses.clear()
    watched.gradients.clear()
    scaled = run_job(make(OPEN, loss_scale=1024.0), data)
    # a power of two moves no bit of a mantissa
    assert watched.losses == [1024 * loss for loss in losses]
    assert all(torch.equal(a, 1024 * b) for a, b in zip(watched.gradients[0], gradients, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, weights(watched), strict=True))
    same = dataclasses.replace(scaled, key=plain.key, cell=plain.cell, job=plain.job)
    assert but_for_times(same) == but_for_times(plain)
    near = run_job(make(OPEN, loss_scale=1000.0), data)
    assert near.validation == pytest.approx(plain.validation, abs=1e-3)


def test_a_scaled_loss_reaches_the_rival_through_its_clipping(make, data, watched):
    row = run_job(make(adamw(1e-2, "8"), loss_scale=1000.0), data)
    norm = math.sqrt(sum(float(tensor.square().sum()) for tensor in watched.gradients[0]))
    assert norm > 1
    # clipped to 1 before the step
    left = math.sqrt(sum(float(tensor.grad.square().sum()) for tensor in watched.attached.trained))
    assert left == pytest.approx(1.0, rel=1e-3)
    # what the row holds is measured, not scaled
    assert row.curve[0][1] == pytest.approx(row.base["validation"], abs=2e-5)


def test_sixty_four_examples_are_all_that_a_run_sees_and_it_is_evaluated_on_the_domains_own(make, data, watched):
    row = run_job(make(OPEN, domain="kjv+64", horizon=2), data)
    assert len(load_inputs(watched.plan).training) == 64
    whole = run_job(make(OPEN, domain="kjv", horizon=2), data)
    assert row.evaluation_digest == whole.evaluation_digest and row.data_digest != whole.data_digest
    assert row.base == whole.base


def test_in_a_dead_layer_frank_wolfe_moves_nothing_without_a_gradient_and_is_finite(make, data, watched):
    row = run_job(make(OPEN, condition="+dead"), data)
    chosen = [target.name for target in attaching.plan_for(OPEN, watched.plan).chosen()]
    zero = [target.name for target in watched.plan.targets if target.sigma_max == 0]
    assert len(zero) == 3 and not set(zero) & set(chosen)
    still = {name for name, tensor in zip(chosen, watched.attached.trained, strict=True) if not tensor.any()}
    # what feeds a zero output map gets no gradient; so do the keys of queries that are zero
    dead = {name for name in chosen if ".layers.0." in name}
    assert still == dead | {"model.layers.1.self_attn.k_proj.weight"} and len(dead) == 5
    assert row.validation < row.base["validation"] and 0 < row.over_budget <= 1


def test_a_rival_adapts_zero_matrices_like_any_other(make, data, watched):
    row = run_job(make(adamw(1e-2, "8"), condition="+dead", horizon=8), data)
    zero = {target.name for target in watched.plan.targets if target.sigma_max == 0}
    assert len(zero) == 3 and zero <= set(watched.attached.ranks)
    norms = watched.changes[-1]
    # the dead layer comes to life again
    assert all(norms[f"model.layers.0.{name}.weight"] > 0 for name in ("self_attn.o_proj", "mlp.down_proj"))
    assert math.isfinite(row.over_sigma_k) and row.validation < row.base["validation"]
    run_job(make(adamw(1e-2, "8"), horizon=1), data)
    assert not [target for target in watched.plan.targets if target.sigma_max == 0]


def test_a_model_that_was_trained_before_is_measured_on_its_first_domain_too(
    make, data, watched, tmp_path, monkeypatch
):
    monkeypatch.setenv("GEONB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(derived, "_BEFORE", 20)
    row = run_job(make(OPEN, domain="kjv", condition="+after-chat"), data)
    plan = plan_of(model_source(row.job.model), "chat", 4, 8, 0, data)
    inputs = load_inputs(plan)
    tokenizer = inputs.checkpoint.load_tokenizer()
    found = score(watched.attached.model, inputs.evaluation, pad=0, tokenizer=tokenizer)
    assert row.first == round(found.loss, 5)
    untouched = TorchRuntime.load(inputs.checkpoint, device="cpu").model
    base = score(untouched, inputs.evaluation, pad=0, tokenizer=tokenizer)
    assert row.base["first"] == round(base.loss, 5) != row.first
    plain = run_job(make(OPEN, domain="kjv"), data)
    assert plain.first is None and "first" not in plain.base
    assert Row.from_json(row.to_json()) == row
