"""An arm on a model: it starts as the model itself, moves, and says of itself what an independent look says."""

import builtins
import dataclasses
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from geonb.data.batches import batch_at
from geonb.errors import InputError
from geonb.plan import build_plan
from geonb.plan.inputs import load_inputs
from geonb.train.controllers.frank_wolfe import FrankWolfe
from geonb.train.objective import forward_losses, to_tensors
from geonb.workbench.benchmark.arm import OPEN, STRICT, THREE, Arm, adamw
from geonb.workbench.benchmark.attach import attach, plan_for
from tests.families import write_tiny
from tests.tiny import tiny_data, tiny_model, tiny_plan

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

FW = [
    OPEN,
    STRICT,
    THREE,
    Arm(method="frank-wolfe", sides="two"),
    Arm(method="frank-wolfe", sides="two", unit_of_budget="sigma_k"),
    *(Arm(method="frank-wolfe", basis=basis) for basis in ("top", "full", "gradient", "random")),
    Arm(method="frank-wolfe", unit=3.0),
    Arm(method="frank-wolfe", momentum=0.333),
    Arm(method="frank-wolfe", rank="8"),
    Arm(method="frank-wolfe", confirm="agreement"),
    Arm(method="frank-wolfe", outputs="tail"),
    Arm(method="frank-wolfe", power=0.25, decay="anytime", memory="anytime", average="schedule-free"),
]
BOUNDED = [*FW, Arm(method="mass"), Arm(method="mass-layer"), Arm(method="nb-lora", rate=3e-3, rank="8")]
PEFT = [
    *(adamw(1e-2, "8", form=form) for form in ("lora", "rslora", "pissa", "dora", "lora+")),
    adamw(1e-2, "8", targets="q+v"),
    adamw(1e-2),
    Arm(method="muon", rate=1e-2, rank="8"),
    Arm(method="prodigy", rank="8"),
    Arm(method="schedule-free", rank="8"),
    Arm(method="dog", rank="8"),
    Arm(method="adamw", rate=1e-2, rank="8", schedule="constant"),
]
FREE = [*PEFT, Arm(method="scaled-gd", rate=0.1), Arm(method="full", rate=1e-3)]
PISSA = "form=pissa"


def named(arms):
    return pytest.mark.parametrize("arm", arms, ids=lambda arm: arm.key)


class Held:
    """An arm on a model, with the steps of the benchmark and an eye that knows nothing of adapters."""

    def __init__(self, arm, plan):
        torch.manual_seed(0)
        self.arm, self.plan, self.inputs = arm, plan, load_inputs(plan)
        self.attached = attach(arm, plan)
        self.number = 0
        self.ids = torch.tensor([self.inputs.training[0].input_ids[:12], self.inputs.training[1].input_ids[:12]])
        self.weights = load_file(f"{plan.model['source']}/model.safetensors")

    def logits(self):
        with torch.no_grad():
            return self.attached.model(input_ids=self.ids, use_cache=False).logits.clone()

    def step(self):
        rows = [int(row) for row in batch_at(self.number, n_train=len(self.inputs.training), batch_size=8, seed=0)]
        for tensor in self.attached.trained:
            tensor.grad = None
        losses = forward_losses(self.attached.model, to_tensors(self.inputs.training, rows, 0, torch.device("cpu")))
        loss = losses.nll.sum() / losses.count.sum()
        loss.backward()
        self.attached.step(float(loss.detach()), self.number)
        self.number += 1

    def seen(self):
        """||W' - W||_2 by numpy, W' read off what the module does to the unit vectors, W from the file."""
        model = getattr(self.attached.model, "base_model", None)
        model = model.model if self.arm in PEFT and model is not None else self.attached.model
        found = {}
        for target in plan_for(self.arm, self.plan).chosen():
            module = model.get_submodule(target.module)
            stored = self.weights[f"{target.module}.weight"].numpy().astype(float)
            # a Conv1D stores (in, out) and a Linear (out, in)
            fan_in = target.shape[1]
            with torch.no_grad():
                acts = (module(torch.eye(fan_in)) - module(torch.zeros(fan_in, fan_in))).numpy().astype(float)
            is_conv = "c_" in target.module
            found[target.name] = np.linalg.norm(acts - (stored if is_conv else stored.T), 2)
        return found


def base_logits(plan, ids):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(plan.model["source"], dtype=torch.float32)
    with torch.no_grad():
        return model.eval()(input_ids=ids, use_cache=False).logits


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return tiny_plan(tmp_path_factory, 4)


