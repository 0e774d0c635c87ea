"""One run of the benchmark: repeatable, true to the product, and honest about what diverged."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from geonb.data.batches import batch_at
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.runtime import TorchRuntime
from geonb.plan.inputs import load_inputs
from geonb.train.training import Training
from geonb.workbench.benchmark import attach as attaching
from geonb.workbench.benchmark import run_job as runs
from geonb.workbench.benchmark.arm import OPEN, STRICT, THREE, Arm, adamw
from geonb.workbench.benchmark.job import Job, Row
from geonb.workbench.benchmark.measure import score
from geonb.workbench.benchmark.run_job import SCALES, run_job
from tests.tiny import tiny_model
from tests.workbench.benchmark.small import N_RETENTION, but_for_times

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.usefixtures("small"),
]


@pytest.fixture
def make(tmp_path_factory):
    """A job on the tiny model."""

    def made(arm, *, domain="arithmetic", horizon=4, batch=8, seed=0, **more):
        model = str(tiny_model(tmp_path_factory))
        return Job(model=model, domain=domain, horizon=horizon, batch=batch, seed=seed, arm=arm, **more)

    return made


class Watched:
    """What a run attached, the losses that its steps were told, and every matrix's change after each step."""

    def __init__(self, monkeypatch):
        whole = attaching.attach
        self.losses, self.changes, self.gradients = [], [], []

        def watching(arm, plan, **options):
            self.plan, self.attached = plan, whole(arm, plan, **options)
            step = self.attached.step

            def noted(loss, number):
                self.losses.append(loss)
                self.gradients.append([tensor.grad.clone() for tensor in self.attached.trained])
                step(loss, number)
                self.changes.append(dict(self.attached.changes()))

            self.attached.step = noted
            return self.attached

        monkeypatch.setattr(attaching, "attach", watching)


@pytest.fixture
def watched(monkeypatch):
    return Watched(monkeypatch)


def test_the_frontier_is_that_of_the_weights_which_were_scored(monkeypatch, make, data):
    whole, states = attaching.attach, []

    def watching(arm, plan, **options):
        attached = whole(arm, plan, **options)
        evaluating, scaled = attached.evaluating, attached.scaled
        at = [False]

        def told(on):
            at[0] = on
            evaluating(on)

        def noted(share):
            states.append(at[0])
            return scaled(share)

        attached.evaluating, attached.scaled = told, noted
        return attached

    monkeypatch.setattr(attaching, "attach", watching)
    run_job(make(Arm(method="schedule-free", rank="8")), data)
    assert states == [True] * len(SCALES)


@pytest.mark.parametrize("arm", [OPEN, adamw(1e-2, "8"), Arm(method="schedule-free", rank="8"), adamw(1e-2, "8", form="pissa")],
                         ids=lambda arm: arm.key)  # fmt: skip
def test_the_same_job_gives_the_same_row_but_for_its_times(arm, make, data):
    first = run_job(make(arm), data)
    torch.rand(7)  # what was drawn before must not matter
    second = run_job(make(arm), data)
    assert but_for_times(first) == but_for_times(second)
    assert Row.from_json(first.to_json()) == first
    assert first.validation < first.base["validation"]
    assert (first.key, first.cell) == (first.job.key, first.job.cell)


def test_another_seed_draws_other_data_and_another_arm_does_not(make, data):
    rows = [run_job(make(arm, seed=seed), data) for arm, seed in ((OPEN, 0), (STRICT, 0), (OPEN, 1))]
    digests = [(row.data_digest, row.evaluation_digest) for row in rows]
    assert digests[0] == digests[1] != digests[2]
    assert rows[0].base == rows[1].base != rows[2].base


def test_the_frank_wolfe_arm_is_the_product_to_the_bit(make, data, watched, monkeypatch):
    # the product cuts a batch into four to measure its noise: with parts of four both add in the same order
    monkeypatch.setattr(runs, "_LARGEST_MICRO", 4)
    run_job(make(OPEN, horizon=5, batch=16), data)
    ours = {id(tensor) for tensor in watched.attached.trained}
    plan = dataclasses.replace(watched.plan, batch={**watched.plan.batch, "micro": 4})
    training = Training(attaching.plan_for(OPEN, plan), device="cpu")
    for _ in training.events():
        pass
    assert training.step == 5
    theirs = list(training.leaves.values())
    assert len(theirs) == len(ours) and not ours & {id(tensor) for tensor in theirs}
    for one, other in zip(watched.attached.trained, theirs, strict=True):
        assert bool(other.any()) and torch.equal(one, other)


