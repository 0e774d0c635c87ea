"""Words as vectors: the shipped texts, their words and counts, and what a model or a count model makes of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from geonb.errors import InputError

# the 65 semantic primes of Goddard & Wierzbicka's chart, in its order, the first of two forms of one
PRIMES = (
    "I", "YOU", "SOMEONE", "SOMETHING", "PEOPLE", "BODY", "KIND", "PART", "THIS", "THE SAME", "OTHER", "ONE", "TWO",
    "SOME", "ALL", "MUCH", "LITTLE", "GOOD", "BAD", "BIG", "SMALL", "THINK", "KNOW", "WANT", "DON'T WANT", "FEEL", "SEE",
    "HEAR", "SAY", "WORDS", "TRUE", "DO", "HAPPEN", "MOVE", "BE SOMEWHERE", "THERE IS", "BE SOMEONE", "MINE", "LIVE",
    "DIE", "WHEN", "NOW", "BEFORE", "AFTER", "A LONG TIME", "A SHORT TIME", "FOR SOME TIME", "MOMENT", "WHERE", "HERE",
    "ABOVE", "BELOW", "FAR", "NEAR", "SIDE", "INSIDE", "TOUCH", "NOT", "MAYBE", "CAN", "BECAUSE", "IF", "VERY", "MORE",
    "LIKE",
)  # fmt: skip
# fifteen words of space, as many as the published alignment was fitted to
SPATIAL = (
    "above", "below", "inside", "outside", "near", "far", "left", "right", "before", "behind", "between", "through",
    "around", "along", "upon",
)  # fmt: skip
POOLS = ("mean", "last", "without first")
_WORD = re.compile(r"[a-z]+|[0-9]+")
_TOGETHER = 256


@cache
def shipped_texts(names: tuple[str, ...] = ("kjv", "chat", "retention")) -> tuple[str, ...]:
    """The passages of the shipped training sets, a conversation as its messages on one line."""
    from geonb.assets import dataset_path
    from geonb.records import parse_json

    found = []
    for name in names:
        for line in dataset_path(name).read_bytes().splitlines():
            record = parse_json(line, name)
            turns = record.get("messages")
            found.append(" ".join(turn["content"] for turn in turns) if turns else record["text"])
    return tuple(found)


def word_counts(texts: Sequence[str]) -> Counter[str]:
    """How often each word (letters, or digits, lower case) occurs in `texts`.

    >>> word_counts(["In the beginning", "the 12 tribes"])["the"]
    2
    """
    return Counter(word for text in texts for word in _WORD.findall(text.lower()))


def count_vectors(texts: Sequence[str], words: Sequence[str], *, window: int = 4, size: int = 64) -> np.ndarray:
    """Vectors (words, size) of what stands beside each word: positive pointwise mutual information, then its SVD.

    ln(P(w, c) / (P(w) P(c)^0.75)), cut at 0; rows U sqrt(S) (Levy, Goldberg & Dagan 2015). Raises `InputError` for a
    word that no text holds.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import svds

    counts = word_counts(texts)
    missing = [word for word in words if word not in counts]
    if missing:
        raise InputError(f"{len(missing)} words such as {missing[0]!r} do not occur in the text: leave them out.")
    contexts = {word: place for place, (word, _) in enumerate(counts.most_common(2000))}
    # every frequent word has a row, so that the space is the text's and not that of the words asked for
    rows = {word: place for place, word in enumerate(dict.fromkeys([*words, *contexts]))}
    left, right = [], []
    for text in texts:
        line = _WORD.findall(text.lower())
        for place, word in enumerate(line):
            row = rows.get(word)
            if row is None:
                continue
            for near in (*line[max(0, place - window) : place], *line[place + 1 : place + 1 + window]):
                if near in contexts:
                    left.append(row)
                    right.append(contexts[near])
    table = coo_matrix((np.ones(len(left)), (left, right)), shape=(len(rows), len(contexts))).tocsr()
    by_row, by_context = np.asarray(table.sum(1)).ravel(), np.asarray(table.sum(0)).ravel() ** 0.75
    table = table.tocoo()
    expected = by_row[table.row] * by_context[table.col] / by_context.sum()
    table.data = np.maximum(np.log(table.data / expected), 0.0)
    u, s, _ = svds(table.tocsr(), k=size, v0=np.ones(min(len(rows), len(contexts))), which="LM")
    return (u * np.sqrt(s))[: len(words)]


@dataclass(slots=True)
class Depths:
    """Vectors of texts at each depth: (depths, texts, width); 0 is the embedding, i what block i gives before any norm."""

    vectors: np.ndarray
    tokens: tuple[int, ...]  # of each text

    @property
    def middle(self) -> int:
        """The depth in the middle."""
        return (len(self.vectors) - 1) // 2


