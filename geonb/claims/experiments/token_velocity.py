"""How far the last hidden state moves from token to token in a greedy loop, and in one whose argmax has the wrong object."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from geonb.claims.experiments.reinforce import padded
from geonb.claims.experiments.short_training import Workshop
from geonb.data.example import Example
from geonb.errors import InputError
from geonb.geometry.measurement import Measurement


@dataclass(frozen=True, slots=True)
class Loop:
    """One greedy answer a question: its tokens up to the end token, and the mean distance of successive hidden states."""

    tokens: tuple[tuple[int, ...], ...]
    velocity: np.ndarray  # (questions,), Euclidean, of the last layer's output


@torch.no_grad()
def greedy_loop(workshop: Workshop, examples: Sequence[Example], *, faulty: bool, longest: int = 6) -> Loop:
    """Answer every prompt greedily; `faulty` takes the largest entry of the hidden state, not of the logits, for the token.

    The faulty loop has no notion of an end token's chance; it stops at one all the same, and at `longest` tokens.
    """
    end = workshop.runtime.tokenizer.eos_token_id
    tokens: list[tuple[int, ...]] = []
    speeds: list[float] = []
    for start in range(0, len(examples), 64):
        ids, mask = padded([one.prompt_ids for one in examples[start : start + 64]], workshop.pad)
        positions, past, current = (mask.cumsum(1) - 1).clamp(min=0), None, ids
        states, drawn = [], []
        for _ in range(longest):
            output = workshop.model(
                input_ids=current, attention_mask=mask, position_ids=positions, past_key_values=past, use_cache=True,
                output_hidden_states=True,
            )  # fmt: skip
            past, state = output.past_key_values, output.hidden_states[-1][:, -1].float()
            states.append(state)
            current = (state if faulty else output.logits[:, -1]).argmax(-1, keepdim=True)
            drawn.append(current)
            mask = torch.cat([mask, torch.ones_like(current)], 1)
            positions = positions[:, -1:] + 1
        path, rows = torch.stack(states, 1), torch.cat(drawn, 1).tolist()
        moved = (path[:, 1:] - path[:, :-1]).norm(dim=2)
        for row, distances in zip(rows, moved, strict=True):
            length = row.index(end) + 1 if end in row else len(row)
            tokens.append(tuple(row[:length]))
            # a state for each token: at least one move, even where the first token is the last
            speeds.append(float(distances[: max(1, length - 1)].mean()))
    return Loop(tuple(tokens), np.array(speeds))


def cohens_d(first: np.ndarray, second: np.ndarray) -> float:
    """(mean of the first - mean of the second) / pooled standard deviation; 0 where nothing varies.

    >>> round(cohens_d(np.array([1.0, 2.0, 3.0]), np.array([2.0, 3.0, 4.0])), 3)
    -1.0
    """
    spread = (first.var(ddof=1) * (len(first) - 1) + second.var(ddof=1) * (len(second) - 1)) / (
        len(first) + len(second) - 2
    )
    return float((first.mean() - second.mean()) / spread**0.5) if spread > 0 else 0.0


def effect(values: np.ndarray, wrong: np.ndarray, *, what: str, resamples: int = 2000, seed: int = 0) -> Measurement:
    """d of `values` for the wrong answers minus the right ones: bootstrap within classes, null the 95 % of |d| permuted.

    Raises `InputError` where a class has fewer than two members.
    """
    wrong = np.asarray(wrong, dtype=bool)
    if wrong.sum() < 2 or (~wrong).sum() < 2:
        raise InputError(
            f"{int(wrong.sum())} wrong and {int((~wrong).sum())} right answers were given; allowed are 2 or more."
        )
    rng = np.random.default_rng(seed)
    first, second = values[wrong], values[~wrong]
    drawn = [cohens_d(rng.choice(first, len(first)), rng.choice(second, len(second))) for _ in range(resamples)]
    null = []
    for _ in range(resamples):
        mixed = rng.permutation(wrong)
        null.append(abs(cohens_d(values[mixed], values[~mixed])))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Measurement(
        value=cohens_d(first, second), interval=(float(low), float(high)), n=len(values),
        null=float(np.quantile(null, 0.95)), unit="Cohen's d",
        operator=f"{what}, wrong minus right, bootstrap of {resamples} within classes, null: 95 % of |d| permuted",
    )  # fmt: skip


def size_of(found: Measurement) -> Measurement:
    """|d| with the interval that belongs to it: from 0 on where that of d holds 0."""
    assert found.interval is not None
    low, high = sorted(map(abs, found.interval))
    if found.interval[0] <= 0 <= found.interval[1]:
        low = 0.0
    return dataclasses.replace(found, value=abs(found.value), interval=(low, high))
