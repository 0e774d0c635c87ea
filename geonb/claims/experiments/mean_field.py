"""What mean-field theory says of a sublayer, alpha^2 chi, and how much the token cloud expands there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from geonb.errors import InputError
from geonb.geometry.point_cloud import participation_ratio


@dataclass(frozen=True, slots=True)
class Sublayers:
    """Figures of n prompts at S sublayers (attention and MLP of each block in turn), each (n, S)."""

    alpha: np.ndarray  # mean over tokens of ||update|| / ||h||
    chi: np.ndarray  # variance of the update over that of h, summed over directions, over tokens
    expansion: np.ndarray  # ln of the participation ratio after over before

    @property
    def predictor(self) -> np.ndarray:
        """alpha^2 chi: (n, S)."""
        return self.alpha**2 * self.chi


def sublayer_figures(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    """alpha, chi and expansion of one prompt's tokens (t, d) at one sublayer; raises `InputError` for unequal shapes."""
    before, after = (np.asarray(one, dtype=np.float64) for one in (before, after))
    if before.shape != after.shape or before.ndim != 2 or len(before) < 3:
        raise InputError(
            f"clouds of {before.shape} and {after.shape} were given; allowed are equal ones of 3 or more tokens."
        )
    update = after - before
    alpha = float((np.linalg.norm(update, axis=1) / np.linalg.norm(before, axis=1)).mean())
    chi = float(update.var(0).sum() / before.var(0).sum())
    return alpha, chi, float(np.log(participation_ratio(after) / participation_ratio(before)))


def sublayers_of(model: Any, token_ids: list[list[int]]) -> Sublayers:
    """Run `token_ids` through `model` (as `geonb.analysis.collect` takes it) and measure each prompt at each sublayer."""
    from geonb.analysis import collect
    from geonb.claims.experiments.residual_chain import states_of

    collected = collect(model, token_ids, pool="tokens")
    rows = collected.rows
    states = [state for _, state in states_of(collected)]
    figures = np.empty((3, len(token_ids), len(states) - 1))
    for text in range(len(token_ids)):
        clouds = [state[rows == text] for state in states]
        for place in range(len(states) - 1):
            figures[:, text, place] = sublayer_figures(clouds[place], clouds[place + 1])
    return Sublayers(*figures)


def rank_agreement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman of each row of `first` with the same row of `second`: (n,), from tables (n, S)."""
    return (_unit_ranks(first) * _unit_ranks(second)).sum(1)


def relabelled(first: np.ndarray, second: np.ndarray, *, draws: int = 2000, seed: int = 0) -> np.ndarray:
    """The mean agreement under `draws` relabellings of the sublayers, one relabelling for all prompts at once: (draws,)."""
    rng = np.random.default_rng(seed)
    # the mean over prompts of every sublayer of the one with every sublayer of the other: a relabelling picks one a row
    met = _unit_ranks(first).T @ _unit_ranks(second) / len(first)
    sublayers = np.arange(len(met))
    return np.array([met[sublayers, rng.permutation(len(met))].sum() for _ in range(draws)])


def _unit_ranks(table: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    ranks = rankdata(table, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    return ranks / np.linalg.norm(ranks, axis=1, keepdims=True)