@pytest.fixture(scope="module")
def gpt2_plan(tmp_path_factory):
    folder = write_tiny(
        "gpt2", tmp_path_factory.mktemp("gpt2") / "model", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    )
    return build_plan(folder, tiny_data(tmp_path_factory), max_steps=4, calibrate=False)


def check(arm, plan):
    """The whole life of an arm: the base at step 0, three steps, and the change of every matrix each time."""
    # these two begin with steps of 1e-6 and find their length on the way
    begun = 30 if arm.method in ("prodigy", "dog") else 0
    plan = dataclasses.replace(plan, horizon={**plan.horizon, "steps": max(4, 4 * begun)})
    held = Held(arm, plan)
    base = base_logits(plan, held.ids)
    assert torch.allclose(held.logits(), base, rtol=0, atol=1e-4 if PISSA in arm.key else 0)
    budgets = {target.name: target.budget for target in plan_for(arm, plan).chosen()}
    for _ in range(begun):
        held.step()
    for _ in range(3):
        held.step()
        said, seen = dict(held.attached.changes()), held.seen()
        assert said.keys() == seen.keys() == budgets.keys()
        for name in seen:
            assert said[name] == pytest.approx(seen[name], rel=2e-3, abs=2e-5)
            if arm in BOUNDED:
                assert 0 < said[name] <= budgets[name]
    assert max(seen.values()) > 1e-3
    assert not torch.allclose(held.logits(), base, rtol=0, atol=1e-4)
    return held


@named([*BOUNDED, *FREE])
def test_an_arm_starts_as_the_model_moves_and_says_how_far(arm, plan):
    check(arm, plan)


@named([OPEN, Arm(method="mass"), adamw(1e-2, "8"), adamw(1e-2, "8", form="pissa"), adamw(1e-2, "8", form="dora"),
        adamw(1e-2, "8", targets="q+v"), Arm(method="full", rate=1e-3)])  # fmt: skip
def test_the_same_holds_on_a_model_that_stores_its_weights_transposed(arm, gpt2_plan):
    held = check(arm, gpt2_plan)
    assert any("c_attn" in name for name, _ in held.attached.changes())
    if arm.targets == "q+v":
        assert all("c_attn" in name for name, _ in held.attached.changes())


@named(PEFT)
def test_the_change_is_what_peft_itself_merges(arm, plan):
    held = Held(arm, plan)
    for _ in range(3):
        held.step()
    said = dict(held.attached.changes())
    state = held.attached.model.merge_and_unload().state_dict()
    for target in plan_for(arm, plan).chosen():
        before, after = (those[f"{target.module}.weight"].double().numpy() for those in (held.weights, state))
        assert said[target.name] == pytest.approx(np.linalg.norm(after - before, 2), rel=2e-3, abs=2e-5)


@named([OPEN, FW[3], *(arm for arm in PEFT if arm.form in ("lora", "rslora", "lora+"))])
def test_scaled_by_nothing_an_arm_is_its_base_and_afterwards_itself_to_the_byte(arm, plan):
    held = Held(arm, plan)
    for _ in range(3):
        held.step()
    kept, before = held.logits(), [tensor.detach().clone() for tensor in held.attached.trained]
    whole = held.seen()
    with held.attached.scaled(0.0):
        assert torch.equal(held.logits(), base_logits(plan, held.ids))
    with held.attached.scaled(0.5):
        assert held.seen() == pytest.approx({name: norm / 2 for name, norm in whole.items()}, rel=2e-3, abs=2e-5)
    with pytest.raises(KeyboardInterrupt), held.attached.scaled(0.2):
        raise KeyboardInterrupt
    assert torch.equal(held.logits(), kept)
    assert all(torch.equal(*pair) for pair in zip(held.attached.trained, before, strict=True))


@named([arm for arm in [*BOUNDED, *FREE] if arm.method not in ("frank-wolfe",) and arm not in PEFT])
def test_a_change_that_is_no_product_with_a_free_factor_is_not_scaled(arm, plan):
    assert attach(arm, plan).scaled is None


def test_full_fine_tuning_trains_every_parameter(plan):
    attached = attach(Arm(method="full", rate=1e-3), plan)
    everything = list(attached.model.parameters())
    assert [id(tensor) for tensor in attached.trained] == [id(tensor) for tensor in everything]
    assert all(tensor.requires_grad for tensor in everything)
    stored = load_file(f"{plan.model['source']}/model.safetensors")
    assert sum(tensor.numel() for tensor in attached.trained) == sum(tensor.numel() for tensor in stored.values())


