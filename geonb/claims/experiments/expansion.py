"""The expansion ratio of a prompt, and whether the model's answer to it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geonb.claims.experiments.residual_chain import source_texts
from geonb.errors import InputError
from geonb.geometry.dimension import two_nn


@dataclass(frozen=True, slots=True)
class Item:
    """Token ids to be answered, the answer (a token id, or a text), and the draw that the item belongs to."""

    prompt: tuple[int, ...]
    answer: int | str
    draw: int


@dataclass(frozen=True, slots=True)
class Answers:
    """Per item: the expansion ratio, whether the answer was right, the probability of the first token that was chosen."""

    ratio: np.ndarray
    right: np.ndarray
    confidence: np.ndarray
    length: np.ndarray
    draw: np.ndarray


def next_token_items(
    tokenizer: Any,
    source: str,
    *,
    count: int,
    draw: int,
    skip: int = 0,
    shortest: int = 16,
    longest: int = 64,
    seed: int = 0,
) -> list[Item]:
    """Windows of a shipped text, 16 to 64 tokens drawn at random, whose answer is the token that follows; none overlap.

    `skip` leaves out so many items first, so that draws from one source share nothing. Raises `InputError` where too
    little text is there.
    """
    rng = np.random.default_rng(seed)
    lines = source_texts(source)
    found: list[Item] = []
    for place in rng.permutation(len(lines)):
        ids = tokenizer.encode(lines[place], add_special_tokens=False)
        start = 0
        while (most := min(longest, len(ids) - start - 1)) >= shortest:
            length = int(rng.integers(shortest, most + 1))
            found.append(Item(tuple(ids[start : start + length]), int(ids[start + length]), draw))
            start += length + 1
            if len(found) == skip + count:
                return found[skip:]
    raise InputError(f"{source} holds {len(found)} such items and {skip + count} were asked for: ask for fewer.")


def arithmetic_items(tokenizer: Any, *, draw: int = 0) -> list[Item]:
    """The shipped held-out questions with their answers as text, in the model's own chat form where it has one."""
    from geonb.assets import dataset_path
    from geonb.records import parse_json

    found = []
    for line in dataset_path("chat", evaluation=True).read_bytes().splitlines():
        record = parse_json(line, "chat")
        question = record["messages"][:1]
        if getattr(tokenizer, "chat_template", None):
            ids = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=False)
        else:
            ids = tokenizer.encode(question[0]["content"] + "\nAnswer:")
        found.append(Item(tuple(int(one) for one in ids), str(record["answer"]), draw))
    return found


def answers_of(runtime: Any, items: Sequence[Item]) -> Answers:
    """Run every prompt once and measure; the ratio is the largest TwoNN of its tokens over what the blocks write, by the last.

    An answer in words is right where the greedy continuation ends in it.
    """
    from geonb.analysis import collect, logit_lens

    collected = collect(runtime, [one.prompt for one in items], pool="tokens", states=("out",))
    blocks = [layer for layer in collected.layers if layer >= 0]
    clouds = {layer: collected.matrix(layer) for layer in blocks}
    lens = logit_lens(runtime)
    ends = np.cumsum([len(one.prompt) for one in items])
    ratio, confidence, chosen = [], [], []
    for item, end in zip(items, ends, strict=True):
        rows = slice(end - len(item.prompt), end)
        ratio.append(expansion_ratio([clouds[layer][rows] for layer in blocks]))
        logits = lens.logits(clouds[blocks[-1]][end - 1 : end])[0].astype(np.float64)
        shares = np.exp(logits - logits.max())
        confidence.append(float(shares.max() / shares.sum()))
        chosen.append(int(logits.argmax()))
    return Answers(
        ratio=np.array(ratio),
        right=_right(runtime, items, chosen),
        confidence=np.array(confidence),
        length=np.array([len(one.prompt) for one in items], dtype=np.float64),
        draw=np.array([one.draw for one in items]),
    )


def expansion_ratio(clouds: Sequence[np.ndarray]) -> float:
    """max over layers of TwoNN / TwoNN of the last; each cloud (tokens, d) is one layer of one prompt."""
    dimensions = [two_nn(one) for one in clouds]
    return float(np.nanmax(dimensions) / dimensions[-1])


def _right(runtime: Any, items: Sequence[Item], chosen: Sequence[int]) -> np.ndarray:
    if all(isinstance(one.answer, int) for one in items):
        return np.array([token == one.answer for token, one in zip(chosen, items, strict=True)])
    written = runtime.generate([one.prompt for one in items], max_new_tokens=48)
    texts = [runtime.tokenizer.decode(one, skip_special_tokens=True).strip().rstrip(".") for one in written]
    return np.array([text.endswith(str(one.answer)) for text, one in zip(texts, items, strict=True)])


def adjusted(score: np.ndarray, length: np.ndarray, draw: np.ndarray) -> np.ndarray:
    """What is left of `score` after a straight line in `length` and a level for every draw: (n,)."""
    design = np.stack([length, *(draw == one for one in np.unique(draw))], axis=1).astype(np.float64)
    solution, *_ = np.linalg.lstsq(design, score, rcond=None)
    return score - design @ solution
