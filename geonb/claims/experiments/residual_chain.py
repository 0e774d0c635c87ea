"""The chain of residual states of a model, sublayer by sublayer: how far each part turns the stream, and how unsure it is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from geonb.errors import InputError
from geonb.geometry.point_cloud import row_angles

SOURCES = ("documentation", "narrative", "arithmetic")


@cache
def source_texts(source: str) -> tuple[str, ...]:
    """The texts of a source, a conversation as its question; raises `InputError` for another source."""
    if source not in SOURCES:
        raise InputError(f"the source {source!r} was given; allowed are {', '.join(SOURCES)}.")
    from geonb.assets import dataset_path
    from geonb.records import parse_json

    name = {"documentation": "retention", "narrative": "kjv", "arithmetic": "chat"}[source]
    records = [parse_json(line, name) for line in dataset_path(name).read_bytes().splitlines()]
    return tuple(one["messages"][0]["content"] if "messages" in one else one["text"] for one in records)


def prompts(tokenizer: Any, source: str, *, count: int, tokens: int, draw: int = 0, seed: int = 0) -> list[list[int]]:
    """`count` lists of `tokens` token ids from a shipped text: "documentation", "narrative" or "arithmetic" (its questions).

    Texts are shuffled by `seed` and joined by a space until they are long enough; what is left of one is not used again, and
    the draws 0, 1, 2, ... of one seed share no text. Raises `InputError` for another source and where too little text is there.

    >>> prompts(tokenizer, "narrative", count=60, tokens=24)  # doctest: +SKIP
    """
    lines = source_texts(source)
    order = iter(np.random.default_rng(seed).permutation(len(lines)))
    found: list[list[int]] = []
    for _ in range((draw + 1) * count):
        text, ids = "", []
        while len(ids) < tokens:
            place = next(order, None)
            if place is None:
                raise InputError(
                    f"{source} holds too little text for {draw + 1} draws of {count} prompts of {tokens} tokens: ask for less."
                )
            text = f"{text} {lines[place]}".strip()
            ids = tokenizer.encode(text, add_special_tokens=False)
        found.append([int(one) for one in ids[:tokens]])
    return found[draw * count :]


def mixed_prompts(tokenizer: Any, *, count: int, tokens: int, draw: int = 0, seed: int = 0) -> list[list[int]]:
    """`count` prompts, a third of each source (the first sources take what is left over)."""
    shares = [count // 3 + (place < count % 3) for place in range(3)]
    return [
        one
        for source, share in zip(SOURCES, shares, strict=True)
        if share
        for one in prompts(tokenizer, source, count=share, tokens=tokens, draw=draw, seed=seed)
    ]


def states_of(activations: Any) -> list[tuple[str, np.ndarray]]:
    """The residual states in order, each (rows, d): "embedding", then "attention l" and "MLP l" for every block l."""
    found = [("embedding", activations.matrix(-1))]
    for layer in activations.layers:
        if layer >= 0:
            found.append((f"attention {layer}", activations.matrix(layer, "mid")))
            found.append((f"MLP {layer}", activations.matrix(layer)))
    return found


@dataclass(frozen=True, slots=True)
class Chain:
    """The last tokens of n prompts on their way through L blocks; angles in rad, entropy in nats, before each block."""

    labels: tuple[str, ...]  # of the 2 L + 1 states
    states: tuple[np.ndarray, ...]  # each (n, d)
    entropy: np.ndarray  # (n, L) of the logit lens
    turning: np.ndarray  # (n, L) from before to after the block
    attention: np.ndarray  # (n, L) over the block's attention alone
    mlp: np.ndarray  # (n, L) over its MLP alone

    @property
    def share(self) -> np.ndarray:
        """Attention's share of the turning of each block: (n, L)."""
        return self.attention / (self.attention + self.mlp)

    @property
    def total_share(self) -> np.ndarray:
        """Attention's share of the turning over all blocks: (n,)."""
        return self.attention.sum(1) / (self.attention.sum(1) + self.mlp.sum(1))

    @property
    def cumulative(self) -> np.ndarray:
        """The angle turned up to each state, sublayer by sublayer: (n, 2 L + 1), 0 at the embedding."""
        steps = np.stack([self.attention, self.mlp], axis=2).reshape(len(self.attention), -1)
        return np.concatenate([np.zeros((len(steps), 1)), np.cumsum(steps, axis=1)], axis=1)


def chain_of(model: Any, token_ids: Sequence[Sequence[int]]) -> Chain:
    """Run `token_ids` through `model` (as `geonb.analysis.collect` takes it) and follow the last token of each."""
    from geonb.analysis import collect, logit_lens

    states = states_of(collect(model, token_ids, pool="last"))
    clouds = [one for _, one in states]
    lens = logit_lens(model)
    ends, middles = clouds[::2], clouds[1::2]

    def column(angles: list[np.ndarray]) -> np.ndarray:
        return np.stack(angles, axis=1)

    return Chain(
        labels=tuple(label for label, _ in states),
        states=tuple(clouds),
        entropy=column([lens.entropy(one) for one in ends[:-1]]),
        turning=column([row_angles(before, after) for before, after in itertools.pairwise(ends)]),
        attention=column([row_angles(before, middle) for before, middle in zip(ends, middles, strict=False)]),
        mlp=column([row_angles(middle, after) for middle, after in zip(middles, ends[1:], strict=True)]),
    )


def joined(chains: Sequence[Chain]) -> Chain:
    """The chains of several sets of prompts through one model as one."""
    first = chains[0]
    return Chain(
        first.labels,
        tuple(np.concatenate(parts) for parts in zip(*(one.states for one in chains), strict=True)),
        *(
            np.concatenate([getattr(one, name) for one in chains])
            for name in ("entropy", "turning", "attention", "mlp")
        ),
    )


def held_out_errors(
    target: np.ndarray, within: np.ndarray, shared: np.ndarray | None, *, folds: int = 10, seed: int = 0
) -> np.ndarray:
    """Squared errors (n, L) of `target` (n, L) predicted for prompts that the fit did not see.

    The fit has a level and a slope on `within` for each block and, where given, one slope on `shared` for all blocks.
    Whole prompts are held out, so that no prompt helps to predict itself.
    """
    n, blocks = target.shape
    columns = []
    for block in range(blocks):
        here = np.zeros((n, blocks))
        here[:, block] = 1.0
        columns += [here.ravel(), (here * within).ravel()]
    if shared is not None:
        columns.append(np.asarray(shared, dtype=np.float64).ravel())
    design, wanted = np.stack(columns, axis=1), target.ravel().astype(np.float64)
    fold = np.random.default_rng(seed).permutation(n) % folds
    errors = np.empty(n * blocks)
    for one in range(folds):
        held = np.repeat(fold == one, blocks)
        solution, *_ = np.linalg.lstsq(design[~held], wanted[~held], rcond=None)
        errors[held] = (wanted[held] - design[held] @ solution) ** 2
    return errors.reshape(n, blocks)
