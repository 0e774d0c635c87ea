"""Whether the ratio of depth to width says more of a model's trajectory than its depth does."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from geonb.errors import InputError
from geonb.geometry.measurement import Measurement


def untrained(base: Any, *, depth: int, width: int, seed: int = 0) -> Any:
    """An untrained model like the transformers model `base`, of another depth and width; heads keep their size.

    Its weights are drawn by its own initialiser with `seed`. Raises `InputError` where `width` does not divide into heads.
    """
    import copy

    import torch
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(base.config)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if depth < 1 or width < head or width % head:
        raise InputError(
            f"a depth of {depth} and a width of {width} were asked for; allowed are 1 and more, and multiples of the head's "
            f"size, {head}."
        )
    shape = {
        "num_hidden_layers": depth,
        "hidden_size": width,
        "intermediate_size": round(config.intermediate_size * width / config.hidden_size),
        "num_attention_heads": width // head,
        "num_key_value_heads": width // head,
        "layer_types": None,
    }
    for name, value in shape.items():
        if hasattr(config, name):
            setattr(config, name, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = AutoModelForCausalLM.from_config(config)
    return model.float().eval().requires_grad_(False)


def total_turning(model: Any, token_ids: Sequence[Sequence[int]]) -> float:
    """The angle (rad) that the last token's residual vector turns in all, block by block, mean over prompts."""
    from geonb.analysis import collect
    from geonb.geometry.point_cloud import row_angles

    collected = collect(model, token_ids, pool="last", states=("out",))
    states = [collected.matrix(layer) for layer in collected.layers]
    turned = [row_angles(before, after) for before, after in itertools.pairwise(states)]
    return float(np.sum(turned, axis=0).mean())


def partial_spearman(x: Any, y: Any, given: Any) -> float:
    """Spearman of x and y with the ranks of `given` taken out of both; nan where nothing is left of one."""
    from scipy.stats import rankdata

    ranks = np.stack([rankdata(one) for one in (x, y, given)]).astype(np.float64)
    ranks -= ranks.mean(1, keepdims=True)
    control = ranks[2]
    left = [one - control * (one @ control) / (control @ control) for one in ranks[:2]]
    scale = np.linalg.norm(left[0]) * np.linalg.norm(left[1])
    return float(left[0] @ left[1] / scale) if scale > 1e-9 * len(control) else float("nan")


def beyond_depth(
    depths: Sequence[int], widths: Sequence[int], trajectory: Sequence[float], *, resamples: int = 2000, seed: int = 0
) -> Measurement:
    """Partial Spearman of L/d and a trajectory's figure given L, models resampled; null: 95 % of permuted trajectories.

    Raises `InputError` below eight models, or where depths or widths do not vary.
    """
    depth, width, found = (np.asarray(one, dtype=np.float64) for one in (depths, widths, trajectory))
    if len(depth) < 8 or len(set(depth)) < 2 or len(set(width)) < 2:
        raise InputError(
            f"{len(depth)} models of {len(set(depth))} depths and {len(set(width))} widths were given; allowed are 8 and more, "
            "of at least two depths and two widths."
        )
    ratio = depth / width
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, len(depth), len(depth)) for _ in range(resamples)]
    drawn = [partial_spearman(ratio[row], found[row], depth[row]) for row in rows if len(set(depth[row])) > 1]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    chance = [abs(partial_spearman(ratio, rng.permutation(found), depth)) for _ in range(resamples)]
    return Measurement(
        value=partial_spearman(ratio, found, depth),
        interval=(float(low), float(high)),
        n=len(depth),
        null=float(np.nanquantile(chance, 0.95)),
        unit="partial Spearman",
        operator="ranks of L taken out of L/d and of the trajectory, bootstrap over models, null: 95 % of permutations",
    )
