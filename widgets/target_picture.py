"""The still picture of a plan's targets: the rank of every matrix by layer and role."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from geonb.models.matrix_ref import ROLES
from geonb.plan.plan import Plan
from geonb.widgets.spectrum_picture import draw_map, row_height
from geonb.widgets.svg import Picture, heat_colour


def rank_grid(plan: Plan) -> tuple[list[Any], list[str], np.ndarray]:
    """(layers, roles, largest rank by layer and role): 0 where a matrix is skipped, nan where there is none."""
    inside = [target for target in plan.targets if target.layer is not None]
    layers = sorted({target.layer for target in inside if target.layer is not None})
    roles = [role for role in ROLES if any(target.role == role for target in inside)]
    grid = np.full((len(layers), len(roles)), np.nan)
    for target in inside:
        place = layers.index(target.layer or 0), roles.index(target.role)
        grid[place] = np.fmax(grid[place], target.rank)
    return list(layers), roles, grid


def target_picture(plan: Plan) -> str:
    """Ranks as a map; a skipped matrix reads "skipped"."""
    layers, roles, grid = rank_grid(plan)
    width = 100 + 78 * max(1, len(roles))
    picture = Picture(max(520, width), round(72 + row_height(len(layers)) * len(layers)), title="ranks", hints=False)
    chosen = plan.chosen()
    picture.text(
        12, 18, f"Rank by layer and role: {len(chosen)} of {len(plan.targets)} matrices, {plan.n_parameters:,} parameters",
        kind="t",
    )  # fmt: skip
    top = float(np.nanmax(grid)) if grid.size and np.isfinite(grid).any() else 1.0
    shares, texts = {}, {}
    for (row, column), rank in np.ndenumerate(grid):
        if math.isfinite(rank):
            shares[row, column] = rank / max(top, 1.0)
            texts[row, column] = f"{rank:.0f}" if rank else "skipped"
    for index in range(11):
        picture.rectangle(84 + 12 * index, 26, 12, 8, heat_colour(index / 10))
    picture.text(80, 34, "0", anchor="end")
    picture.text(220, 34, f"{top:.0f}")
    draw_map(
        picture,
        shares,
        [f"layer {layer}" for layer in layers],
        roles,
        left=84,
        top=62,
        width=78 * len(roles),
        texts=texts,
    )
    return picture.svg()
