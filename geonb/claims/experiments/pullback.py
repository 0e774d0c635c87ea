"""F3: the pullback metric of a Cayley chart along its training, and the exact Fisher matrix of a few parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geonb.adapters.bounded import inject, remove
from geonb.adapters.factors import CayleyFactors
from geonb.claims.experiments.block_maps import BlockMap, train_leaves
from geonb.data.batches import batch_at
from geonb.data.collate import pad_token
from geonb.data.example import Example
from geonb.errors import InputError
from geonb.geometry.spectrum import Spectrum
from geonb.models.runtime import TorchRuntime
from geonb.train.controllers.base import TrainedMatrix
from geonb.train.controllers.mass import Mass
from geonb.train.objective import forward_losses, to_tensors

PUBLISHED, SPREAD = "published", "spread"
_TINY = 1e-8  # variance of a free factor's entries in the published start


def chart_m(free, below) -> np.ndarray:
    """M = I + Z with Z = X - X^T + Y^T Y; X: (r, r), Y: (N - r, r), float64."""
    x, y = np.asarray(free, dtype=np.float64), np.asarray(below, dtype=np.float64)
    return np.eye(len(x)) + x - x.T + y.T @ y


def metric_distance(free, below) -> float:
    """||P - I||_F / sqrt(r), P = M M^T.

    >>> metric_distance(np.zeros((2, 2)), np.zeros((3, 2)))
    0.0
    """
    m = chart_m(free, below)
    return float(np.linalg.norm(m @ m.T - np.eye(len(m))) / np.sqrt(len(m)))


def slope(free, below, scales: Sequence[float], figure=metric_distance) -> float:
    """The slope of log figure(s X, s Y) against log s: 2 for a figure of second order, 1 for one of first."""
    x, y = np.asarray(free, dtype=np.float64), np.asarray(below, dtype=np.float64)
    values = [figure(scale * x, scale * y) for scale in scales]
    return float(np.polyfit(np.log(scales), np.log(values), 1)[0])


def z_norm(free, below) -> float:
    """||Z||_F, which is of first order."""
    m = chart_m(free, below)
    return float(np.linalg.norm(m - np.eye(len(m))))


@dataclass(frozen=True, slots=True)
class ChartRun:
    """One training: the distance of every matrix at every step (steps + 1, matrices), the losses, and the last X and Y."""

    distances: np.ndarray
    losses: list[float]
    factors: dict[str, tuple[np.ndarray, np.ndarray]]


def _factors(maps: Mapping[str, BlockMap], spectra: Mapping[str, Spectrum], rank: int, start: str, seed: int):
    draws = torch.Generator().manual_seed(seed)
    found = {}
    for name, one in maps.items():
        out_features, in_features = one.ref.shape
        # the budget is sigma_k, as geonb's charts have it by default
        chart = CayleyFactors(
            in_features, out_features, min(rank, in_features), budget=spectra[name].sigma_k, generator=draws
        )
        if start == PUBLISHED:
            with torch.no_grad():
                for leaf in (chart.X, chart.Y):
                    leaf.copy_(torch.randn(leaf.shape, generator=draws) * _TINY**0.5)
        elif start != SPREAD:
            raise InputError(f"the start {start!r} was given; allowed are {PUBLISHED} and {SPREAD}.")
        found[name] = chart
    return found


def train_chart(
    runtime: TorchRuntime,
    maps: Mapping[str, BlockMap],
    spectra: Mapping[str, Spectrum],
    examples: Sequence[Example],
    *,
    start: str,
    optimiser: str,
    rank: int,
    steps: int,
    batch: int,
    seed: int,
    rate: float = 3e-3,
) -> ChartRun:
    """Train a Cayley chart on every map by the documented controller ("mass") or by AdamW ("adam").

    The model is afterwards what it was.
    """
    factors = _factors(maps, spectra, rank, start, seed)
    adapters = inject(runtime.model, factors)
    distances: list[list[float]] = []

    def record(_step: int = 0) -> None:
        distances.append([metric_distance(*_free(one)) for one in factors.values()])

    try:
        record()
        if optimiser == "adam":
            leaves = [leaf for one in factors.values() for leaf in one.trained().values()]
            losses = train_leaves(
                runtime, leaves, examples, steps=steps, rate=rate, batch=batch, seed=seed, after=record
            )
        else:
            losses = _by_mass(runtime, factors, spectra, examples, steps, batch, seed, record)
        return ChartRun(np.array(distances), losses, {name: _free(one) for name, one in factors.items()})
    finally:
        remove(runtime.model, adapters)


def _free(one: CayleyFactors) -> tuple[np.ndarray, np.ndarray]:
    return one.X.detach().double().cpu().numpy(), one.Y.detach().double().cpu().numpy()


def _by_mass(runtime, factors, spectra, examples, steps, batch, seed, record) -> list[float]:
    matrices = tuple(
        TrainedMatrix(
            name=name,
            factors=one,
            sigma_k=spectra[name].sigma_k,
            sigma_max=spectra[name].sigma_max,
            gap_boundary=spectra[name].gap_boundary,
            budget=spectra[name].sigma_k,
        )
        for name, one in factors.items()
    )
    controller = Mass(matrices, horizon=steps, batches_per_epoch=max(1, len(examples) // batch))
    pad, losses = pad_token(runtime.tokenizer), []
    for step in range(steps):
        rows = batch_at(step, n_train=len(examples), batch_size=batch, seed=seed).tolist()
        found = forward_losses(runtime.model, to_tensors(examples, rows, pad, runtime.device))
        loss = found.nll.sum() / found.count.sum()
        for one in factors.values():
            one.zero_grad(set_to_none=True)
        loss.backward()
        losses.append(float(loss.detach()))
        controller.step(losses[-1], step)
        record()
    return losses


def text_gradients(
    runtime: TorchRuntime, leaves: Sequence[nn.Parameter], windows: np.ndarray, *, seed: int
) -> np.ndarray:
    """One gradient a text, (texts, parameters): of -log p of labels that the model itself draws, summed over the text.

    Their second moment is the Fisher matrix of the leaves, which are parameters of the model. `windows`: (texts, tokens).
    """
    from torch.func import functional_call, grad, vmap

    model = runtime.model
    wanted = {id(leaf) for leaf in leaves}
    held = {name: leaf.detach() for name, leaf in model.named_parameters() if id(leaf) in wanted}
    order = [next(name for name, one in model.named_parameters() if one is leaf) for leaf in leaves]
    draws = torch.Generator().manual_seed(seed)

    def loss(values: dict[str, Tensor], ids: Tensor, labels: Tensor) -> Tensor:
        logits = functional_call(model, values, kwargs={"input_ids": ids[None], "use_cache": False}).logits[0]
        return nn.functional.cross_entropy(logits.float(), labels, reduction="sum")

    rows, kept = [], model.config._attn_implementation
    # a fused attention kernel has no rule for gradients of many texts at once
    model.set_attn_implementation("eager")
    try:
        for start in range(0, len(windows), 64):
            ids = torch.as_tensor(windows[start : start + 64], dtype=torch.long, device=runtime.device)
            with torch.no_grad():
                chances = model(input_ids=ids, use_cache=False).logits.float().softmax(-1)
            drawn = torch.multinomial(chances.flatten(0, 1).cpu(), 1, generator=draws)
            labels = drawn.reshape(ids.shape).to(ids.device)
            found: Any = vmap(grad(loss), in_dims=(None, 0, 0))(held, ids, labels)
            rows.append(torch.cat([found[name].flatten(1) for name in order], 1).double().cpu().numpy())
    finally:
        model.set_attn_implementation(kept)
    return np.concatenate(rows)


def degenerate_share(gradients: np.ndarray, *, below: float = 0.01) -> tuple[float, np.ndarray]:
    """The share of the Fisher's eigenvalues that are below `below` times the largest, and all of them, descending."""
    values = np.linalg.eigvalsh(gradients.T @ gradients / len(gradients))[::-1].clip(min=0)
    return float((values < below * values[0]).mean()), values


def rank_one_leaves(runtime: TorchRuntime, name: str, maps: Mapping[str, BlockMap], *, seed: int) -> Any:
    """A rank-1 pair on one map with a random B, so that both factors have a gradient; returns (leaves, take it out)."""
    from geonb.adapters.factors import FreeFactors

    out_features, in_features = maps[name].ref.shape
    draws = torch.Generator().manual_seed(seed)
    factors = FreeFactors(torch.randn(1, in_features, generator=draws) / in_features**0.5, out_features, scale=1.0)
    with torch.no_grad():
        # as large as an adapter becomes, small beside W
        factors.B.copy_(torch.randn(out_features, 1, generator=draws) * 1e-2)
    factors = factors.to(runtime.device)
    adapters = inject(runtime.model, {name: factors})
    leaves: list[Tensor] = [factors.A, factors.B]
    return leaves, lambda: remove(runtime.model, adapters)
