"""An arm put on a model: what is trained, how a step is made, how large the change of the weights is.

geonb's own methods are set up by the product's `equip`, so that the benchmark measures what `train run` does; every
rival comes from its own library: PEFT for the adapters, torch and the optimisers' packages for the steps.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from geonb.errors import InputError
from geonb.plan.plan import Plan
from geonb.train.setup import Equipment, equip
from geonb.workbench.benchmark.arm import VARIANTS, ZERO_KNOB, Arm
from geonb.workbench.benchmark.variants import Variant, top_outputs


@dataclass(slots=True)
class Attached:
    """A model with one arm on it; `step` is called after each backward pass with the mean loss and the step's number."""

    model: Any
    trained: Sequence[Tensor]
    step: Callable[[float, int], None]  # mean loss, number of the step
    changes: Callable[[], Iterator[tuple[str, float]]]  # matrix name, ||dW||_2
    state_tensors: Callable[[], list[Tensor]]
    scaled: Callable[[float], Any] | None = None  # a context in which dW is multiplied
    evaluating: Callable[[bool], None] = field(default=lambda on: None)
    ranks: dict[str, int] = field(default_factory=dict)


def plan_for(arm: Arm, plan: Plan) -> Plan:
    """`plan` with the arm's controller, targets, ranks, basis and budget in the place of the derived ones."""
    targets = []
    for target in plan.targets:
        chosen = target.chosen and (arm.targets == "all" or target.role in ("q", "v", "fused"))
        if not chosen:
            targets.append(dataclasses.replace(target, chosen=False, rank=0, basis="", budget=0.0, parameters=0))
            continue
        largest = min(target.shape)
        rank = target.rank if arm.rank == "tail" else min(int(arm.rank), largest)
        if arm.basis == "full":
            rank = target.shape[1]
        radius = arm.budget * (target.sigma_k if arm.unit_of_budget == "sigma_k" else target.sigma_max)
        targets.append(dataclasses.replace(target, rank=rank, basis=arm.basis, budget=radius))
    name = {"nb-lora": "mass"}.get(arm.method, arm.method)
    controller = {**plan.controller, "name": name, "basis": arm.basis, "sides": arm.sides}
    if arm.rate is not None:
        controller["rate"] = arm.rate
    return dataclasses.replace(plan, controller=controller, targets=tuple(targets))


def attach(arm: Arm, plan: Plan, *, device: str = "cpu") -> Attached:
    """Load the plan's model and put `arm` on it. Raises `InputError` where the arm's library is not installed."""
    own = plan_for(arm, plan)
    if arm.method in (*ZERO_KNOB, "scaled-gd", "nb-lora"):
        return _geonb(arm, own, device)
    if arm.method == "full":
        return _full(arm, own, device)
    return _peft(arm, own, device)


# -- geonb's own ------------------------------------------------------------------------------------------------------


def _geonb(arm: Arm, plan: Plan, device: str) -> Attached:
    from geonb.train.controllers.base import TrainedMatrix, leaves

    if arm.method == "nb-lora":
        plan = dataclasses.replace(plan, controller={k: v for k, v in plan.controller.items() if k != "rate"})
    equipment = equip(plan, device=device)
    matrices, horizon = equipment.matrices, int(plan.horizon["steps"])
    parameters = list(leaves(matrices).values())
    controller: Any = equipment.controller
    if arm.method == "frank-wolfe" and (arm.unit != 1.0 or arm.momentum != 0.5 or arm.is_variant):
        chosen = {
            name: getattr(arm, name) for name in ("unit", "momentum", "power", "polyak", *VARIANTS) if name != "outputs"
        }
        held = _top_outputs(equipment) if arm.outputs == "tail" else {}
        controller = Variant(matrices, horizon=horizon, held=held, **chosen)

    step: Callable[[float, int], None] = controller.step
    optimizer: Any = None
    if arm.method == "nb-lora":
        # the chart of the paper, with the optimiser of the paper
        optimizer = torch.optim.AdamW(parameters, lr=arm.rate or 0.0, weight_decay=0.0)
        inner = _scheduled(optimizer, arm, horizon, parameters)

        def clipped(loss: float, number: int) -> None:
            inner(loss, number)
            for matrix in matrices:
                matrix.factors.clip()  # type: ignore[operator]

        step = clipped

    def change(matrix: TrainedMatrix) -> float:
        whole = all(bool(leaf.isfinite().all()) for leaf in matrix.factors.trained().values())
        return matrix.factors.product_norm() if whole else math.inf

    @contextmanager
    def scaled(share: float) -> Iterator[None]:
        kept = [matrix.factors.trained()["B"].detach().clone() for matrix in matrices]
        with torch.no_grad():
            for matrix in matrices:
                matrix.factors.trained()["B"].mul_(share)
        try:
            yield
        finally:
            with torch.no_grad():
                for matrix, before in zip(matrices, kept, strict=True):
                    matrix.factors.trained()["B"].copy_(before)

    return Attached(
        model=equipment.model,
        trained=parameters,
        step=step,
        changes=lambda: ((matrix.name, change(matrix)) for matrix in matrices),
        state_tensors=lambda: list(controller.state().values()) if optimizer is None else _state_of(optimizer),
        scaled=scaled if arm.method == "frank-wolfe" else None,
        evaluating=getattr(controller, "evaluating", lambda on: None),
        ranks={target.name: target.rank for target in plan.chosen()},
    )