def test_only_the_factors_of_the_chosen_matrices_are_trained(plan):
    attached = attach(adamw(1e-2, "8", targets="q+v"), plan)
    names = [name for name, tensor in attached.model.named_parameters() if tensor.requires_grad]
    assert len(names) == len(attached.trained) == 2 * len(attached.ranks)
    assert all("q_proj" in name or "v_proj" in name for name in names)
    shapes = {target.name: target.shape for target in plan.targets}
    expected = sum(rank * sum(shapes[name]) for name, rank in attached.ranks.items())
    assert sum(tensor.numel() for tensor in attached.trained) == expected
    assert set(attached.ranks.values()) == {8}


def test_the_customary_scale_is_two_whatever_the_rank_and_for_pissa_one(plan):
    from peft.tuners.lora import LoraLayer

    def scales(arm):
        modules = attach(arm, plan).model.modules()
        return {(m.scaling["default"], m.r["default"]) for m in modules if isinstance(m, LoraLayer)}

    assert {scale for scale, _ in scales(adamw(1e-2))} == {2.0}
    assert {scale for scale, _ in scales(adamw(1e-2, "8", form="pissa"))} == {1.0}
    for scale, rank in scales(adamw(1e-2, "8", form="rslora")):
        assert scale == pytest.approx(2 * rank / math.sqrt(rank))


def test_lora_plus_moves_b_sixteen_times_as_far_in_its_first_step_as_its_rate(plan):
    held, plain = Held(adamw(1e-3, "8", form="lora+"), plan), Held(adamw(1e-3, "8"), plan)
    for one in (held, plain):
        one.step()

    def moved(one):
        return {name: tensor.detach() for name, tensor in one.attached.model.named_parameters() if "lora_B" in name}

    # AdamW's first step is the rate times the sign of the gradient, and B starts at zero in both
    fast, slow = moved(held), moved(plain)
    largest = max(float(tensor.abs().max()) for tensor in fast.values())
    assert largest == pytest.approx(16 * max(float(tensor.abs().max()) for tensor in slow.values()), rel=1e-3)
    assert largest == pytest.approx(16e-3, rel=1e-2)


def test_the_rate_warms_up_and_falls_to_zero_along_a_cosine(plan):
    # sixty steps: three of warm-up; each share of the rate is read off from a parameter whose gradient is always one
    long = dataclasses.replace(plan, horizon={**plan.horizon, "steps": 60})
    attached = attach(adamw(1e-3, "8"), long)
    parameter = next(tensor for tensor in attached.trained if not bool(tensor.any()))
    moves = []
    for number in range(60):
        for tensor in attached.trained:
            tensor.grad = torch.zeros_like(tensor)
        parameter.grad[0, 0] = 1.0
        before = float(parameter[0, 0].detach())
        attached.step(1.0, number)
        moves.append(before - float(parameter[0, 0].detach()))
    shares = [1e-3 * ((n + 1) / 3 if n < 3 else (1 + math.cos(math.pi * (n - 3) / 57)) / 2) for n in range(60)]
    assert moves == pytest.approx(shares, rel=1e-3, abs=1e-8)


def test_the_rule_without_a_schedule_is_evaluated_at_its_average_and_goes_on_from_where_it_was(plan):
    held = Held(Arm(method="schedule-free", rank="8"), plan)
    largest = max(range(len(held.attached.trained)), key=lambda index: held.attached.trained[index].numel())
    for number in range(1, 4):
        held.step()
        here = [tensor.detach().clone() for tensor in held.attached.trained]
        held.attached.evaluating(True)
        averages = [tensor.detach().clone() for tensor in held.attached.trained]
        held.attached.evaluating(False)
        # gradients are taken at y = 0.1 z + 0.9 x (Defazio et al. 2024), x the average that is evaluated
        state = held.attached.state_tensors()
        hidden = [tensor for tensor in state if tensor.shape == here[largest].shape]
        expected = [(here[largest] - 0.1 * tensor) / 0.9 for tensor in hidden]
        assert any(torch.allclose(averages[largest], one, rtol=1e-4, atol=1e-6) for one in expected)
        assert number == 1 or not torch.allclose(averages[largest], here[largest], rtol=0, atol=1e-5)
        back = [tensor.detach() for tensor in held.attached.trained]
        assert all(torch.allclose(*pair, rtol=0, atol=1e-6) for pair in zip(here, back, strict=True))


