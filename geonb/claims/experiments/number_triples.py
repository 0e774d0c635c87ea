"""Pythagorean triples in a model: their twins that are none, a probe that tells them apart, and the shape they span."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, isqrt
from typing import Any

import numpy as np

from geonb.errors import InputError
from geonb.geometry.measurement import Measurement

Triple = tuple[int, int, int]


def pythagorean(limit: int) -> list[Triple]:
    """Every a < b < c <= limit with a^2 + b^2 = c^2, by c.

    >>> pythagorean(13)
    [(3, 4, 5), (6, 8, 10), (5, 12, 13)]
    """
    return [
        (a, b, c)
        for c in range(1, limit + 1)
        for a in range(1, c)
        if a < (b := isqrt(c * c - a * a)) and a * a + b * b == c * c
    ]


def family(triple: Triple) -> Triple:
    """The triple without its common factor: multiples are one family.

    >>> family((6, 8, 10))
    (3, 4, 5)
    """
    common = gcd(*triple)
    return (triple[0] // common, triple[1] // common, triple[2] // common)


def twins(triples: Sequence[Triple], *, seed: int = 0) -> list[Triple]:
    """For each triple one with the same a and b, and c moved by 1 to 3, as often up as down, and never down to b."""
    rng = np.random.default_rng(seed)
    signs = rng.permutation(np.resize([1, -1], len(triples)))
    found = []
    for (a, b, c), sign in zip(triples, signs, strict=True):
        step = int(rng.integers(1, 4))
        found.append((a, b, c + int(sign) * step if c + sign * step > b else c + step))
    return found


def unmatched(count: int, limit: int, *, seed: int = 0) -> list[Triple]:
    """`count` random a < b < c <= limit that are no triples: magnitude alone tells them from Pythagorean ones."""
    rng = np.random.default_rng(seed)
    found: list[Triple] = []
    while len(found) < count:
        a, b, c = sorted(int(one) for one in rng.choice(np.arange(1, limit + 1), 3, replace=False))
        if a * a + b * b != c * c:
            found.append((a, b, c))
    return found


def near(triple: Triple, *, limit: int, rng: np.random.Generator, share: float = 0.2) -> Triple:
    """A random triple with each member within `share` of the given one's, in order, and not Pythagorean."""
    for _ in range(1000):
        ends = [(max(1, round(one * (1 - share))), min(limit, round(one * (1 + share)))) for one in triple]
        a, b, c = (int(rng.integers(low, high + 1)) for low, high in ends)
        if a < b < c and a * a + b * b != c * c and (a, b, c) != triple:
            return a, b, c
    raise InputError(f"no triple lies within {share:.0%} of {triple}: give a larger share.")


def line_vectors(model: Any, tokenizer: Any, triples: Sequence[Triple]) -> np.ndarray:
    """What a model makes of the line "a b c": (depths, triples, 3 x width), each number the mean over its tokens.

    The last number's vector has read the two before it.
    """
    from geonb.claims.experiments.words import states_of

    rows = []
    for triple in triples:
        line = " ".join(map(str, triple))
        encoded = tokenizer(line, add_special_tokens=False, return_offsets_mapping=True)
        states = states_of(model, [encoded["input_ids"]])[:, 0].double().cpu().numpy()
        parts, start = [], 0
        for number in map(str, triple):
            start = line.index(number, start)
            end = start + len(number)
            kept = [
                place for place, (left, right) in enumerate(encoded["offset_mapping"]) if right > start and left < end
            ]
            parts.append(states[:, kept].mean(1))
            start = end
        rows.append(np.concatenate(parts, axis=1))
    return np.stack(rows, axis=1)


def _logistic(x: np.ndarray, y: np.ndarray, strength: float) -> np.ndarray:
    from scipy.optimize import minimize

    signs = 2.0 * y - 1

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = signs * (x @ w)
        slope = -signs / (1 + np.exp(np.clip(margin, -500, 500)))
        return float(np.logaddexp(0, -margin).sum() + strength * (w @ w) / 2), x.T @ slope + strength * w

    return minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 200}).x


