"""The one registry of controllers: the factors each of them moves, and the controller itself, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from geonb.adapters.factors import CayleyFactors, Factors, FreeFactors, OneSidedFactors, StiefelFactors, TwoSidedFactors
from geonb.errors import InputError
from geonb.train.controllers.base import Controller, TrainedMatrix
from geonb.train.controllers.baselines import AdamW, Muon, ScaledGD
from geonb.train.controllers.frank_wolfe import FrankWolfe
from geonb.train.controllers.mass import Mass
from geonb.train.controllers.mass_layer import MassLayer

CONTROLLERS: dict[str, Callable[..., Any]] = {
    "frank-wolfe": FrankWolfe,
    "mass": Mass,
    "mass-layer": MassLayer,
    "adamw": AdamW,
    "muon": Muon,
    "scaled-gd": ScaledGD,
}


def _check(name: str) -> None:
    if name not in CONTROLLERS:
        raise InputError(f"the controller {name!r} is not known; allowed are {', '.join(CONTROLLERS)}.")


def make_factors(
    name: str,
    *,
    basis: Tensor,
    in_features: int,
    out_features: int,
    rank: int,
    budget: float,
    sides: str = "one",
    seed: int = 0,
) -> Factors:
    """The factors of one matrix for the controller `name`; dW is zero for all of them.

    `basis`: (rank, in) with orthonormal rows, where the adapter starts or stays. Baselines draw their own A with `seed`.
    """
    _check(name)
    if name == "frank-wolfe":
        if sides not in ("one", "two"):
            raise InputError(f"the sides {sides!r} were given; allowed are one and two.")
        kind = OneSidedFactors if sides == "one" else TwoSidedFactors
        return kind(basis, out_features, budget=budget)
    generator = torch.Generator().manual_seed(seed)
    if name == "mass":
        return CayleyFactors(in_features, out_features, min(rank, in_features), budget=budget, generator=generator)
    if name == "mass-layer":
        return StiefelFactors(basis, out_features, budget=budget)
    # PEFT's default start: Kaiming-uniform with a = sqrt 5 is U(-1/sqrt in, 1/sqrt in)
    start = (2 * torch.rand(rank, in_features, generator=generator) - 1) * in_features**-0.5
    return FreeFactors(start.to(basis.device), out_features)


def make_controller(
    name: str, matrices: tuple[TrainedMatrix, ...], *, horizon: int, batches_per_epoch: int = 1, **options: Any
) -> Controller:
    """The controller `name` over `matrices`; `horizon` is T, `options` are a baseline's own (such as `rate`)."""
    _check(name)
    if name == "mass":
        options["batches_per_epoch"] = batches_per_epoch
    return CONTROLLERS[name](matrices, horizon=horizon, **options)