def test_a_row_says_what_the_model_at_its_end_scores(make, data, watched):
    row = run_job(make(adamw(1e-2, "8"), domain="chat"), data)
    inputs = load_inputs(watched.plan)
    tokenizer = inputs.checkpoint.load_tokenizer()
    found = score(watched.attached.model, inputs.evaluation, pad=0, tokenizer=tokenizer)
    assert (row.validation, row.exact) == (round(found.loss, 5), round(found.exact, 5))
    assert row.bits_per_byte == round(found.bits_per_byte, 5)
    kept = score(watched.attached.model, inputs.retention[:N_RETENTION], pad=0, tokenizer=tokenizer)
    assert row.retention == round(kept.loss, 5)
    untouched = TorchRuntime.load(Checkpoint.open(row.job.model), device="cpu").model
    base = score(untouched, inputs.evaluation, pad=0, tokenizer=tokenizer)
    assert row.base["validation"] == round(base.loss, 5)
    # the curve is measured by the product's evaluation, on all of a set this small
    assert row.curve[0][1] == pytest.approx(row.base["validation"], abs=2e-5)
    assert row.curve[-1][1] == pytest.approx(row.validation, abs=2e-5)
    assert row.trained == sum(tensor.numel() for tensor in watched.attached.trained)


def test_the_area_is_the_mean_of_the_curve_over_the_steps(make, data):
    row = run_job(make(adamw(1e-2, "8"), horizon=16), data)
    steps, losses = np.array(row.curve).T
    assert steps.tolist() == [0, 2, 4, 8, 12, 16]
    by_hand = sum((losses[i] + losses[i + 1]) / 2 * (steps[i + 1] - steps[i]) for i in range(5)) / 16
    assert row.area == pytest.approx(by_hand, abs=1e-5)


def test_the_frontier_is_the_adapter_with_its_factor_multiplied(make, data, watched):
    row = run_job(make(OPEN), data)
    inputs = load_inputs(watched.plan)
    tokenizer = inputs.checkpoint.load_tokenizer()
    assert [point[0] for point in row.frontier] == list(SCALES)
    for scale, validation, retention in row.frontier:
        kept = [tensor.detach().clone() for tensor in watched.attached.trained]
        with torch.no_grad():
            for tensor in watched.attached.trained:
                tensor.mul_(scale)
        for examples, said in ((inputs.evaluation, validation), (inputs.retention[:N_RETENTION], retention)):
            found = score(watched.attached.model, examples, pad=0, tokenizer=tokenizer)
            assert said == pytest.approx(found.loss, abs=2e-5)
        with torch.no_grad():
            for tensor, before in zip(watched.attached.trained, kept, strict=True):
                tensor.copy_(before)
    assert run_job(make(Arm(method="mass")), data).frontier == []


@pytest.mark.parametrize(
    "arm", [OPEN, STRICT, THREE, Arm(method="mass-layer"), adamw(1e-2, "8")], ids=lambda arm: arm.key
)
def test_the_largest_change_is_over_all_matrices_and_steps(arm, make, data, watched):
    row = run_job(make(arm, horizon=12), data)
    targets = {target.name: target for target in watched.plan.targets}
    assert row.checks == len(watched.changes) == 12
    in_sigma_k = max(norm / targets[name].sigma_k for step in watched.changes for name, norm in step.items())
    assert row.over_sigma_k == round(in_sigma_k, 4)
    if arm.method == "adamw":
        assert row.over_budget is None
        return
    unit = {"sigma_k": lambda target: target.sigma_k, "sigma_max": lambda target: target.sigma_max}[arm.unit_of_budget]
    radius = {name: arm.budget * unit(target) for name, target in targets.items()}
    in_budgets = max(norm / radius[name] for step in watched.changes for name, norm in step.items())
    assert 0 < row.over_budget <= 1
    assert row.over_budget == round(in_budgets, 6)


