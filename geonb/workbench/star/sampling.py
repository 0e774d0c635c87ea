"""Solutions drawn from a model: temperature sampling whose draws belong to (seed, problem, sample), and greedy decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geonb.errors import InputError

Progress = Callable[[str, int, int], None]  # stage, done, of how many
# cached positions of one batch: 64 sequences of 256 tokens (convention; on an accelerator more would fit)
_POSITIONS = 16_384
_TOGETHER = 64


@dataclass(frozen=True, slots=True)
class Draft:
    """One generated text: its tokens without the end token, and whether the model ended it by itself."""

    tokens: tuple[int, ...]
    ended: bool


@dataclass(frozen=True, slots=True)
class Request:
    """One text to draw: the prompt's ids, and the key that with the seed makes its random numbers."""

    ids: tuple[int, ...]
    key: tuple[int, ...]


def generate(
    bench: Any,
    label: str | None,
    requests: Sequence[Request],
    *,
    temperature: float,
    max_tokens: int,
    seed: Sequence[int] = (),
    progress: Progress | None = None,
    stage: str = "sampling",
) -> list[Draft]:
    """One text for each request, by the model with adapter `label` (None: the base); temperature 0 is greedy.

    Token t is the first v with sum_{w <= v} p(w) > u_t, p = softmax(logits / temperature) in float64, where u_t are the
    uniform numbers of numpy's generator seeded by (seed, key): a text depends on its own key, not on its neighbours in
    the batch. Prompts of one length run together (padding would change some architectures' positions). A text ends at any
    end token, after `max_tokens`, or where the context is full.

    Raises `InputError` for a prompt that leaves no room in the model's context.
    """
    from geonb.workbench.generation import end_tokens

    context = bench.runtime.checkpoint.context_length
    groups: dict[int, list[int]] = {}
    for place, request in enumerate(requests):
        groups.setdefault(len(request.ids), []).append(place)
    longest = max(groups, default=1)
    if context is not None and longest >= context:
        raise InputError(
            f"a prompt has {longest} tokens and the model's context is {context}; at most {context - 1} leave room for a "
            "solution: use fewer worked examples, or shorter problems."
        )
    ends = end_tokens(bench)
    found: list[Draft | None] = [None] * len(requests)
    done = 0
    with bench.using(label) as model:
        for length, places in sorted(groups.items()):
            steps = max_tokens if context is None else min(max_tokens, context - length)
            size = max(1, min(_TOGETHER, _POSITIONS // (length + steps)))
            for start in range(0, len(places), size):
                part = places[start : start + size]
                if progress is not None:
                    progress(stage, done, len(requests))
                drafts = _continue(
                    model,
                    [requests[place] for place in part],
                    steps,
                    temperature,
                    ends,
                    tuple(seed),
                    bench.runtime.device,
                )
                for place, draft in zip(part, drafts, strict=True):
                    found[place] = draft
                done += len(part)
    if progress is not None:
        progress(stage, done, len(requests))
    return [draft for draft in found if draft is not None]


def _continue(model, requests, steps, temperature, ends, seed, device) -> list[Draft]:
    import torch

    uniforms = None
    if temperature > 0:
        uniforms = np.stack([np.random.default_rng([*seed, *one.key]).random(steps) for one in requests])
    current = torch.tensor([list(one.ids) for one in requests], dtype=torch.long, device=device)
    past, written = None, [[] for _ in requests]
    open_rows = set(range(len(requests)))
    with torch.no_grad():
        for step in range(steps):
            output = model(input_ids=current, past_key_values=past, use_cache=True)
            past = output.past_key_values
            logits = output.logits[:, -1].double().cpu().numpy()
            chosen = logits.argmax(-1) if uniforms is None else pick(logits / temperature, uniforms[:, step])
            for row in sorted(open_rows):
                if int(chosen[row]) in ends:
                    open_rows.discard(row)
                else:
                    written[row].append(int(chosen[row]))
            if not open_rows:
                break
            current = torch.tensor(chosen, dtype=torch.long, device=device)[:, None]
    return [Draft(tuple(tokens), row not in open_rows) for row, tokens in enumerate(written)]


def pick(logits: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """The token of each row of `logits` (rows, vocabulary) at its uniform number in [0, 1), by the inverse distribution.

    >>> pick(np.log([[0.25, 0.25, 0.5]]), np.array([0.49])).tolist()
    [1]
    """
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    cumulative = shifted.cumsum(axis=-1)
    total = cumulative[:, -1:]
    # below the last sum, so that rounding can never lead beyond the last token that has a probability
    aims = np.minimum(uniforms[:, None] * total, np.nextafter(total, 0))
    return (cumulative <= aims).sum(axis=-1)
