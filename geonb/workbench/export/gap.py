"""How far an exported model is from the base with its adapter: the largest logit gap, and KL, on stated probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geonb.geometry.measurement import Measurement
from geonb.geometry.statistics import bootstrap_interval

GAP, TYPICAL, KL_MEAN, KL_MAX, SAME_TOKEN = "logit gap", "logit gap of 90%", "KL mean", "KL max", "same token"
Logits = Callable[[Sequence[int]], Any]  # ids -> (tokens, vocabulary), float32 on the CPU


@dataclass(frozen=True, slots=True)
class Reference:
    """The logits of base + adapter on the probes in float32, their spread, and how far off the bare base is."""

    ids: tuple[tuple[int, ...], ...]
    logits: tuple[Any, ...]  # one (tokens, vocabulary) tensor a probe
    spread: float  # standard deviation of all logits
    probes: str
    base: dict[str, float]  # the same numbers for the base without its adapter
    base_last: tuple[Any, ...]  # the bare base's logits at the last token of each probe


@dataclass(frozen=True, slots=True)
class _Sums:
    gap: float
    typical: float
    means: list[float]
    largest: float
    same: int
    tokens: int

    def numbers(self) -> dict[str, float]:
        mean, share = float(np.mean(self.means)), self.same / self.tokens
        return {GAP: self.gap, TYPICAL: self.typical, KL_MEAN: mean, KL_MAX: self.largest, SAME_TOKEN: share}


def read_reference(ids: Sequence[Sequence[int]], probes: str, adapted: Logits, base: Logits) -> Reference:
    """Run base + adapter and the bare base over the probes; `probes` says in words what they are."""
    import torch

    logits = tuple(adapted(one) for one in ids)
    spread = float(torch.cat([one.flatten() for one in logits]).double().std())
    last = []

    def remembered(one):
        found = base(one)
        last.append(found[-1].clone())
        return found

    bare = Reference(tuple(map(tuple, ids)), logits, spread, probes, {}, ())
    numbers = _sum(bare, remembered).numbers()
    return Reference(bare.ids, logits, spread, probes, numbers, tuple(last))


def measure_gap(reference: Reference, exported: Logits, *, arithmetic: str) -> dict[str, Measurement]:
    """Five measurements of `exported` against the reference, by name.

    logit gap = max |z' - z| / std(z), over every probe token and vocabulary entry; of 90%: nine of ten tokens
    have no larger gap; KL = sum p log(p / p') in nats per
    token, p = softmax(z) of base + adapter, in float64 (mean: over the probes of their tokens' mean; max: one token);
    same token = the share of tokens with the same most probable next token. The null is the base without its adapter:
    an export as far off as that has lost the adapter. A logit that is not finite gives nan.
    """
    found = _sum(reference, exported)
    n = {
        GAP: found.tokens,
        TYPICAL: found.tokens,
        KL_MEAN: len(found.means),
        KL_MAX: found.tokens,
        SAME_TOKEN: found.tokens,
    }
    spreads = "standard deviations of the logits"
    unit = {GAP: spreads, TYPICAL: spreads, KL_MEAN: "nats per token", KL_MAX: "nats", SAME_TOKEN: "share"}
    operator = f"{arithmetic}, against base + adapter in float32 through PEFT, {reference.probes}; null: the bare base"
    interval = None
    if len(found.means) > 1 and np.isfinite(found.means).all():
        interval = bootstrap_interval(found.means, rng=np.random.default_rng(0))
    return {
        name: Measurement(
            value=value,
            interval=interval if name == KL_MEAN else None,
            n=n[name],
            null=reference.base[name],
            unit=unit[name],
            operator=operator,
        )
        for name, value in found.numbers().items()
    }


def _sum(reference: Reference, exported: Logits) -> _Sums:
    gaps, means, largest, same, tokens = [], [], [], 0, 0
    for ids, expected in zip(reference.ids, reference.logits, strict=True):
        given = exported(ids)
        # a model with a padded vocabulary may give more logits; what the base has no token for is not compared
        given = given[:, : expected.shape[1]]
        gaps += (given.double() - expected.double()).abs().amax(-1).tolist()
        p, q = expected.double().log_softmax(-1), given.double().log_softmax(-1)
        # rounding can make the sum a hair negative where p = p'
        divergence = (p.exp() * (p - q)).sum(-1).clamp(min=0)
        means.append(float(divergence.mean()))
        largest.append(float(divergence.max()))
        same += int((given.argmax(-1) == expected.argmax(-1)).sum())
        tokens += len(ids)
    # python's max drops a nan that is not first
    worst, typical = float(np.max(gaps)), float(np.quantile(gaps, 0.9))
    return _Sums(worst / reference.spread, typical / reference.spread, means, float(np.max(largest)), same, tokens)