def _top_outputs(equipment: Equipment) -> dict[str, Tensor]:
    """Of every factor B the output directions that its matrix uses most, as many as lie above the tail."""
    refs = {ref.name: ref for ref in equipment.checkpoint.refs}
    return {
        f"{target.name}/B": top_outputs(
            equipment.checkpoint.read(refs[target.name]), min(target.shape) - target.tail_dims
        ).to(equipment.device)
        for target in equipment.plan.chosen()
    }


# -- rivals from their own libraries ----------------------------------------------------------------------------------


def _load(plan: Plan, device: str) -> Any:
    from geonb.models.checkpoint import Checkpoint
    from geonb.models.runtime import TorchRuntime

    return TorchRuntime.load(Checkpoint.open(plan.model["source"]), device=device).model


def _peft(arm: Arm, plan: Plan, device: str) -> Attached:
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer

    from geonb.adapters.peft_files import adapter_config

    model = _load(plan, device)
    chosen = [target for target in plan.chosen() if target.expert is None]
    transposed = any(type(model.get_submodule(target.module)).__name__ == "Conv1D" for target in chosen)
    known = {item.name for item in dataclasses.fields(LoraConfig)}
    config: dict[str, Any] = adapter_config({t.module: t.rank for t in chosen}, base="x", transposed=transposed)
    # alpha = 2r is the custom; PiSSA needs alpha = r, so that its start is the model itself
    factor = 1 if arm.form == "pissa" else 2
    config["lora_alpha"] = factor * int(config["lora_alpha"])
    config["alpha_pattern"] = {key: factor * rank for key, rank in config["alpha_pattern"].items()}
    config |= {"inference_mode": False, "use_rslora": arm.form == "rslora", "use_dora": arm.form == "dora"}
    if arm.form == "pissa":
        config["init_lora_weights"] = "pissa"
    originals = {t.name: _weight(model, t.module) for t in chosen}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(model, LoraConfig(**{key: value for key, value in config.items() if key in known}))
    layers = {t.name: wrapped.base_model.model.get_submodule(t.module) for t in chosen}
    parameters = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    optimizer = _optimizer(arm, wrapped, parameters)
    wrapped.eval()

    def changes() -> Iterator[tuple[str, float]]:
        with torch.no_grad():
            for name, layer in layers.items():
                before = originals[name]
                yield name, _norm(_merged(layer, name, originals) - before)

    @contextmanager
    def scaled(share: float) -> Iterator[None]:
        inner = [module for module in wrapped.modules() if isinstance(module, LoraLayer)]
        kept = [dict(module.scaling) for module in inner]
        for module in inner:
            for key in module.scaling:
                module.scaling[key] *= share
        try:
            yield
        finally:
            for module, before in zip(inner, kept, strict=True):
                module.scaling.update(before)

    mode = getattr(optimizer, "train", None) if arm.method == "schedule-free" else None
    return Attached(
        model=wrapped,
        trained=parameters,
        step=_scheduled(optimizer, arm, int(plan.horizon["steps"]), parameters),
        changes=changes,
        state_tensors=lambda: _state_of(optimizer),
        # PiSSA's and DoRA's change is not a multiple of the factors' product
        scaled=scaled if arm.form in ("lora", "rslora", "lora+") else None,
        evaluating=(lambda on: optimizer.eval() if on else optimizer.train())
        if mode is not None
        else (lambda on: None),
        ranks={target.name: target.rank for target in chosen},
    )


