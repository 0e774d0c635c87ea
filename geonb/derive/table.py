"""The table of the fifteen: one module each, in the order of their numbers."""

from __future__ import annotations

from types import ModuleType

from geonb.derive import (
    adam_epsilon,
    batch_size,
    dropout,
    early_stopping,
    gradient_clipping,
    initialisation,
    learning_rate,
    lora_rank,
    lora_scale,
    momentum,
    residual_scaling,
    schedule,
    target_modules,
    warmup,
    weight_decay,
)
from geonb.derive.context import DerivationContext
from geonb.derive.derivation import Derivation
from geonb.derive.rounding import rounded

FIFTEEN: tuple[ModuleType, ...] = (
    learning_rate,
    adam_epsilon,
    momentum,
    weight_decay,
    gradient_clipping,
    warmup,
    schedule,
    batch_size,
    early_stopping,
    lora_scale,
    lora_rank,
    target_modules,
    dropout,
    initialisation,
    residual_scaling,
)


def derive_all(context: DerivationContext) -> tuple[Derivation, ...]:
    """All fifteen for one context, in the order of their numbers."""
    return tuple(module.derive(context) for module in FIFTEEN)


def recompute(derivation: Derivation) -> tuple[object, object]:
    """`(value, documented_value)` again from nothing but the stored inputs; equal to what is stored."""
    module = FIFTEEN[derivation.number - 1]
    outcome = module.compute(**derivation.inputs)
    return rounded(outcome.used), rounded(outcome.documented)
