"""W6: changes of the weights that the probes cannot see, and what other texts see of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from geonb.claims.experiments.block_maps import BlockMap, changed
from geonb.models.runtime import TorchRuntime


@contextmanager
def watched(runtime: TorchRuntime, maps: Mapping[str, BlockMap]) -> Iterator[dict[str, list[Tensor]]]:
    """While open, the inputs of every map, (tokens, in) a forward pass; maps that share an input share the tensor."""
    seen: dict[str, list[Tensor]] = {name: [] for name in maps}
    handles = []

    def hook_of(name: str):
        def hook(_module, arguments):
            seen[name].append(arguments[0].detach().flatten(0, -2))

        return hook

    try:
        for name in maps:
            handles.append(runtime.model.get_submodule(name).register_forward_pre_hook(hook_of(name)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def probe_inputs(runtime: TorchRuntime, maps: Mapping[str, BlockMap], windows: np.ndarray) -> dict[str, Tensor]:
    """The inputs of every map on `windows` (texts, tokens), as (texts x tokens, in)."""
    with watched(runtime, maps) as seen:
        runtime.model(input_ids=torch.as_tensor(windows, device=runtime.device), use_cache=False)
    return {name: torch.cat(rows) for name, rows in seen.items()}


def used_directions(inputs: Tensor) -> Tensor:
    """An orthonormal basis of the rows of `inputs`: (in, rank), float64; what is below 1e-12 of the largest is round-off."""
    _, values, right = torch.linalg.svd(inputs.double(), full_matrices=False)
    return right[values > 1e-12 * values[0]].mT


def random_change(weight: Tensor, relative: float, draws: torch.Generator) -> Tensor:
    """Gaussian (out, in), float64, with ||dW||_F = relative ||W||_F."""
    noise = torch.randn(weight.shape, generator=draws, dtype=torch.float64).to(weight.device)
    return noise * (relative * weight.double().norm() / noise.norm())


def without(change: Tensor, basis: Tensor) -> Tensor:
    """dW (I - Q Q^T), brought back to the Frobenius norm of dW; zero where Q spans everything."""
    free = change - change @ basis @ basis.mT
    # what round-off leaves of nothing is nothing
    if basis.shape[1] >= change.shape[1]:
        return torch.zeros_like(change)
    return free * (change.norm() / free.norm())


@torch.no_grad()
def log_chances(runtime: TorchRuntime, windows: np.ndarray) -> Tensor:
    """log p of every next token, (texts, tokens, vocabulary), in the model's own precision."""
    ids = torch.as_tensor(windows, device=runtime.device)
    return runtime.model(input_ids=ids, use_cache=False).logits.log_softmax(-1)


def mean_kl(runtime: TorchRuntime, base: Tensor, windows: np.ndarray) -> float:
    """Mean over tokens of KL(base, model as it is now), nats."""
    now = log_chances(runtime, windows)
    return float((base.exp() * (base - now)).sum(-1).mean())


def damage(
    runtime: TorchRuntime,
    maps: Mapping[str, BlockMap],
    bases: Mapping[str, Tensor],
    sets: Mapping[str, np.ndarray],
    *,
    relative: float,
    seed: int,
) -> dict[tuple[str, str], float]:
    """Mean KL by (kind of change, set of texts): "plain", "projected" off `bases`, and off "random" spaces of that size."""
    before = {name: log_chances(runtime, windows) for name, windows in sets.items()}
    draws = torch.Generator().manual_seed(seed)
    changes: dict[str, dict[str, Tensor]] = {"plain": {}, "projected": {}, "random": {}}
    for name, one in maps.items():
        change = random_change(one.weight, relative, draws)
        size = (one.ref.shape[1], bases[name].shape[1])
        other = torch.linalg.qr(torch.randn(size, generator=draws, dtype=torch.float64))[0].to(change.device)
        changes["plain"][name] = change
        changes["projected"][name] = without(change, bases[name])
        changes["random"][name] = without(change, other)
    found = {}
    for kind, each in changes.items():
        with changed(maps, each):
            for name, windows in sets.items():
                found[kind, name] = mean_kl(runtime, before[name], windows)
    return found
