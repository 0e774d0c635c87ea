"""Adaptive decoding: sample where the coordinate says that the text turns, take the likeliest token elsewhere.

Where the innovation u of the last token is above the threshold the next token is drawn from the nucleus, the smallest set of
tokens that holds 0.92 of the mass (Holtzman et al. 2020; the token that crosses it belongs to it), else it is the likeliest one.
The control switches on the entropy of the next token instead, which needs no coordinate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from geonb.coordinates.cache import KeyValueCache
from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.uncertainty import THRESHOLD, RunningContext
from geonb.errors import InputError

SWITCHES = ("uncertainty", "entropy", "always", "never")
NUCLEUS = 0.92


@dataclass(frozen=True, slots=True)
class GeneratedToken:
    """One token as it is made, with what decided how."""

    token: int
    uncertainty: float  # u of the token before it
    entropy: float  # nats, of the distribution that it comes from
    sampled: bool


def nucleus(probabilities: Tensor, mass: float = NUCLEUS) -> Tensor:
    """The distribution (..., vocabulary) on its smallest set of at least `mass`, made to sum to 1 again.

    >>> nucleus(torch.tensor([0.5, 0.3, 0.15, 0.05]), 0.8).tolist()
    [0.625, 0.375, 0.0, 0.0]
    """
    ordered, places = probabilities.sort(dim=-1, descending=True, stable=True)
    # what stands before a token decides, so that the one that crosses the mass is kept
    kept = ordered.masked_fill(ordered.cumsum(dim=-1) - ordered >= mass - 1e-6, 0.0)
    kept = kept / kept.sum(dim=-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, places, kept)


@torch.no_grad()
def generate(
    model: CoordinateModel,
    prompt: list[int],
    *,
    max_tokens: int = 64,
    stop: frozenset[int] = frozenset(),
    switch: str = "uncertainty",
    threshold: float = THRESHOLD,
    mass: float = NUCLEUS,
    theta: Tensor | None = None,
    seed: int = 0,
) -> Iterator[GeneratedToken]:
    """Go on from `prompt` token by token, with a cache, until a token of `stop`, `max_tokens`, or the end of the context.

    Without `theta` each token has its own coordinate, from its prefix; with one (coordinates,) all of the text, the prompt
    too, is read under it (a style), and u is 0, so that only the entropy can switch. Raises `InputError` for an empty prompt and
    what is not allowed.
    """
    if switch not in SWITCHES:
        raise InputError(f"the switch {switch!r} was given; allowed are {', '.join(SWITCHES)}.")
    if not prompt:
        raise InputError("an empty prompt was given; allowed is one token or more: begin with the end-of-text token.")
    if max_tokens < 1 or not 0 < mass <= 1:
        raise InputError(
            f"max_tokens {max_tokens} and mass {mass} were given; allowed are at least 1, and a mass in (0, 1]."
        )
    if theta is not None and theta.shape != (model.sizes.coordinates,):
        raise InputError(f"a theta of shape {tuple(theta.shape)} was given; allowed is ({model.sizes.coordinates},).")
    generator = torch.Generator().manual_seed(seed)
    cache, context = KeyValueCache(mode="token" if theta is None else "sequence"), RunningContext()
    fixed = None if theta is None else theta.reshape(1, 1, -1)
    reading = model(torch.tensor([prompt]), theta=fixed, mode=cache.mode, cache=cache)
    surprise = _surprise(context, reading.theta if theta is None else None)
    for _ in range(max_tokens):
        probabilities = reading.logits[0, -1].double().softmax(dim=-1)
        entropy = float(torch.special.entr(probabilities).sum())
        level = {"uncertainty": surprise, "entropy": entropy, "always": float("inf"), "never": float("-inf")}[switch]
        is_sampled = level > threshold
        if is_sampled:
            token = int(torch.multinomial(nucleus(probabilities, mass), 1, generator=generator))
        else:
            token = int(probabilities.argmax())
        yield GeneratedToken(token=token, uncertainty=surprise, entropy=entropy, sampled=is_sampled)
        if token in stop or cache.tokens >= model.sizes.context:
            return
        reading = model(torch.tensor([[token]]), theta=fixed, mode=cache.mode, cache=cache)
        surprise = _surprise(context, reading.theta if theta is None else None)


def _surprise(context: RunningContext, theta: Tensor | None) -> float:
    """u of the last token of what was just read; 0 under one fixed coordinate."""
    found = 0.0
    for one in theta.unbind(dim=1) if theta is not None else ():
        found = float(context.innovation(one)[0])
    return found
