"""Numbers of a plan's matrices laid out as a table of layers and roles, for a picture."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from geonb.errors import InputError
from geonb.models.matrix_ref import ROLES
from geonb.plan.plan import Plan


def layer_table(plan: Plan, values: Mapping[str, float]) -> tuple[np.ndarray, list[str], list[str]]:
    """(layers, roles) of `values` by matrix name, with the names of rows and columns; NaN where there is none.

    Of several matrices of one role in a layer (experts) the cell holds the mean. Raises `InputError` where no name of
    `values` is a matrix of the plan.

    >>> layer_table(plan, plan.derivation("lora_rank").value)       # doctest: +SKIP
    """
    cells: dict[tuple[int, str], list[float]] = {}
    for target in plan.targets:
        if target.name in values and target.layer is not None:
            cells.setdefault((target.layer, target.role), []).append(float(values[target.name]))
    if not cells:
        raise InputError(
            "the values name no matrix of the plan: give a derivation's value or another number by matrix."
        )
    layers = sorted({layer for layer, _ in cells})
    roles = [role for role in ROLES if any(role == other for _, other in cells)]
    table = np.full((len(layers), len(roles)), np.nan)
    for (layer, role), found in cells.items():
        table[layers.index(layer), roles.index(role)] = float(np.mean(found))
    return table, [f"layer {layer}" for layer in layers], roles
