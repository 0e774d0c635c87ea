"""Grouped queries timed: the same model with few and with many key-value heads, call by call in turns."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional

from geonb.coordinates.cache import KeyValueCache
from geonb.coordinates.configuration import Configuration
from geonb.coordinates.model import CoordinateModel
from geonb.geometry.inference import over_seeds
from geonb.geometry.measurement import Measurement


def with_heads(sizes: Configuration, heads: int) -> Configuration:
    """The same sizes with `heads` key-value heads."""
    return dataclasses.replace(sizes, key_value_heads=heads)


def paired_ratio(slow: Callable[[], object], fast: Callable[[], object], *, pairs: int) -> float:
    """The median over `pairs` of time(slow) / time(fast), called in turns, so that what else the machine does hits both."""
    for warm in (slow, fast):
        warm()
    ratios = []
    for place in range(pairs):
        taken = {}
        # who goes first changes, or a cache that the first warms would favour the second
        for name, call in (("slow", slow), ("fast", fast))[:: 1 if place % 2 else -1]:
            start = time.perf_counter()
            call()
            taken[name] = time.perf_counter() - start
        ratios.append(taken["slow"] / taken["fast"])
    return float(np.median(ratios))


@torch.no_grad()
def decoding(sizes: Configuration, *, cached: int, seed: int) -> tuple[Callable[[], object], KeyValueCache]:
    """A call that reads one more token behind `cached` others, and the cache that it grows."""
    model = CoordinateModel(sizes, seed=seed).eval()
    _fill(model, seed)
    tokens = torch.randint(0, sizes.vocabulary, (1, cached), generator=torch.Generator().manual_seed(seed))
    cache = KeyValueCache(mode="token")
    model(tokens, cache=cache)

    def call() -> object:
        with torch.no_grad():
            return model(tokens[:, :1], cache=cache).logits

    return call, cache


@torch.no_grad()
def reading(sizes: Configuration, *, tokens: int, seed: int) -> Callable[[], object]:
    """A call that reads a text of `tokens` at once."""
    model = CoordinateModel(sizes, seed=seed).eval()
    _fill(model, seed)
    text = torch.randint(0, sizes.vocabulary, (1, tokens), generator=torch.Generator().manual_seed(seed))

    def call() -> object:
        with torch.no_grad():
            return model(text).logits

    return call


def attention(heads: int, *, query_heads: int, head_width: int, cached: int, seed: int) -> Callable[[], object]:
    """A call of the attention alone, one query against `cached` keys and values of `heads` heads."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(1, query_heads, 1, head_width, generator=generator)
    keys, values = (torch.randn(1, heads, cached, head_width, generator=generator) for _ in range(2))

    def call() -> object:
        with torch.no_grad():
            return functional.scaled_dot_product_attention(query, keys, values, enable_gqa=heads != query_heads)

    return call


def ratio_of(ratios: Sequence[float], what: str) -> Measurement:
    """The geometric mean of the repeats' ratios with Student's interval of their logarithms."""
    logs = over_seeds(list(np.log(ratios)), unit="log", operator=what)
    assert logs.interval is not None
    return Measurement(
        value=float(np.exp(logs.value)),
        interval=(float(np.exp(logs.interval[0])), float(np.exp(logs.interval[1]))),
        n=len(ratios),
        null=1.0,
        unit="times",
        operator=f"{what}: geometric mean over repeats of the median over pairs; Student on logarithms",
    )


def _fill(model: CoordinateModel, seed: int) -> None:
    """Cores away from zero, as in a trained model."""
    generator = torch.Generator().manual_seed(seed)
    for layer in model.uses:
        for linear in layer.changes.values():
            cores = linear.factors.get_parameter("cores")
            cores.copy_(torch.randn(cores.shape, generator=generator) * 0.01)
