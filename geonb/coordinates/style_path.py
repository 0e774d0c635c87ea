"""One prompt continued under the styles between two example texts."""

from __future__ import annotations

from typing import Any

import torch

from geonb.coordinates.analyze import encoded, style_of
from geonb.coordinates.continuation import Continuation, StylePath
from geonb.coordinates.decoding import generate
from geonb.coordinates.interpolation import phase_path, slerp
from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.phases import kernel
from geonb.coordinates.tokenizer import END
from geonb.errors import InputError

WAYS = ("sphere", "phases")


@torch.no_grad()
def style_path(
    model: CoordinateModel, tokenizer: Any, first: str, second: str, prompt: str, *, steps: int = 5, along: str = "sphere",
    tokens: int = 24,
) -> StylePath:  # fmt: skip
    """`prompt` under `steps` styles from that of `first` to that of `second`, the likeliest token each time.

    Along `phases` a style is phases alone, and the coordinate is the shortest with C theta equal to them in all layers; it needs
    directions of full rank over all layers together, no more of them than coordinates. Raises `InputError` for another way.
    """
    if steps < 2 or tokens < 1:
        raise InputError(
            f"{steps} styles of {tokens} tokens were asked for; allowed are two styles or more, of a token or more."
        )
    if along not in WAYS:
        raise InputError(f"the way {along!r} was given; allowed are {' and '.join(WAYS)}.")
    ends = style_of(model, tokenizer, first), style_of(model, tokenizer, second)
    directions = torch.cat([layer.directions.directions for layer in model.uses])
    shares = [place / (steps - 1) for place in range(steps)]
    start, end = (directions @ one for one in ends)
    found, near = [], []
    stop = frozenset({tokenizer.token_to_id(END)})
    for share in shares:
        if along == "sphere":
            theta = slerp(*ends, share)
        else:
            from geonb.coordinates.phases import theta_for

            phases = phase_path(start, end, share).double().numpy()
            theta = torch.tensor(theta_for(phases, directions.double().numpy()), dtype=torch.float32)
        made = list(
            generate(model, encoded(tokenizer, prompt), max_tokens=tokens, decoding="greedy", theta=theta, stop=stop)
        )
        found.append(Continuation.of(prompt, made, tokenizer))
        near.append(float(kernel(directions @ theta, start)))
    return StylePath(
        first=first, second=second, shares=tuple(shares), kernel_to_first=tuple(near), continuations=tuple(found)
    )
