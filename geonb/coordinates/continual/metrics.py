"""What a sequence of tasks left behind: accuracy, forgetting, backward transfer and intransigence from the matrix a[k][j]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.geometry.statistics import bootstrap_interval
from geonb.records import Record

Matrix = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinualMetrics(Record):
    """Shares in 0..1 of one run; `forgetting` and `just_learned` always belong together: nothing learned, nothing forgotten."""

    accuracy: float  # mean_j a[K][j]
    just_learned: float  # mean_j a[j][j]
    forgetting: float  # mean_{j<K} (max_{l<K} a[l][j] - a[K][j]), Chaudhry et al. 2018
    backward_transfer: float  # mean_{j<K} (a[K][j] - a[j][j]), Lopez-Paz and Ranzato 2017
    intransigence: float | None  # mean_j (joint_j - a[j][j]), where joint training was run


def check_matrix(matrix: Matrix) -> None:
    """Raise `InputError` unless row k (from 0) holds the accuracies of tasks 0..k, k + 1 of them, for at least two tasks."""
    if len(matrix) < 2:
        raise InputError(f"an accuracy matrix of {len(matrix)} tasks was given; forgetting needs at least two.")
    for place, row in enumerate(matrix):
        if len(row) != place + 1:
            raise InputError(
                f"row {place + 1} of the accuracy matrix has {len(row)} entries; allowed are {place + 1}, one a task so far."
            )


def forgotten(matrix: Matrix) -> np.ndarray:
    """f_j = max_{j <= l < K} a[l][j] - a[K][j] of the tasks before the last: (K - 1,)."""
    check_matrix(matrix)
    last = len(matrix) - 1
    return np.array(
        [max(matrix[place][task] for place in range(task, last)) - matrix[last][task] for task in range(last)]
    )


def continual_metrics(matrix: Matrix, *, joint: Sequence[float] | None = None) -> ContinualMetrics:
    """The metrics of a lower triangular matrix: a[k][j] is the accuracy on task j after learning task k, j <= k.

    `joint` holds the accuracies of a model that was trained on all tasks at once. Raises `InputError` for another shape.

    >>> continual_metrics([[1.0], [0.5, 0.75]]).forgetting
    0.5
    """
    check_matrix(matrix)
    final = np.asarray(matrix[-1], dtype=np.float64)
    learned = np.array([row[-1] for row in matrix])
    if joint is not None and len(joint) != len(final):
        raise InputError(f"{len(joint)} joint accuracies were given for {len(final)} tasks; allowed is one a task.")
    return ContinualMetrics(
        accuracy=float(final.mean()),
        just_learned=float(learned.mean()),
        forgetting=float(forgotten(matrix).mean()),
        backward_transfer=float((final - learned)[:-1].mean()),
        intransigence=None if joint is None else float((np.asarray(joint) - learned).mean()),
    )


def mean_of(
    values: Sequence[float] | np.ndarray, *, what: str, null: float | None = None, seed: int = 0
) -> Measurement:
    """The mean of values of (seed, task) pairs with its bootstrap interval over those pairs."""
    sample = np.asarray(values, dtype=np.float64)
    interval = bootstrap_interval(sample, rng=np.random.default_rng(seed)) if len(sample) > 1 else None
    return Measurement(
        value=float(sample.mean()),
        interval=interval,
        n=len(sample),
        null=null,
        unit="share",
        operator=f"{what}; 95 % percentile bootstrap over (seed, task) pairs, seed {seed}",
    )
