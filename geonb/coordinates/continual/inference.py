"""Accuracy where nobody says which operation is asked: the id is guessed from the question, and answered as that task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from geonb.coordinates.continual.language import CharacterModel, OperationTask, encode
from geonb.coordinates.continual.operation import ask
from geonb.coordinates.continual.routing import bags, nearest_centroid, nearest_coordinate

_TRAINING = 20  # questions an operation that its centroid is made of


@torch.no_grad()
def accuracy_by_guess(
    model: CharacterModel,
    tasks: Sequence[OperationTask],
    read_as: Callable[[int], Tensor | None],
    *,
    by: str,
    seed: int,
) -> list[float]:
    """Exact accuracy on each task's held-out questions, each read under the guessed task; `by` is kernel or bag of words."""
    rng = np.random.default_rng((seed, 13))
    known = [ask(task.operation, rng, task.form, False) for task in tasks for _ in range(_TRAINING)]
    labels = np.repeat(np.arange(len(tasks)), _TRAINING)
    questions = [one for task in tasks for one in task.questions]
    owner = np.repeat(np.arange(len(tasks)), [len(task.questions) for task in tasks])
    if by == "kernel":
        guesses = nearest_coordinate(model.model, known, labels, questions)
    else:
        guesses = nearest_centroid(*_between(known, questions, labels))
    right = np.zeros(len(questions))
    for guess in np.unique(guesses):
        places = np.flatnonzero(guesses == guess)
        batch = encode([questions[place] for place in places])
        right[places] = model.grades(batch, read_as(int(guess)))[:, 0].numpy()
    return [float(right[owner == task].mean()) for task in range(len(tasks))]


def _between(known, questions, labels):
    first, second = bags([one.prompt for one in known], [one.prompt for one in questions], words=True)
    return first, labels, second