def _merged(layer: Any, name: str, originals: dict[str, Tensor]) -> Tensor:
    """The weight that the layer acts with, (out, in) as stored."""
    base = layer.get_base_layer()
    with torch.no_grad():
        if next(iter(layer.use_dora.values()), False):
            kept = base.weight.detach().clone()
            layer.merge()
            merged = base.weight.detach().clone()
            layer.unmerge()
            base.weight.data.copy_(kept)
            return merged
        return base.weight.detach() + layer.get_delta_weight("default")


def _full(arm: Arm, plan: Plan, device: str) -> Attached:
    model = _load(plan, device)
    model.requires_grad_(True)
    parameters = list(model.parameters())
    originals = {target.name: _weight(model, target.module) for target in plan.chosen()}
    modules = {target.name: target.module for target in plan.chosen()}
    optimizer = torch.optim.AdamW(parameters, lr=arm.rate or 0.0, weight_decay=0.0)
    return Attached(
        model=model,
        trained=parameters,
        step=_scheduled(optimizer, arm, int(plan.horizon["steps"]), parameters),
        changes=lambda: ((name, _norm(_weight(model, path) - originals[name])) for name, path in modules.items()),
        state_tensors=lambda: _state_of(optimizer),
    )


def _optimizer(arm: Arm, model: nn.Module, parameters: Sequence[Tensor]) -> Any:
    """The arm's optimiser over `parameters`; a package that is not there is named in one sentence."""
    rate = arm.rate or 0.0
    try:
        match arm.method:
            case "muon":
                return torch.optim.Muon(parameters, lr=rate, weight_decay=0.0)
            case "prodigy":
                from prodigyopt import Prodigy

                return Prodigy(parameters, lr=1.0)
            case "schedule-free":
                from schedulefree import AdamWScheduleFree

                made = AdamWScheduleFree(parameters, lr=arm.rate or 2.5e-3, weight_decay=0.0)
                made.train()
                return made
            case "dog":
                from dog import DoG

                return DoG(parameters, lr=1.0)
    except ImportError as error:
        raise InputError(
            f"the arm {arm.method} needs the package {error.name}, which is not installed: pip install 'geonb[benchmark]'."
        ) from None
    if arm.form == "lora+":
        # LoRA+ (Hayou et al. 2024): B learns 16 times as fast as A, the ratio that the paper recommends
        groups = {True: [], False: []}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                groups["lora_B" in name].append(parameter)
        return torch.optim.AdamW(
            [{"params": groups[False], "ratio": 1.0}, {"params": groups[True], "ratio": 16.0}],
            lr=rate,
            weight_decay=0.0,
        )
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)


def _scheduled(optimizer: Any, arm: Arm, horizon: int, parameters: Sequence[Tensor]) -> Callable[[float, int], None]:
    """Clip at 1, set the share of the rate that the step has, step, and clear the gradients."""
    peak = [group["lr"] for group in optimizer.param_groups]
    warm = max(1, math.ceil(0.05 * horizon))
    # these two come without a schedule: their papers promise to need none
    steady = arm.method in ("schedule-free", "dog") or arm.schedule == "constant"

    def step(loss: float, number: int) -> None:
        del loss
        share = 1.0
        if not steady:
            done = (number - warm) / max(1, horizon - warm)
            share = (number + 1) / warm if number < warm else 0.5 * (1 + math.cos(math.pi * done))
        for group, top in zip(optimizer.param_groups, peak, strict=True):
            group["lr"] = top * share * group.get("ratio", 1.0)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


def _weight(model: nn.Module, path: str) -> Tensor:
    weight = model.get_submodule(path).weight
    assert isinstance(weight, Tensor)
    return weight.detach().clone()


def _norm(matrix: Tensor) -> float:
    # the singular values of what diverged cannot be computed: it is larger than anything
    return float(torch.linalg.matrix_norm(matrix.float(), 2)) if bool(matrix.isfinite().all()) else math.inf


def _state_of(optimizer: Any) -> list[Tensor]:
    return [value for entry in optimizer.state.values() for value in entry.values() if isinstance(value, Tensor)]
