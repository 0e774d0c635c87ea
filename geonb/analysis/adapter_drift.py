"""How far an adapter moves its base on given texts, token by token, beside random adapters of its rank and size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geonb.analysis.measured import Measured, assemble, check_draws
from geonb.errors import InputError
from geonb.geometry.statistics import paired_bootstrap
from geonb.models.checkpoint import Checkpoint
from geonb.workbench.bench import Bench
from geonb.workbench.drift import APPROVED_RANK, random_adapter
from geonb.workbench.generation import encode_prompt

_ROWS = 64  # tokens at a time in float64: 64 x 150,000 x 8 bytes is 77 MB
_OPERATORS = {
    "entropy_change": "dH = H_base - H_adapter of the next token: positive where the adapter is the surer",
    "entropy_base": "H_base of the next token, whole vocabulary",
    "entropy_adapter": "H_adapter of the next token, whole vocabulary",
    "kl": "KL(adapter || base) of the next token",
    "same_first_choice": "share of places where both models' likeliest tokens are one",
    "base_approval": f"share of places where the adapter's likeliest token is among the base's first {APPROVED_RANK}",
    "loss_change": "mean -ln p(text's next token), adapter - base: negative where the adapter predicts the text better",
}
_UNITS = {
    **dict.fromkeys(("entropy_change", "entropy_base", "entropy_adapter", "kl", "loss_change"), "nats a token"),
    **dict.fromkeys(("same_first_choice", "base_approval"), "of tokens"),
}


def drift(
    base: str | Path | Checkpoint | Bench,
    adapter: str | Path,
    prompts: Sequence[str],
    *,
    draws: int = 2,
    seed: int = 0,
    device: str = "auto",
) -> Measured:
    """dH, KL, equal first choices, base approval and loss change of an adapter on given texts, both models reading them.

    `base` is a source or a `Bench`, of which `adapter` may be a label; else the folder of a PEFT LoRA adapter. Every text
    is read once by each model (teacher-forced), and every place after the first token counts: nothing is generated, so
    that length and style of an own text cannot enter. Figures are means over texts of means over tokens, with a paired
    bootstrap over texts (none for a single text). The null is that of `draws` random adapters: Gaussian factors of equal
    rank and ||dW||_F in every matrix. Raises `InputError` for a text of one token and for what cannot be opened.

    >>> drift("embedded", "run/adapter", ["In the beginning God created"])["kl"].value  # doctest: +SKIP
    0.0123
    """
    check_draws(draws)
    if isinstance(prompts, str) or not len(prompts):
        raise InputError("no list of texts was given; allowed is a list of one or more texts.")
    bench, label = _opened(base, adapter, device)
    context = bench.runtime.checkpoint.context_length
    ids = []
    for number, text in enumerate(prompts):
        found = list(
            encode_prompt(
                bench.runtime.tokenizer, text, chat=False, context=None if context is None else context + 1
            ).ids
        )
        if len(found) < 2:
            raise InputError(
                f"text {number} has one token and foretells none; allowed are two and more: give a longer text."
            )
        ids.append(found)
    chance: list[dict[str, float]] = []
    own = _by_text(bench, label, ids)
    for draw in range(draws):
        with random_adapter(bench, label, seed=seed + draw):
            chance.append({name: float(np.mean(values)) for name, values in _by_text(bench, label, ids).items()})
    figures: dict[str, tuple[float, tuple[float, float] | None]] = {}
    for name, values in own.items():
        interval = None
        if len(values) > 1:
            interval = paired_bootstrap(values, np.zeros(len(values)), rng=np.random.default_rng(seed))
        figures[name] = float(np.mean(values)), interval
    nulls = {name: [one[name] for one in chance] for name in figures if name != "entropy_base"}
    said = (
        f"teacher-forced, {sum(len(one) - 1 for one in ids)} tokens, mean over texts, bootstrap over texts, seed {seed}; null: "
        f"mean of {draws} random adapter(s) of equal rank and ||dW||_F in every matrix"
    )
    measured, kept = assemble(figures, nulls, n=len(ids), units=_UNITS, operators=_OPERATORS, said=said)
    return Measured(subject=f"{label} on {bench.runtime.checkpoint.source}", measured=measured, nulls=kept)


def _opened(base: Any, adapter: str | Path, device: str) -> tuple[Bench, str]:
    if not isinstance(base, Bench):
        return Bench.open(base, {"adapter": adapter}, device=device), "adapter"
    if str(adapter) in base.labels:
        return base, str(adapter)
    label = next(
        f"adapter {number}" for number in range(len(base.labels) + 1) if f"adapter {number}" not in base.labels
    )
    base.add(label, adapter)
    return base, label


def _by_text(bench: Bench, label: str, ids: list[list[int]]) -> dict[str, np.ndarray]:
    """Each figure's mean over the tokens of each text."""
    found: dict[str, list[float]] = {name: [] for name in _OPERATORS}
    for one in ids:
        seen = []
        for name in (None, label):
            with bench.using(name):
                seen.append(bench.runtime.logits(one)[:-1])
        for name, value in _means(seen[0], seen[1], one[1:]).items():
            found[name].append(value)
    return {name: np.asarray(values) for name, values in found.items()}


def _means(base: Any, adapted: Any, following: list[int]) -> dict[str, float]:
    import torch

    totals = dict.fromkeys(_OPERATORS, 0.0)
    goal = torch.tensor(following)[:, None]
    for start in range(0, len(following), _ROWS):
        p, q = (torch.log_softmax(one[start : start + _ROWS].double(), dim=-1) for one in (base, adapted))
        part, choice = goal[start : start + _ROWS], q.argmax(-1, keepdim=True)
        entropy_p, entropy_q = (torch.special.entr(one.exp()).sum(-1) for one in (p, q))
        rank = (p > p.gather(1, choice)).sum(-1) + 1
        columns = {
            "entropy_change": entropy_p - entropy_q,
            "entropy_base": entropy_p,
            "entropy_adapter": entropy_q,
            # a masked word has probability 0 in both, and 0 ln 0 is 0
            "kl": torch.where(q.exp() > 0, q.exp() * (q - p), 0).sum(-1).clamp_min(0),
            "same_first_choice": (p.argmax(-1) == choice[:, 0]).double(),
            "base_approval": (rank <= APPROVED_RANK).double(),
            "loss_change": (p.gather(1, part) - q.gather(1, part))[:, 0],
        }
        for name, column in columns.items():
            totals[name] += float(column.sum())
    return {name: total / len(following) for name, total in totals.items()}
