"""Adaptive decoding: sample where the coordinate says that the text turns, take the likeliest token elsewhere.

Where the innovation u of the last token is above the threshold the next token is drawn from the nucleus, the smallest set of
tokens that holds 0.92 of the mass (Holtzman et al. 2020; the token that crosses it belongs to it), else it is the likeliest one.
The control switches on the entropy of the next token instead, which needs no coordinate. `calibration` finds both thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.reader import Reader
from geonb.coordinates.uncertainty import THRESHOLD
from geonb.errors import InputError

DECODINGS = ("coordinates", "entropy", "nucleus", "greedy")
NUCLEUS = 0.92


@dataclass(frozen=True, slots=True)
class GeneratedToken:
    """One token as it is made, with what decided how."""

    token: int
    uncertainty: float  # u of the token before it
    entropy: float  # nats, of the distribution that it comes from
    sampled: bool
    angle: float  # radians that the token before it moved the coordinate by


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


def generate(
    model: CoordinateModel,
    prompt: list[int],
    *,
    max_tokens: int = 64,
    stop: frozenset[int] = frozenset(),
    decoding: str = "coordinates",
    threshold: float = THRESHOLD,
    mass: float = NUCLEUS,
    theta: Tensor | None = None,
    seed: int = 0,
    reader: Reader | None = None,
) -> Iterator[GeneratedToken]:
    """Go on from `prompt` token by token, with a cache, until a token of `stop`, `max_tokens`, or the end of the context.

    Without `theta` each token has its own coordinate, from its prefix; with one (coordinates,) all of the text, the prompt
    too, is read under it (a style), while u still follows the coordinate that the text itself would have. `threshold` is in the
    unit of the switch: u, or nats. A `reader` that has read something goes on behind that, and reads every token that is made
    but the last. Raises `InputError` for an empty prompt and what is not allowed, before anything is read.
    """
    if decoding not in DECODINGS:
        raise InputError(f"the decoding {decoding!r} was given; allowed are {', '.join(DECODINGS)}.")
    if not prompt:
        raise InputError("an empty prompt was given; allowed is one token or more: begin with the end-of-text token.")
    if max_tokens < 1 or not 0 < mass <= 1:
        raise InputError(
            f"max_tokens {max_tokens} and mass {mass} were given; allowed are at least 1, and a mass in (0, 1]."
        )
    if reader is not None and (reader.model is not model or theta is not None):
        raise InputError("a reader was given with a theta or another model; the reader has its own: give it alone.")
    return _generate(
        reader or Reader(model, theta), prompt, max_tokens, stop, decoding, threshold, mass,
        torch.Generator().manual_seed(seed),
    )  # fmt: skip


@torch.no_grad()
def _generate(
    reader: Reader,
    prompt: list[int],
    max_tokens: int,
    stop: frozenset[int],
    decoding: str,
    threshold: float,
    mass: float,
    generator: torch.Generator,
) -> Iterator[GeneratedToken]:
    logits = reader.read(prompt)
    for made in range(1, max_tokens + 1):
        probabilities = logits.double().softmax(dim=-1)
        entropy = float(torch.special.entr(probabilities).sum())
        level = {"coordinates": reader.uncertainty, "entropy": entropy, "nucleus": float("inf")}.get(decoding)
        is_sampled = level is not None and level > threshold
        if is_sampled:
            token = int(torch.multinomial(nucleus(probabilities, mass), 1, generator=generator))
        else:
            token = int(probabilities.argmax())
        yield GeneratedToken(
            token=token, uncertainty=reader.uncertainty, entropy=entropy, sampled=is_sampled, angle=reader.angle
        )
        if token in stop or made == max_tokens or reader.tokens >= reader.model.sizes.context:
            return
        logits = reader.read([token])
