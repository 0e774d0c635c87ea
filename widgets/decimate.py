"""Fewer points than pixels, and no spike lost: minimum and maximum of each bucket."""

from __future__ import annotations

import numpy as np


def buckets(count: int, limit: int) -> np.ndarray:
    """Starts of at most `limit` buckets of nearly equal length over `count` rows."""
    if count <= limit:
        return np.arange(count)
    return np.unique(np.linspace(0, count, limit, endpoint=False).astype(np.intp))


def extremes(values: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """(row of each point, values): each bucket's minimum and maximum, column by column; at most `limit` >= 2 rows.

    `values`: (rows, columns). NaN is skipped where a bucket has any number. Rows are in order; with few enough rows
    everything is kept as it is.

    >>> extremes(np.array([[1.0], [9.0], [2.0], [0.0]]), 2)[1].tolist()
    [[0.0], [9.0]]
    """
    count = len(values)
    if count <= limit:
        return np.arange(count), values
    starts = buckets(count, max(1, limit // 2))
    low = np.fmin.reduceat(values, starts, axis=0)
    high = np.fmax.reduceat(values, starts, axis=0)
    middles = (starts + np.append(starts[1:], count)) // 2
    rows = np.stack([starts, middles], axis=1).reshape(-1)
    return rows, np.stack([low, high], axis=1).reshape(-1, values.shape[1])


def majority(codes: np.ndarray, limit: int) -> np.ndarray:
    """The most frequent code (small non-negative integers) in each of at most `limit` buckets."""
    starts = buckets(len(codes), limit)
    if len(starts) == len(codes):
        return codes
    counts = np.stack([np.add.reduceat(codes == code, starts) for code in range(int(codes.max()) + 1)])
    return counts.argmax(axis=0).astype(codes.dtype)