def test_a_form_with_an_average_is_evaluated_there_and_goes_on_from_where_it_was(plan):
    held = Held(dataclasses.replace(OPEN, average="schedule-free"), plan)
    held.step()
    held.step()
    here = held.logits()
    held.attached.evaluating(True)
    average = held.logits()
    held.attached.evaluating(False)
    assert not torch.allclose(here, average, rtol=0, atol=1e-5)
    assert torch.allclose(held.logits(), here, rtol=0, atol=1e-5)


def test_every_field_of_a_variant_reaches_its_controller(plan):
    fields = {"unit": 2.0, "momentum": 0.25, "power": 0.5, "confirm": "agreement", "decay": "cosine",
              "memory": "noise", "average": "schedule-free"}  # fmt: skip
    controller = attach(Arm(method="frank-wolfe", **fields), plan).step.__self__
    fields["exponent"] = fields.pop("momentum")
    assert {name: getattr(controller, name) for name in fields} == fields
    assert controller.horizon == plan.horizon["steps"]


@pytest.mark.parametrize("form", [{}, {"budget": 3.0, "unit_of_budget": "sigma_k"}], ids=["sigma_max", "3 sigma_k"])
def test_from_tail_to_tail_the_first_singular_triplets_of_every_matrix_stay(form, plan):
    held = Held(Arm(method="frank-wolfe", outputs="tail", **form), plan)
    for _ in range(3):
        held.step()
    moved = 0.0
    for target in plan.chosen():
        k = min(target.shape) - target.tail_dims
        weight = held.weights[f"{target.module}.weight"].numpy().astype(float)
        module = held.attached.model.get_submodule(target.module)
        with torch.no_grad():
            fan_in = target.shape[1]
            changed = (module(torch.eye(fan_in)) - module(torch.zeros(fan_in, fan_in))).numpy().astype(float).T
        left, values, right = np.linalg.svd(weight)
        for side in (
            changed @ right[:k].T - left[:, :k] * values[:k],
            changed.T @ left[:, :k] - right[:k].T * values[:k],
        ):
            assert np.abs(side).max() < 1e-5 * values[0]
        moved = max(moved, np.abs(changed - weight).max() / values[0])
    assert moved > 1e-3


def test_an_arm_that_exchanges_nothing_is_the_product(plan):
    assert type(attach(THREE, plan).step.__self__) is FrankWolfe


def test_the_gradient_is_clipped_at_one_for_every_rival(plan):
    attached = attach(adamw(1e-3, "8"), plan)
    for tensor in attached.trained:
        tensor.grad = torch.full_like(tensor, 100.0)
    attached.step(1.0, 0)
    total = math.sqrt(sum(float(tensor.grad.double().square().sum()) for tensor in attached.trained))
    assert total == pytest.approx(1.0, rel=1e-4)


@named([OPEN, Arm(method="nb-lora", rate=1e-3, rank="8"), adamw(1e-3, "8"), Arm(method="full", rate=1e-3)])
def test_the_state_is_what_the_rule_keeps_from_step_to_step(arm, plan):
    held = Held(arm, plan)
    held.step()
    numbers = sum(tensor.numel() for tensor in held.attached.trained)
    kept = sum(tensor.numel() for tensor in held.attached.state_tensors() if tensor.numel() > 1)
    # one averaged gradient, or AdamW's two moments
    assert kept == numbers * (1 if arm.method == "frank-wolfe" else 2)


@named([Arm(method="scaled-gd", rate=0.1), adamw(1e-3, "8"), Arm(method="full", rate=1e-3)])
def test_the_change_of_what_diverged_is_infinite_and_no_error(arm, plan):
    attached = attach(arm, plan)
    with torch.no_grad():
        for tensor in attached.trained:
            tensor.fill_(math.nan)
    assert {norm for _, norm in attached.changes()} == {math.inf}


@pytest.mark.parametrize(
    ("method", "package"), [("prodigy", "prodigyopt"), ("schedule-free", "schedulefree"), ("dog", "dog")]
)
def test_an_optimiser_that_is_not_installed_is_one_sentence(method, package, plan, monkeypatch):
    whole = builtins.__import__

    def without(name, *rest, **more):
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return whole(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError) as caught:
        attach(Arm(method=method, rank="8"), plan)
    assert str(caught.value) == (
        f"the arm {method} needs the package {package}, which is not installed: pip install 'geonb[benchmark]'."
    )


def test_the_tiny_model_has_what_these_tests_are_about(tmp_path_factory, plan):
    # without q and v, or with one matrix, half of the above would say nothing
    assert plan.model["source"] == str(tiny_model(tmp_path_factory))
    assert {"q", "v"} < {target.role for target in plan.chosen()}
    assert len(plan.chosen()) >= 8
