"""W7: one trained adapter at many scales, in units of sigma_k / ||BA||_2 of each matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geonb.adapters.bounded import inject, remove, weight_change
from geonb.adapters.factors import FreeFactors
from geonb.claims.experiments.block_maps import BlockMap, changed, train_leaves
from geonb.data.collate import pad_token
from geonb.data.example import Example
from geonb.errors import InputError
from geonb.geometry.spectrum import Spectrum
from geonb.models.runtime import TorchRuntime
from geonb.train.objective import chunks, to_tensors


@dataclass(frozen=True, slots=True)
class MatrixScale:
    """What the bound of one matrix rests on: its spectrum, and ||BA||_2 of the adapter as trained."""

    sigma_k: float
    gap_boundary: float  # s_k - s_(k+1)
    norm: float  # ||BA||_2

    @property
    def bound(self) -> float:
        """sigma_k / ||BA||_2: the documented scale."""
        return self.sigma_k / self.norm

    @property
    def no_crossing(self) -> float:
        """gap / (2 ||BA||_2): below it Weyl keeps s_k and s_(k+1) apart."""
        return self.gap_boundary / (2 * self.norm)


def train_adapter(
    runtime: TorchRuntime,
    maps: Mapping[str, BlockMap],
    examples: Sequence[Example],
    *,
    rank: int,
    steps: int,
    rate: float,
    batch: int,
    seed: int,
) -> dict[str, Tensor]:
    """LoRA on every map by AdamW, A Gaussian and B zero, alpha = 2 r; the changes dW: (out, in), scale included.

    The model is afterwards what it was.
    """
    draws = torch.Generator().manual_seed(seed)
    factors = {}
    for name, one in maps.items():
        out_features, in_features = one.ref.shape
        small = min(rank, out_features, in_features)
        start = torch.randn(small, in_features, generator=draws) / math.sqrt(in_features)
        factors[name] = FreeFactors(start.to(runtime.device), out_features)
    adapters = inject(runtime.model, factors)
    try:
        leaves = [leaf for one in factors.values() for leaf in one.trained().values()]
        train_leaves(runtime, leaves, examples, steps=steps, rate=rate, batch=batch, seed=seed)
        with torch.no_grad():
            return {name: weight_change(adapter).detach().clone() for name, adapter in adapters.items()}
    finally:
        remove(runtime.model, adapters)


def random_like(changes: Mapping[str, Tensor], *, rank: int, seed: int) -> dict[str, Tensor]:
    """Gaussian changes of rank `rank` with the spectral norm that each of `changes` has."""
    draws = torch.Generator().manual_seed(seed)
    found = {}
    for name, change in changes.items():
        out_features, in_features = change.shape
        noise = torch.randn(out_features, rank, generator=draws) @ torch.randn(rank, in_features, generator=draws)
        found[name] = (noise * (spectral_norm(change) / spectral_norm(noise))).to(change.device)
    return found


def spectral_norm(change: Tensor) -> float:
    """||dW||_2, in float64."""
    return float(torch.linalg.matrix_norm(change.double(), 2))


def matrix_scales(spectra: Mapping[str, Spectrum], changes: Mapping[str, Tensor]) -> dict[str, MatrixScale]:
    """The bound of each matrix; raises `InputError` for a change that is zero, which every scale leaves safe."""
    found = {}
    for name, change in changes.items():
        norm = spectral_norm(change)
        if norm == 0:
            raise InputError(f"the adapter does not change {name}: train it for at least one step.")
        found[name] = MatrixScale(spectra[name].sigma_k, spectra[name].gap_boundary, norm)
    return found


def at_bound(
    changes: Mapping[str, Tensor], scales: Mapping[str, MatrixScale], multiple: float = 1.0
) -> dict[str, Tensor]:
    """Every matrix at `multiple` times its own bound, so that ||c dW||_2 = multiple sigma_k."""
    return {name: change * (multiple * scales[name].bound) for name, change in changes.items()}


def weyl_share(maps: Mapping[str, BlockMap], spectra: Mapping[str, Spectrum], changes: Mapping[str, Tensor]) -> float:
    """max over matrices of max_i |s_i(W + dW) - s_i(W)| / sigma_k."""
    worst = 0.0
    for name, change in changes.items():
        weight = maps[name].weight.double()
        moved = torch.linalg.svdvals(weight + change.double()) - torch.linalg.svdvals(weight)
        worst = max(worst, float(moved.abs().max()) / spectra[name].sigma_k)
    return worst


@torch.no_grad()
def task_figures(runtime: TorchRuntime, examples: Sequence[Example]) -> tuple[float, float]:
    """Mean loss (nats) and share of right greedy tokens, over the counted tokens, each predicted from the true ones before."""
    nll, right, count = 0.0, 0, 0
    for rows in chunks(np.arange(len(examples)), 32):
        batch = to_tensors(examples, rows, pad_token(runtime.tokenizer), runtime.device)
        logits = runtime.model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        ).logits
        labels = batch["labels"][:, 1:]
        counted = labels != -100
        logits, labels = logits[:, :-1][counted].float(), labels[counted]
        nll += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        right += int((logits.argmax(-1) == labels).sum())
        count += len(labels)
    return nll / count, right / count


def sweep(
    runtime: TorchRuntime,
    maps: Mapping[str, BlockMap],
    changes: Mapping[str, Tensor],
    examples: Sequence[Example],
    multiples: Sequence[float],
) -> tuple[np.ndarray, np.ndarray]:
    """Loss and accuracy with `changes` times each of `multiples`."""
    found = []
    for multiple in multiples:
        with changed(maps, {name: change * multiple for name, change in changes.items()}):
            found.append(task_figures(runtime, examples))
    losses, accuracies = np.array(found).T
    return losses, accuracies


def first_crossing(multiples: Sequence[float], values: Sequence[float], level: float) -> float:
    """The first c at which `values` rise above `level`, log-interpolated; the last of `multiples` where they never do.

    >>> first_crossing([1.0, 2.0, 4.0], [0.0, 0.0, 2.0], 1.0)
    2.8284271247461903
    """
    for place, value in enumerate(values):
        if not value <= level:  # nan is broken too
            if place == 0 or not math.isfinite(value):
                return float(multiples[place])
            before = values[place - 1]
            share = (level - before) / (value - before)
            low, high = math.log(multiples[place - 1]), math.log(multiples[place])
            return math.exp(low + share * (high - low))
    return float(multiples[-1])


def last_above(multiples: Sequence[float], values: Sequence[float], level: float) -> float:
    """The largest of `multiples` whose value is at least `level`; the first of them where none is."""
    kept = [multiple for multiple, value in zip(multiples, values, strict=True) if value >= level]
    return float(kept[-1] if kept else multiples[0])