def probe_hits(
    vectors: np.ndarray, labels: np.ndarray, groups: Sequence[Any], *, seed: int, folds: int = 5, strength: float = 1.0
) -> np.ndarray:
    """Whether a logistic probe is right on each row, when a fold that holds all of its group was left out.

    Inputs are standardised by the training rows and divided by sqrt(width); `strength` is the ridge's.
    """
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    fold = {names[one]: place % folds for place, one in enumerate(order)}
    folded = np.array([fold[one] for one in groups])
    hits = np.empty(len(labels), dtype=bool)
    for part in range(folds):
        train, test = folded != part, folded == part
        mean, spread = vectors[train].mean(0), vectors[train].std(0)
        ready = (vectors - mean) / np.where(spread > 0, spread, 1) / np.sqrt(vectors.shape[1])
        # the weights lie in the span of the training rows
        basis = np.linalg.svd(ready[train], full_matrices=False)[2]
        ready = np.hstack([ready @ basis.T, np.ones((len(ready), 1))])
        weights = _logistic(ready[train], labels[train], strength / vectors.shape[1])
        hits[test] = (ready[test] @ weights > 0) == labels[test].astype(bool)
    return hits


def accuracy_of(
    hits: np.ndarray, groups: Sequence[Any], *, operator: str, null: float | None = None, seed: int = 0
) -> Measurement:
    """The mean of hits (seeds, rows) with a bootstrap of whole groups."""
    rows = np.atleast_2d(hits).mean(0)
    names = sorted(set(groups))
    sums = np.array(
        [[rows[[one == name for one in groups]].sum(), sum(one == name for one in groups)] for name in names]
    )
    drawn = sums[np.random.default_rng(seed).integers(len(names), size=(2000, len(names)))].sum(1)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    return Measurement(
        value=float(rows.mean()),
        interval=(float(low), float(high)),
        n=len(names),
        null=null,
        unit="accuracy",
        operator=operator,
    )


def shape_similarities(first: np.ndarray, second: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """1 - the Procrustes disparity of the points `rows` (sets, k) of two tables (n, d1), (n, d2): (sum of s(X'Y))^2.

    X and Y are centred and of Frobenius norm 1 (Gower 1975): 1 for equal shapes, whatever rotation, size and width. The
    singular values of X'Y are the roots of the eigenvalues of XX'YY', a table of k by k.
    """
    chosen = np.asarray(rows)
    k = chosen.shape[1]
    centre = np.eye(k) - 1 / k

    def grams(table: np.ndarray) -> np.ndarray:
        points = centre @ table[chosen]
        inner = points @ points.transpose(0, 2, 1)
        return inner / np.trace(inner, axis1=1, axis2=2)[:, None, None]

    x, y = grams(np.asarray(first, dtype=np.float64)), grams(np.asarray(second, dtype=np.float64))
    # x^(1/2) y x^(1/2) has the eigenvalues of xy and is symmetric
    values, vectors = np.linalg.eigh(x)
    root = vectors * np.sqrt(np.maximum(values, 0))[:, None, :] @ vectors.transpose(0, 2, 1)
    found = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ y @ root), 0)).sum(1) ** 2
    return np.minimum(found, 1.0)


def order_of(vectors: np.ndarray, numbers: Sequence[int], *, resamples: int = 200, seed: int = 0) -> Measurement:
    """The rank correlation of distance with |log a - log b| over pairs of numbers, bootstrap over numbers."""
    from scipy.stats import spearmanr

    logs = np.log(np.asarray(numbers, dtype=np.float64))
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    apart = np.abs(logs[:, None] - logs[None])

    def of(rows: np.ndarray) -> float:
        i, j = np.triu_indices(len(rows), 1)
        different = rows[i] != rows[j]
        i, j = rows[i][different], rows[j][different]
        return float(np.asarray(spearmanr(distances[i, j], apart[i, j]))[0])

    rng = np.random.default_rng(seed)
    everything = np.arange(len(logs))
    drawn = [of(rng.integers(len(logs), size=len(logs))) for _ in range(resamples)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Measurement(
        value=of(everything),
        interval=(float(low), float(high)),
        n=len(logs),
        null=0.0,
        unit="Spearman r",
        operator="distance against |log a - log b| over pairs, bootstrap over numbers",
    )