def blocks_of(model: Any) -> Any:
    """The blocks of a causal transformer: the longest list of modules it holds."""
    from torch import nn

    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise InputError(f"{type(model).__name__} holds no list of blocks; allowed is a transformer.")
    return max(lists, key=len)


def depth_vectors(model: Any, tokenizer: Any, texts: Sequence[str], *, pool: str = "mean") -> Depths:
    """The pooled vector of each text at every depth of `model`, float64; texts of one length run together.

    `pool`: the mean over positions, the last position, or the mean without the first. Raises `InputError` for another
    pool, for an empty text, and where a text has one token and the first is to be left out.
    """
    if pool not in POOLS:
        raise InputError(f"the pool {pool!r} was given; allowed are {', '.join(POOLS)}.")
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    least = 2 if pool == "without first" else 1
    short = [text for text, tokens in zip(texts, ids, strict=True) if len(tokens) < least]
    if short:
        raise InputError(f"the text {short[0]!r} has fewer than {least} tokens, too few for the pool {pool!r}.")
    found = np.empty((0,))
    by_length: dict[int, list[int]] = {}
    for place, tokens in enumerate(ids):
        by_length.setdefault(len(tokens), []).append(place)
    for rows in by_length.values():
        for start in range(0, len(rows), _TOGETHER):
            part = rows[start : start + _TOGETHER]
            pooled = _pooled(states_of(model, [ids[row] for row in part]), pool).double().cpu().numpy()
            if not found.size:
                found = np.empty((len(pooled), len(texts), pooled.shape[-1]))
            found[:, part] = pooled
    return Depths(found, tuple(map(len, ids)))


def states_of(model: Any, ids: Sequence[Sequence[int]]) -> Any:
    """What goes into the first block and what each block gives: a tensor (depths, texts, positions, width), float32.

    `ids` are of one length: padding would change what is read.
    """
    import torch

    blocks = blocks_of(model)
    seen: list[Any] = [None] * (len(blocks) + 1)

    def keep(place: int):
        def hook(module, arguments, output):
            seen[place] = (output[0] if isinstance(output, tuple) else output).float()

        return hook

    def before(module, arguments, keywords):
        seen[0] = (arguments[0] if arguments else keywords["hidden_states"]).float()

    handles = [block.register_forward_hook(keep(place)) for place, block in enumerate(blocks, 1)]
    handles.append(blocks[0].register_forward_pre_hook(before, with_kwargs=True))
    try:
        with torch.no_grad():
            model(input_ids=torch.tensor(ids, device=next(model.parameters()).device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(seen)


def _pooled(states: Any, pool: str) -> Any:
    if pool == "last":
        return states[:, :, -1]
    return (states[:, :, 1:] if pool == "without first" else states).mean(2)


def random_twin(model: Any, seed: int) -> Any:
    """A model of the same configuration with its own initialiser's weights: what architecture alone gives."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        twin = type(model)(model.config)
    return twin.to(device=next(model.parameters()).device, dtype=torch.float32).eval().requires_grad_(False)


def matched_draws(
    words: Sequence[str],
    pool: Sequence[str],
    counts: Counter[str],
    tokens: dict[str, int],
    *,
    draws: int,
    seed: int = 0,
    nearest: int = 20,
) -> np.ndarray:
    """Rows of `pool` (draws, words): for each word another, of the `nearest` in log frequency with tokens +- 1.

    No word is drawn twice in one draw, and none of `words` at all. Raises `InputError` where a word has no match.
    """
    rng = np.random.default_rng(seed)
    taken = set(words)
    logs = np.log([counts[word] for word in pool])
    candidates = []
    for word in words:
        fit = [
            row for row, other in enumerate(pool) if other not in taken and abs(tokens[other] - tokens[word]) <= 1
        ]  # fmt: skip
        fit.sort(key=lambda row: abs(logs[row] - np.log(counts[word])))
        candidates.append(fit[:nearest])
    if any(len(fit) < nearest for fit in candidates):
        raise InputError(f"the pool of {len(pool)} words has too few matches for a word: give more text.")
    found = np.empty((draws, len(words)), dtype=int)
    for draw in range(draws):
        used: set[int] = set()
        # in another order each time, so that no word always comes last to what is left
        for place in rng.permutation(len(words)):
            free = [row for row in candidates[place] if row not in used]
            if not free:
                raise InputError(f"{words[place]!r} has no match left in a draw: give more text, or a wider match.")
            found[draw, place] = rng.choice(free)
            used.add(int(found[draw, place]))
    return found
