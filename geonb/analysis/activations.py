"""Collected activations: one float32 matrix a layer and state, in memory or as safetensors in a folder, read when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from geonb.errors import InputError
from geonb.records import Record, is_file

FACTS = "activations.json"
POOLS = ("mean", "last", "mean-no-first", "tokens")
STATES = ("out", "mid")


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedFacts(Record):
    """What was collected of which model; layer -1 is what the first block reads, layer l what block l writes."""

    source: str
    blocks: int  # of the model
    width: int
    layers: tuple[int, ...]
    stored: tuple[tuple[str, int], ...]  # (state, layer); each layer's predecessor is there too
    pool: str  # one of POOLS; "tokens" keeps one row a token
    positions: tuple[int, ...] | None  # of each text's tokens; None: all
    lengths: tuple[int, ...]  # tokens of each text
    dtype: str  # in which the model computed

    def kept_positions(self, text: int) -> list[int]:
        """The token positions of one text that are pooled or kept, in order."""
        return selected(self.lengths[text], self.positions, self.pool, text)


def selected(length: int, positions: tuple[int, ...] | None, pool: str, text: int) -> list[int]:
    """The positions of a text of `length` tokens that `pool` uses; raises `InputError` where there is none."""
    chosen = list(range(length)) if positions is None else [one + length if one < 0 else one for one in positions]
    if any(not 0 <= one < length for one in chosen):
        raise InputError(
            f"text {text} has {length} tokens and the positions {list(positions or ())} were asked for; allowed are "
            f"{-length} to {length - 1}: give longer texts or other positions."
        )
    chosen = sorted(set(chosen))
    if pool == "mean-no-first":
        chosen = [one for one in chosen if one > 0]
    if not chosen:
        raise InputError(
            f"text {text} has {length} token(s), of which {pool} leaves none: give longer texts or pool='mean'."
        )
    return chosen[-1:] if pool == "last" else chosen


@dataclass(frozen=True, slots=True, eq=False)
class Activations:
    """The activations of n texts (or of their tokens) at every collected layer.

    >>> activations = collect("embedded", ["In the beginning", "And it came to pass"])  # doctest: +SKIP
    >>> activations.matrix(3).shape  # doctest: +SKIP
    (2, 256)
    """

    facts: CollectedFacts
    folder: Path | None
    arrays: dict[tuple[str, int], np.ndarray]  # empty where they lie in the folder

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The activations that `collect(..., folder=...)` wrote; raises `InputError` where a part is missing."""
        path = Path(folder)
        if not is_file(path / FACTS):
            raise InputError(f"{path} holds no {FACTS}: give a folder that `collect` wrote.")
        facts = CollectedFacts.load(path / FACTS)
        for state, layer in facts.stored:
            if not is_file(path / file_name(state, layer)):
                raise InputError(f"{path} holds no {file_name(state, layer)}: collect the activations again.")
        return cls(facts=facts, folder=path, arrays={})

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that were asked for, ascending; -1 is what the first block reads."""
        return self.facts.layers

    @property
    def n(self) -> int:
        """Rows of each matrix."""
        return len(self.rows)

    @property
    def rows(self) -> np.ndarray:
        """The text number of each row."""
        if self.facts.pool != "tokens":
            return np.arange(len(self.facts.lengths))
        return np.repeat(np.arange(len(self.facts.lengths)), self._counts())

    @property
    def places(self) -> np.ndarray:
        """The token position of each row; -1 for a mean over several."""
        facts = self.facts
        if facts.pool == "tokens":
            return np.concatenate([facts.kept_positions(text) for text in range(len(facts.lengths))])
        if facts.pool == "last":
            return np.array([facts.kept_positions(text)[-1] for text in range(len(facts.lengths))])
        return np.full(len(facts.lengths), -1)

    def _counts(self) -> list[int]:
        return [len(self.facts.kept_positions(text)) for text in range(len(self.facts.lengths))]

    def has(self, layer: int, state: str = "out") -> bool:
        """Whether this state of this layer was collected."""
        return (state, layer) in self.facts.stored

    def matrix(self, layer: int, state: str = "out", *, pool: str | None = None) -> np.ndarray:
        """The activations (n, d), float32, rows in the order of the texts.

        `state` "mid" lies between a block's attention (or convolution) and its MLP. `pool` pools activations that were
        collected as tokens, over each text. Raises `InputError` for what was not collected.
        """
        if not self.has(layer, state):
            raise InputError(
                f"the state {state!r} of layer {layer} was not collected; there are "
                f"{', '.join(f'{one} {number}' for one, number in self.facts.stored)}: collect it."
            )
        found = self._read(state, layer)
        if pool is None or pool == self.facts.pool:
            return found
        if pool not in POOLS or self.facts.pool != "tokens":
            raise InputError(
                f"pooling by {pool!r} was asked of activations that were collected with pool={self.facts.pool!r}; allowed "
                f"are {', '.join(POOLS)} where they were collected with pool='tokens': collect them so."
            )
        return self._pooled(found, pool)

    def _read(self, state: str, layer: int) -> np.ndarray:
        if self.folder is None:
            return self.arrays[state, layer]
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = self.folder / file_name(state, layer)
        try:
            return load_file(path)[state]
        except (OSError, SafetensorError, KeyError) as error:
            raise InputError(f"{path} cannot be read ({error}): collect the activations again.") from None

    def _pooled(self, found: np.ndarray, pool: str) -> np.ndarray:
        pieces, start = [], 0
        for text, count in enumerate(self._counts()):
            kept = self.facts.kept_positions(text)
            wanted = (
                [one for one in kept if one > 0] if pool == "mean-no-first" else kept[-1:] if pool == "last" else kept
            )
            if not wanted:
                raise InputError(f"text {text} has one token, of which {pool} leaves none: give longer texts.")
            inside = [start + kept.index(one) for one in wanted]
            pieces.append(found[inside].mean(0))
            start += count
        return np.stack(pieces)

    def trajectory(self, text: int, *, embedding: bool = False) -> np.ndarray:
        """One text's tokens after every collected block: (layers, tokens, d); needs pool="tokens".

        With `embedding` layer -1 comes first, where it was asked for; there a repeated token is the same point.
        """
        if self.facts.pool != "tokens":
            raise InputError("a trajectory needs one row a token: collect with pool='tokens'.")
        if not 0 <= text < len(self.facts.lengths):
            raise InputError(f"text {text} was asked for; allowed are 0 to {len(self.facts.lengths) - 1}.")
        rows = np.flatnonzero(self.rows == text)
        layers = [layer for layer in self.layers if embedding or layer >= 0]
        if not layers:
            raise InputError("no block was collected, only its input: collect layers from 0 on.")
        return np.stack([self._read("out", layer)[rows] for layer in layers])

    def __repr__(self) -> str:
        facts = self.facts
        where = "in memory" if self.folder is None else f"in {self.folder.name}"
        return f"Activations({facts.source!r}, {self.n} rows x {facts.width}, {len(facts.layers)} layers, {facts.pool}, {where})"


def file_name(state: str, layer: int) -> str:
    """The file of one matrix; the embeddings, layer -1, are called "embedding"."""
    return f"{state}-{'embedding' if layer < 0 else layer}.safetensors"