@pytest.mark.parametrize("batch", [4, 64])
def test_a_batch_in_parts_is_the_batch_as_one(batch, make, data, watched, monkeypatch):
    rows = {}
    for micro in (16, 64, 7):
        monkeypatch.setattr(runs, "_LARGEST_MICRO", micro)
        rows[micro] = run_job(make(adamw(1e-2, "8"), domain="chat", horizon=2, batch=batch), data)
    for micro in (64, 7):
        assert rows[micro].validation == pytest.approx(rows[16].validation, abs=3e-4)
    # and its loss is the mean over all the counted tokens of the batch, as a loop over its examples gives it
    inputs = load_inputs(watched.plan)
    drawn = batch_at(0, n_train=len(inputs.training), batch_size=batch, seed=0)
    assert len(drawn) == batch
    untouched = TorchRuntime.load(Checkpoint.open(rows[16].job.model), device="cpu").model
    nats, tokens = 0.0, 0
    for number in drawn:
        example = inputs.training[int(number)]
        ids = torch.tensor([example.input_ids])
        logs = torch.log_softmax(untouched(ids).logits[0].double(), -1)
        for place in range(1, len(example.input_ids)):
            if example.loss_mask[place]:
                nats, tokens = nats - float(logs[place - 1, ids[0, place]]), tokens + 1
    assert watched.losses[0] == pytest.approx(nats / tokens, rel=1e-5)


def test_every_arm_begins_at_the_same_loss_because_it_sees_the_same_batch(make, data, watched):
    arms = [OPEN, Arm(method="mass"), adamw(1e-2, "8"), Arm(method="full", rate=1e-3), Arm(method="dog", rank="8")]
    firsts = []
    for arm in arms:
        watched.losses.clear()
        run_job(make(arm, horizon=1), data)
        firsts.append(watched.losses[0])
    assert firsts == pytest.approx([firsts[0]] * len(arms), rel=1e-6)


@pytest.mark.parametrize(
    "arm",
    [adamw(1e30, "8"), Arm(method="full", rate=1e30), Arm(method="scaled-gd", rate=1e30)],
    ids=lambda arm: arm.key,
)
def test_a_run_that_diverges_says_so_by_none_and_ends(arm, make, data):
    steps = []
    row = run_job(make(arm), data, progress=lambda step, total: steps.append(step))
    measured = (
        row.validation,
        row.bits_per_byte,
        row.exact,
        row.retention,
        row.area,
        row.over_sigma_k,
        row.over_budget,
    )
    assert measured == (None,) * 7
    assert row.frontier == [] and len(steps) < 4
    back = Row.from_json(row.to_json())
    assert back.to_json() == Row.from_json(back.to_json()).to_json() and back.validation is None
    assert math.isnan(back.curve[-1][1])


@pytest.mark.parametrize("number", [0, 2, 3])
def test_a_loss_that_is_no_number_ends_the_run_even_in_its_last_step(number, make, data, monkeypatch):
    whole = attaching.attach

    def poisoned(arm, plan, **options):
        attached = whole(arm, plan, **options)
        step = attached.step

        def then_nan(loss, at):
            step(loss, at)
            if at == number:
                with torch.no_grad():
                    attached.trained[-1].fill_(math.nan)

        attached.step = then_nan
        return attached

    monkeypatch.setattr(attaching, "attach", poisoned)
    steps = []
    row = run_job(make(OPEN), data, progress=lambda step, total: steps.append(step))
    assert steps == list(range(1, number + 2))
    assert row.validation is row.area is row.over_budget is None


def test_a_solver_that_gives_up_is_a_run_that_diverged(make, data, monkeypatch):
    whole = attaching.attach

    def failing(arm, plan, **options):
        attached = whole(arm, plan, **options)
        attached.step = lambda loss, number: torch.linalg.solve(torch.zeros(2, 2), torch.ones(2, 1))
        return attached

    monkeypatch.setattr(attaching, "attach", failing)
    row = run_job(make(OPEN), data)
    assert row.validation is None and row.seconds_per_step == 0.0


def test_progress_is_told_after_every_step(make, data):
    told = []
    run_job(make(OPEN, horizon=3), data, progress=lambda step, total: told.append((step, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_an_unknown_domain_and_a_model_not_trained_yet_are_one_sentence(make, data):
    with pytest.raises(InputError, match="the domain 'law' was given; the benchmark has kjv"):
        run_job(make(OPEN, domain="law"), data)
    with pytest.raises(
        InputError, match="llama-9m-2k is not trained on this machine yet: run `geonb benchmark models llama-9m-2k`"
    ):
        run_job(dataclasses.replace(make(OPEN), model="llama-9m-2k"), data)
