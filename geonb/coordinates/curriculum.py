"""What a coordinate model reads in each of its three phases; a batch is a function of the seed and the step alone.

Phase 1 (20 % of the steps) minimal pairs of one attribute; phase 2 (40 %) compositions of two; phase 3 (40 %) dialogues. A
share of every batch's rows is running prose where there is some, so that the model stays one of language.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geonb.coordinates import grammar
from geonb.coordinates.tokenizer import END, PAD

PHASES = ("differentiation", "composition", "conversation")
SHARES = (0.2, 0.4, 0.4)
_TURNS = 4


@dataclass(slots=True)
class Batch:
    """Rows of tokens with what the losses need to know; `ends` are the places whose coordinate stands for a text."""

    phase: str
    tokens: Tensor  # (rows, length)
    counted: Tensor  # (rows, length - 1): whether the next token counts
    ends: Tensor  # (texts, 2): row and place of the last token of each sentence or turn
    labels: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))  # (texts,)
    partners: Tensor = field(
        default_factory=lambda: torch.zeros(0, dtype=torch.long)
    )  # (texts,): its minimal pair, phase 1


def phase_of(step: int, steps: int) -> str:
    """The phase of the step 0 <= step < steps.

    >>> [phase_of(step, 10) for step in (0, 1, 2, 5, 6, 9)]
    ['differentiation', 'differentiation', 'composition', 'composition', 'conversation', 'conversation']
    """
    first, second = round(SHARES[0] * steps), round((SHARES[0] + SHARES[1]) * steps)
    return PHASES[0] if step < first else PHASES[1] if step < second else PHASES[2]


def draw_batch(
    phase: str,
    rng: np.random.Generator,
    tokenizer: Any,
    *,
    rows: int,
    length: int,
    held_out: bool = False,
    prose: Sequence[int] = (),
) -> Batch:
    """`rows` texts of `phase`, a fourth of them windows of `prose` (token ids) where it is long enough; cut at `length`."""
    windows = rows // 4 if len(prose) > length + 1 else 0
    rows -= windows
    end = tokenizer.token_to_id(END)
    texts, labels, partners = _TEXTS[phase](rng, rows, held_out)
    made, ends = [], []
    for row, parts in enumerate(texts):
        tokens = [end]
        for part in parts:
            tokens += tokenizer.encode(part).ids
            if len(tokens) <= length:
                ends.append((row, len(tokens) - 1))
            else:  # what was cut has no end
                ends.append((row, -1))
        made.append([*tokens, end][: length + 1])
    for _ in range(windows):
        start = int(rng.integers(len(prose) - length - 1))
        made.append(list(prose[start : start + length + 1]))
    widest = max(map(len, made))
    tokens = torch.full((len(made), widest), tokenizer.token_to_id(PAD))
    counted = torch.zeros(len(made), widest - 1, dtype=torch.bool)
    for row, ids in enumerate(made):
        tokens[row, : len(ids)] = torch.tensor(ids)
        counted[row, : len(ids) - 1] = True
    kept = torch.tensor([place >= 0 for _, place in ends])
    places = torch.tensor(ends)[kept]
    if kept.all():
        return Batch(phase, tokens, counted, places, torch.tensor(labels), torch.tensor(partners))
    moved = torch.cumsum(kept, 0) - 1
    partner = [int(moved[one]) if one >= 0 and kept[one] else -1 for one in partners]
    return Batch(phase, tokens, counted, places, torch.tensor(labels)[kept], torch.tensor(partner)[kept])


def _pairs(rng: np.random.Generator, rows: int, held_out: bool):
    attribute = str(rng.choice(list(grammar.ATTRIBUTES)))
    texts, labels, partners = [], [], []
    for pair in range(rows // 2):
        for side, one in enumerate(grammar.minimal_pair(rng, attribute, held_out=held_out)):
            texts.append([one.text()])
            labels.append(grammar.ATTRIBUTES[attribute].index(getattr(one, attribute)))
            partners.append(2 * pair + 1 - side)
    return texts, labels, partners


def _compositions(rng: np.random.Generator, rows: int, held_out: bool):
    texts, labels = [], []
    for triple in range(rows // 3):
        for one in grammar.composition(rng, held_out=held_out):
            texts.append([one.text()])
            labels.append(triple)
    return texts, labels, [-1] * len(texts)


def _dialogues(rng: np.random.Generator, rows: int, held_out: bool):
    texts, labels = [], []
    for row in range(rows):
        texts.append(grammar.dialogue(rng, _TURNS, held_out=held_out))
        labels += [row] * _TURNS
    return texts, labels, [-1] * len(labels)


_TEXTS: dict[str, Any] = dict(zip(PHASES, (_pairs, _compositions, _dialogues), strict=True))


def sample_texts(seed: int, count: int) -> list[str]:
    """Training texts of all three kinds, for a tokenizer."""
    rng = np.random.default_rng(seed)
    texts = [grammar.draw_sentence(rng, held_out=False).text() for _ in range(count)]
    return [*texts, *("".join(grammar.dialogue(rng, _TURNS, held_out=False)) for _ in range(count // 4))]
