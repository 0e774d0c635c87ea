"""What the uncertainty of a coordinate knows of the next token, against its entropy: ranks by position, whole texts drawn."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from geonb.coordinates import grammar
from geonb.coordinates.analyze import encoded
from geonb.coordinates.configuration import preset
from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.recipe import Recipe
from geonb.coordinates.run import load_model, load_tokenizer
from geonb.coordinates.trained import trained_model
from geonb.coordinates.training import train
from geonb.coordinates.uncertainty import DECAY, innovations
from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.train.events import EvalEvent

SWITCHES = ("uncertainty", "entropy", "doubt")
RATE = 3e-4  # that of `geonb coordinates train`, unless asked for another
_FEWEST = 8  # texts at a position, for ranks that mean something
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class TokenTable:
    """One row a token: what was known when it had been read, and what the next one cost."""

    model: np.ndarray  # which of the models
    text: np.ndarray  # which text of that model
    position: np.ndarray  # 1 for the first token behind the mark of the beginning
    uncertainty: np.ndarray  # the innovation, free of bias
    published: np.ndarray  # against a context that starts at zero
    entropy: np.ndarray  # nats, of the next token
    doubt: np.ndarray  # one minus the largest probability
    loss: np.ndarray  # nats, of the next token


def trained(
    seeds: Sequence[int], *, steps: int, rate: float = RATE, run: str | Path = ""
) -> list[tuple[CoordinateModel, Any, CoordinateModel, list[float]]]:
    """For each seed the trained `tiny`, its tokenizer, the model before the first step, and the held-out losses on the way.

    `rate` is AdamW's for embeddings, blocks and output. With a `run`, the folder of a `geonb coordinates train` run, its one
    model stands for all of them and nothing is trained. Raises `InputError` for a recipe that cannot be, and for a folder that
    holds no such run.

    >>> [(model, tokenizer, start, losses)] = trained([0], steps=200, rate=3e-3)    # doctest: +SKIP
    """
    if str(run):
        return [_read(run)]
    recipes = [
        Recipe(configuration=preset("tiny"), steps=steps, seed=seed, base_rate=rate, evaluate_every=max(1, steps // 2))
        for seed in seeds
    ]
    found = []
    for recipe in recipes:
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder) / "run"
            losses = [event.loss for event in train(recipe, home) if isinstance(event, EvalEvent)]
            start = CoordinateModel(recipe.configuration, seed=recipe.seed)
            found.append((load_model(home), load_tokenizer(home), start, losses))
    return found


def _read(run: str | Path) -> tuple[CoordinateModel, Any, CoordinateModel, list[float]]:
    past = trained_model(run)
    start = CoordinateModel(past.recipe.configuration, seed=past.recipe.seed)
    return load_model(run), load_tokenizer(run), start, [loss for _, loss in past.losses]


def held_out_texts(count: int, *, seed: int = 0) -> list[str]:
    """`count` held-out texts, every other a sentence with all attributes drawn, every other a dialogue of two turns."""
    return grammar.held_out_texts(count, np.random.default_rng([seed, 77]))


@torch.no_grad()
def token_table(
    models: Sequence[tuple[CoordinateModel, Any]], texts: Sequence[str], *, longest: int = 96
) -> TokenTable:
    """Read every text with every model, cut at `longest` tokens; the first token has no past and is left out."""
    columns: dict[str, list[np.ndarray]] = {name: [] for name in TokenTable.__dataclass_fields__}
    for number, (model, tokenizer) in enumerate(models):
        for place, text in enumerate(texts):
            ids = torch.tensor([encoded(tokenizer, text)[:longest]])
            reading = model(ids)
            assert reading.theta is not None
            logs = reading.logits[0, 1:-1].double().log_softmax(-1)
            size = len(logs)
            rows = {
                "model": np.full(size, number),
                "text": np.full(size, place),
                "position": np.arange(1, size + 1),
                "uncertainty": innovations(reading.theta)[0, 1:-1].numpy(),
                "published": published_uncertainty(reading.theta)[0, 1:-1].numpy(),
                "entropy": -(logs.exp() * logs).sum(-1).numpy(),
                "doubt": 1 - logs.max(-1).values.exp().numpy(),
                "loss": -logs.gather(1, ids[0, 2:, None])[:, 0].numpy(),
            }
            for name, values in rows.items():
                columns[name].append(values)
    return TokenTable(**{name: np.concatenate(parts) for name, parts in columns.items()})


def published_uncertainty(theta: Tensor, *, decay: float = DECAY) -> Tensor:
    """var_j(theta_t - c_t), c_t = 0.95 c_(t-1) + 0.05 theta_t from c_0 = 0: (batch, tokens, coordinates) -> (batch, tokens)."""
    context, found = torch.zeros_like(theta[:, 0]), []
    for one in theta.unbind(1):
        context = decay * context + (1 - decay) * one
        found.append((one - context).var(-1, correction=0))
    return torch.stack(found, 1)


def ranks_within(values: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
    """Ranks among those of the same groups, from -1/2 to 1/2 with mean zero; nan where fewer than 8 are comparable."""
    codes = np.unique(np.stack(groups), axis=1, return_inverse=True)[1].ravel()
    found = np.full(len(values), np.nan)
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        if len(rows) >= _FEWEST:
            found[rows] = (rankdata(values[rows]) - (len(rows) + 1) / 2) / len(rows)
    return found


def knows(table: TokenTable, switch: str, *, within_position: bool = True, seed: int = 0) -> Measurement:
    """Spearman of a switch and the loss of the next token; texts are drawn with what all models make of them, ranks stay.

    The null is the 95 % quantile of its size with the losses permuted within what they are ranked in.
    """
    own, loss, groups, texts = _ranked(table, switch, within_position)
    sums = _sums(own, loss, texts)
    rng = np.random.default_rng(seed)
    drawn = _correlation(_draws(len(sums), rng) @ sums)
    chance = []
    for _ in range(200):
        order = np.lexsort((rng.random(len(loss)), groups))
        mixed = np.empty_like(loss)
        mixed[np.argsort(groups, kind="stable")] = loss[order]
        chance.append(abs(float(_correlation(_sums(own, mixed, np.zeros(len(own), dtype=int)))[0])))
    return Measurement(
        value=float(_correlation(sums.sum(0, keepdims=True))[0]),
        interval=_ends(drawn),
        n=len(sums),
        null=float(np.quantile(chance, 0.95)),
        unit="",
        operator=f"Spearman of {switch} and next loss, ranks within model{' and position' if within_position else ''}, "
        f"bootstrap of {_RESAMPLES} over texts, null: 95 % of |r| permuted, seed {seed}",
    )


def advantage(table: TokenTable, first: str, second: str, *, seed: int = 0) -> Measurement:
    """The Spearman of `first` minus that of `second`, both within position, on the same draws of texts."""
    sides = []
    for switch in (first, second):
        own, loss, _, texts = _ranked(table, switch, True)
        sides.append(_sums(own, loss, texts))
    draws = _draws(len(sides[0]), np.random.default_rng(seed))
    value = [float(_correlation(one.sum(0, keepdims=True))[0]) for one in sides]
    return Measurement(
        value=value[0] - value[1],
        interval=_ends(_correlation(draws @ sides[0]) - _correlation(draws @ sides[1])),
        n=len(sides[0]),
        null=0.0,
        unit="",
        operator=f"Spearman of {first} minus that of {second}, paired bootstrap of {_RESAMPLES} over texts, seed {seed}",
    )


def position_share(table: TokenTable, column: str, *, positions: int = 24, seed: int = 0) -> Measurement:
    """The share of a column's variance that the position explains: variance of the positions' means over the total.

    Of texts that have all `positions`; within models, their mean; bootstrap over whole texts. Raises `InputError` for fewer
    than eight such texts of a model.
    """
    values = getattr(table, column)
    grids = []
    for model in np.unique(table.model):
        rows = [values[(table.model == model) & (table.text == text)] for text in np.unique(table.text)]
        grid = np.array([row[:positions] for row in rows if len(row) >= positions])
        if len(grid) < _FEWEST:
            raise InputError(f"{len(grid)} texts have {positions} positions; needed are {_FEWEST}: give longer texts.")
        grids.append(grid)
    rng = np.random.default_rng(seed)
    drawn = [
        np.mean([_share(grid[rng.integers(len(grid), size=len(grid))]) for grid in grids]) for _ in range(_RESAMPLES)
    ]
    return Measurement(
        value=float(np.mean([_share(grid) for grid in grids])),
        interval=_ends(np.array(drawn)),
        n=sum(map(len, grids)),
        null=None,
        unit="of the variance",
        operator=f"between positions 1 to {positions} over total, bootstrap of {_RESAMPLES} over texts, seed {seed}",
    )


def _share(grid: np.ndarray) -> float:
    total = grid.var()
    return float(grid.mean(0).var() / total) if total > 0 else float("nan")


def _ranked(table: TokenTable, switch: str, within_position: bool) -> tuple[np.ndarray, ...]:
    if switch not in SWITCHES:
        raise InputError(f"the switch {switch!r} was given; allowed are {', '.join(SWITCHES)}.")
    groups = [table.model, table.position] if within_position else [table.model]
    own, loss = ranks_within(getattr(table, switch), groups), ranks_within(table.loss, groups)
    kept = ~np.isnan(loss)
    codes = np.unique(np.stack(groups), axis=1, return_inverse=True)[1].ravel()
    return own[kept], loss[kept], codes[kept], table.text[kept]


def _sums(x: np.ndarray, y: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """What a correlation needs of each text: (texts, 6)."""
    _, codes = np.unique(texts, return_inverse=True)
    parts = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)
    return np.stack([np.bincount(codes, weights=part) for part in parts.T], axis=1)


def _correlation(sums: np.ndarray) -> np.ndarray:
    n, x, y, xx, yy, xy = sums.T
    return (xy - x * y / n) / np.sqrt((xx - x * x / n) * (yy - y * y / n))


def _draws(texts: int, rng: np.random.Generator) -> np.ndarray:
    return rng.multinomial(texts, np.full(texts, 1 / texts), size=_RESAMPLES).astype(float)


def _ends(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)
