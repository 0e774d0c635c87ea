"""F4: what full fine-tuning does to each matrix, against what its spectrum before says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from geonb.claims.experiments.block_maps import block_maps, shipped_examples, train_leaves
from geonb.geometry.spectrum import Spectrum
from geonb.models.checkpoint import Checkpoint
from geonb.models.geometry import checkpoint_geometry
from geonb.models.runtime import TorchRuntime


@dataclass(frozen=True, slots=True)
class SpectrumTable:
    """One row a matrix: where it stands, and the scalars that F4 compares."""

    names: tuple[str, ...]
    roles: tuple[str, ...]
    full_rank: np.ndarray  # q
    stable_rank: np.ndarray
    tail_dims: np.ndarray
    effective_rank: np.ndarray


def spectrum_table(source: str) -> SpectrumTable:
    """The matrices of a checkpoint that are not zero and have q >= 2, embeddings and head among them."""
    found = [one for one in checkpoint_geometry(Checkpoint.open(source)) if not one.is_zero and min(one.ref.shape) > 1]
    return SpectrumTable(
        names=tuple(one.ref.module for one in found),
        roles=tuple(one.ref.role for one in found),
        full_rank=np.array([one.full_rank for one in found], dtype=float),
        stable_rank=np.array([one.stable_rank for one in found], dtype=float),
        tail_dims=np.array([one.tail_dims for one in found], dtype=float),
        effective_rank=np.array([one.effective_rank for one in found], dtype=float),
    )


def table_of(weights: dict[str, np.ndarray], roles: dict[str, str]) -> SpectrumTable:
    """The same of matrices in memory, such as those of a random twin."""
    spectra = {
        name: Spectrum.of(np.linalg.svd(weight, compute_uv=False), shape=weight.shape)
        for name, weight in weights.items()
    }
    return SpectrumTable(
        names=tuple(spectra),
        roles=tuple(roles[name] for name in spectra),
        full_rank=np.array([one.full_rank for one in spectra.values()], dtype=float),
        stable_rank=np.array([one.stable_rank for one in spectra.values()]),
        tail_dims=np.array([one.tail_dims for one in spectra.values()], dtype=float),
        effective_rank=np.array([one.effective_rank for one in spectra.values()]),
    )


def fine_tuned_ranks(
    source: str, data: str, *, seeds: Sequence[int], steps: int, rate: float, batch: int = 8, tokens: int = 64
) -> tuple[dict[str, np.ndarray], list[list[float]]]:
    """Effective rank of dW / q of each map inside the blocks after full fine-tuning by AdamW, one value a seed; the losses.

    The seed decides the order of the examples; every run begins at the checkpoint's own weights.
    """
    runtime = TorchRuntime.load(Checkpoint.open(source))
    maps = block_maps(runtime)
    examples = shipped_examples(runtime, data, tokens=tokens)
    start = {name: one.parameter.detach().clone() for name, one in maps.items()}
    ranks: dict[str, list[float]] = {name: [] for name in maps}
    traces = []
    for seed in seeds:
        leaves = [one.parameter for one in maps.values()]
        traces.append(train_leaves(runtime, leaves, examples, steps=steps, rate=rate, batch=batch, seed=seed))
        for name, one in maps.items():
            change = (one.parameter.detach() - start[name]).double()
            spectrum = Spectrum.of(torch.linalg.svdvals(change).cpu().numpy(), shape=(len(change), change.shape[1]))
            ranks[name].append(spectrum.effective_rank / spectrum.full_rank)
            with torch.no_grad():
                one.parameter.copy_(start[name])
    return {name: np.array(values) for name, values in ranks.items()}, traces


def selected_share(spectra: Sequence[Spectrum]) -> tuple[int, int]:
    """How many matrices that are not zero and have q >= 2 the rule tail_dims > 0 leaves out, of how many."""
    counted = [one for one in spectra if not one.is_zero and one.full_rank >= 2]
    return sum(one.tail_dims == 0 for one in counted), len(counted)


def extreme_spectra(rng: np.random.Generator, count: int) -> dict[str, Spectrum]:
    """Spectra to break the rule with: flat, rank one, nearly flat, and `count` random ones of many shapes and decays."""
    found = {}
    for q in (2, 3, 16, 256):
        found[f"flat, q = {q}"] = Spectrum.of(np.ones(q))
        found[f"rank one, q = {q}"] = Spectrum.of([1.0, *np.zeros(q - 1)])
        found[f"nearly flat, q = {q}"] = Spectrum.of(1.0 + 1e-12 * rng.random(q))
    for place in range(count):
        q = int(rng.integers(2, 300))
        values = rng.random(q) ** rng.uniform(0.0, 20.0) * 10.0 ** rng.uniform(-6, 6)
        found[f"random {place}"] = Spectrum.of(values, shape=(q, q + int(rng.integers(0, 100))))
    return found
