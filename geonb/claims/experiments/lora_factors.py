"""The factors of a LoRA that PEFT has put on a model: their norms, another start, and dropout of its own for each matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from geonb.errors import InputError
from geonb.geometry.low_rank import product_norm
from geonb.plan.plan import Plan


def lora_layers(attached: Any, plan: Plan) -> dict[str, Any]:
    """PEFT's layer of each adapted matrix, by the matrix's name; raises `InputError` where PEFT has put none on the model."""
    from peft.tuners.lora import LoraLayer

    names = {target.module: target.name for target in plan.targets}
    found = {
        names[path.removeprefix("base_model.model.")]: module
        for path, module in attached.model.named_modules()
        if isinstance(module, LoraLayer)
    }
    if not found:
        raise InputError("what was attached has no LoRA layers of PEFT's: give an arm such as adamw.")
    return found


def factors_of(layer: Any) -> tuple[Tensor, Tensor, float]:
    """(B, A, scale) of a layer: (out, r), (r, in) and alpha / r, with dW = scale B A."""
    return layer.lora_B["default"].weight, layer.lora_A["default"].weight, float(layer.scaling["default"])


def norms(attached: Any, plan: Plan) -> dict[str, float]:
    """||dW||_2 of each adapted matrix, exactly, from the r x r core."""
    found = {}
    for name, layer in lora_layers(attached, plan).items():
        left, right, scale = factors_of(layer)
        found[name] = scale * float(product_norm(left.detach().double().numpy(), right.detach().double().numpy()))
    return found


@torch.no_grad()
def start_at(
    attached: Any, plan: Plan, *, share: float = 1.0, exact: bool = True, generator: torch.Generator | None = None
) -> dict[str, float]:
    """Start every matrix at ||dW||_2 = share sigma_k instead of 0, from Gaussian factors; returns the norms over sigma_k.

    As documented (`exact=False`) each factor is scaled to sqrt(share sigma_k) in spectral norm, which bounds the product
    and reaches it for rank one alone; `exact` scales both factors alike by what the product then lacks.
    """
    if not share > 0:
        raise InputError(f"the share {share} of sigma_k was given; allowed is any number above 0.")
    targets = {target.name: target for target in plan.targets}
    for name, layer in lora_layers(attached, plan).items():
        left, right, scale = factors_of(layer)
        wanted = share * targets[name].sigma_k / scale
        for factor in (left, right):
            drawn = torch.randn(factor.shape, generator=generator)
            factor.copy_(drawn * math.sqrt(wanted) / float(torch.linalg.matrix_norm(drawn, 2)))
        if exact:
            lacks = wanted / float(product_norm(left.double().numpy(), right.double().numpy()))
            left.mul_(math.sqrt(lacks))
            right.mul_(math.sqrt(lacks))
    return {name: norm / (share * targets[name].sigma_k) for name, norm in norms(attached, plan).items()}


def set_dropout(attached: Any, plan: Plan, rates: Mapping[str, float] | float) -> None:
    """Drop inputs of the adapters in training, at one rate for all or the rate of each matrix; scoring stays without."""
    found: list[nn.Dropout] = []
    for name, layer in lora_layers(attached, plan).items():
        rate = float(rates if isinstance(rates, int | float) else rates[name])
        if not 0 <= rate < 1:
            raise InputError(f"the dropout {rate:g} of {name} was given; allowed is a number from 0 to below 1.")
        made = nn.Dropout(rate)
        made.train()
        layer.lora_dropout["default"] = made
        found.append(made)
    before = attached.evaluating

    def evaluating(on: bool) -> None:
        before(on)
        for made in found:
            made.train(not on)

    attached.evaluating = evaluating
