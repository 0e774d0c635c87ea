"""W10: how many input directions the data use, and whether gradients can leave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geonb.claims.experiments.block_maps import BlockMap
from geonb.claims.experiments.null_space import used_directions, watched
from geonb.data.collate import pad_token
from geonb.data.example import Example
from geonb.geometry.spectrum import EPS, Spectrum
from geonb.models.runtime import TorchRuntime
from geonb.train.objective import chunks, forward_losses, to_tensors

_MANY = 2**15  # tokens


@dataclass(frozen=True, slots=True)
class DataRank:
    """The inputs of one map over a data set."""

    tokens: int
    numerical: int  # #{s_i > max(n, d) eps s_1}, float32's eps
    effective: float  # exp of the entropy of s_i^2 / sum s^2


@torch.no_grad()
def data_ranks(runtime: TorchRuntime, maps: Mapping[str, BlockMap], examples: Sequence[Example]) -> dict[str, DataRank]:
    """The rank of every map's inputs on `examples`, from A^T A summed over them in float64; padding is left out."""
    grams: dict[str, Tensor] = {}
    tokens = 0
    # the cut on s^2 is (n eps)^2: of few tokens it lies below what a float32 product can tell from zero
    precise = sum(len(example.input_ids) for example in examples) < _MANY
    with watched(runtime, maps) as seen:
        # one length together: no padding, and so no token that is none
        by_length: dict[int, list[int]] = {}
        for place, example in enumerate(examples):
            by_length.setdefault(len(example.input_ids), []).append(place)
        for rows in [part for whole in by_length.values() for part in chunks(np.array(whole), 32)]:
            batch = to_tensors(examples, rows, pad_token(runtime.tokenizer), runtime.device)
            runtime.model(input_ids=batch["input_ids"], use_cache=False)
            tokens += batch["input_ids"].numel()
            done: dict[int, Tensor] = {}
            for name, found in seen.items():
                (one,) = found
                # maps that read one tensor have one Gram matrix
                if one.data_ptr() not in done:
                    rows_seen = one.double() if precise else one
                    done[one.data_ptr()] = (rows_seen.mT @ rows_seen).double()
                grams[name] = grams.get(name, 0) + done[one.data_ptr()]
            for found in seen.values():
                found.clear()
    return {name: _rank(gram, tokens) for name, gram in grams.items()}


def _rank(gram: Tensor, tokens: int) -> DataRank:
    width = len(gram)
    values = torch.linalg.eigvalsh((gram + gram.mT) / 2).clamp(min=0).sqrt().cpu().numpy()[::-1]
    values = values[: min(tokens, width)]
    numerical = int((values > max(tokens, width) * EPS * values[0]).sum())
    return DataRank(tokens, numerical, Spectrum.of(values, shape=(tokens, width)).effective_rank)


def gradient_outside(
    runtime: TorchRuntime, maps: Mapping[str, BlockMap], examples: Sequence[Example]
) -> dict[str, tuple[float, float]]:
    """For every map ||G (I - Q Q^T)||_F / ||G||_F, Q the span of its inputs on `examples`, and the same of a random G."""
    leaves = {name: one.parameter for name, one in maps.items()}
    draws = torch.Generator().manual_seed(0)
    for leaf in leaves.values():
        leaf.requires_grad_(True)
    try:
        with watched(runtime, maps) as seen:
            batch = to_tensors(examples, range(len(examples)), pad_token(runtime.tokenizer), runtime.device)
            found = forward_losses(runtime.model, batch)
            (found.nll.sum() / found.count.sum()).backward()
        kept = batch["attention_mask"].flatten().bool()
        shares = {}
        for name, one in maps.items():
            basis = used_directions(seen[name][0][kept])
            gradient = one.parameter.grad
            assert gradient is not None
            gradient = (gradient.mT if one.ref.transposed else gradient).double()
            noise = torch.randn(gradient.shape, generator=draws, dtype=torch.float64).to(gradient.device)
            shares[name] = (_outside(gradient, basis), _outside(noise, basis))
        return shares
    finally:
        for leaf in leaves.values():
            leaf.requires_grad_(False)
            leaf.grad = None


def _outside(matrix: Tensor, basis: Tensor) -> float:
    return float((matrix - matrix @ basis @ basis.mT).norm() / matrix.norm().clamp_min(1e-300))
