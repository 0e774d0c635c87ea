"""Which examples each step sees: epochs of seeded permutations, any step on its own."""

from __future__ import annotations

import functools

import numpy as np


@functools.lru_cache(maxsize=4)
def _permutation(n_train: int, epoch: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n_train)


def batch_at(step: int, *, n_train: int, batch_size: int, seed: int) -> np.ndarray:
    """The rows of step number `step` (from 0): position step x batch_size of an endless row of shuffled epochs.

    Every epoch holds each row once; a batch may span two epochs, and one larger than the data repeats it.

    >>> sorted(np.concatenate([batch_at(s, n_train=6, batch_size=2, seed=0) for s in range(3)]).tolist())
    [0, 1, 2, 3, 4, 5]
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, offsets = np.divmod(positions, n_train)
    return np.array(
        [_permutation(n_train, int(epoch), seed)[offset] for epoch, offset in zip(epochs, offsets, strict=True)]
    )
