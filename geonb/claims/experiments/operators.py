"""Four ways to say how alike two states of a model are, and whether likeness falls with the distance between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from geonb.geometry.cka import debiased_linear_cka
from geonb.geometry.inference import permutation_p


def _gram_cka(first: np.ndarray, second: np.ndarray) -> float:
    sides = []
    for gram in (first, second):
        means = gram.mean(0, keepdims=True)
        centred = gram - means - means.T + gram.mean()
        sides.append(centred / np.linalg.norm(centred))
    return float((sides[0] * sides[1]).sum())


def rbf_cka(first: np.ndarray, second: np.ndarray) -> float:
    """CKA of Gaussian kernels, each as wide as the median distance of its points (Kornblith et al. 2019); X: (n, d)."""
    from geonb.claims.experiments.renyi import gaussian_gram

    return _gram_cka(gaussian_gram(first), gaussian_gram(second))


def linear_cka(first: np.ndarray, second: np.ndarray) -> float:
    """CKA of linear kernels, biased: near 1 for independent data where n is small against d."""
    sides = [np.asarray(one, dtype=np.float64) for one in (first, second)]
    return _gram_cka(*(one @ one.T for one in sides))


def procrustes_likeness(first: np.ndarray, second: np.ndarray) -> float:
    """1 - the residual min_R ||X R - Y||_F = sqrt(2 - 2 ||X'Y||_*) of clouds (n, d) that are centred and of norm 1."""
    from scipy.linalg import svdvals

    reduced = []
    for cloud in (first, second):
        centred = np.asarray(cloud, dtype=np.float64) - np.mean(cloud, axis=0)
        # X' = Q R: the singular values of X'Y are those of the small product of both R
        reduced.append(np.linalg.qr((centred / np.linalg.norm(centred)).T, mode="r"))
    nuclear = float(np.sum(svdvals(reduced[0] @ reduced[1].T)))
    return 1.0 - float(np.sqrt(max(0.0, 2.0 - 2.0 * nuclear)))


OPERATORS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "linear CKA": linear_cka,
    "debiased CKA": debiased_linear_cka,
    "RBF CKA": rbf_cka,
    "Procrustes": procrustes_likeness,
}


def likeness_table(states: Sequence[np.ndarray], operator: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
    """The likeness of all pairs of `states`: (S, S), symmetric, 1 on the diagonal."""
    size = len(states)
    found = np.eye(size)
    for one in range(size):
        for other in range(one):
            found[one, other] = found[other, one] = operator(states[one], states[other])
    return found


@dataclass(frozen=True, slots=True)
class Mantel:
    """Spearman of likeness and distance in depth over all pairs, with the p of a fall as deep by relabelled states."""

    value: float
    p: float
    draws: np.ndarray


def fall_with_depth(likeness: np.ndarray, *, draws: int = 5000, seed: int = 0) -> Mantel:
    """Mantel's test (1967), one-sided, that states farther apart in depth are less alike; `likeness`: (S, S).

    >>> fall_with_depth(-np.abs(np.subtract.outer(np.arange(9.0), np.arange(9.0)))).value
    -1.0
    """
    from scipy.stats import rankdata

    size = len(likeness)
    rng = np.random.default_rng(seed)
    pairs = np.triu_indices(size, 1)
    depth = _unit(rankdata(pairs[1] - pairs[0]))
    ranks = np.zeros((size, size))
    ranks[pairs] = _unit(rankdata(likeness[pairs].round(12)))
    ranks += ranks.T
    found = np.empty(draws)
    for place in range(draws):
        order = rng.permutation(size)
        found[place] = depth @ ranks[order[pairs[0]], order[pairs[1]]]
    value = float(np.clip(depth @ ranks[pairs], -1, 1))
    return Mantel(value, permutation_p(-value, (-found).tolist()), found)


def _unit(ranks: np.ndarray) -> np.ndarray:
    centred = ranks - ranks.mean()
    return centred / np.linalg.norm(centred)
