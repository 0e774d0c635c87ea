"""The horizon: how many optimiser steps a run is derived for."""

from __future__ import annotations

from typing import Any

MINIMUM_STEPS = 200  # a convention: below it the averaging of gradients has nothing to average over


def horizon(*, n_train: int, batch_size: int, max_steps: int | None, epochs: int | None) -> dict[str, Any]:
    """Steps T, the epochs they amount to, and what decided: the person, one epoch, or the stated minimum.

    >>> horizon(n_train=100, batch_size=16, max_steps=None, epochs=2)["steps"]
    14
    """
    per_epoch = max(1, -(-n_train // batch_size))
    if max_steps is not None:
        steps, source = max_steps, "given by --max-steps"
    elif epochs is not None:
        steps, source = per_epoch * epochs, f"given by --epochs: {epochs:,} x {per_epoch:,} steps"
    elif per_epoch >= MINIMUM_STEPS:
        steps, source = per_epoch, f"one epoch of {n_train:,} examples in batches of {batch_size:,}"
    else:
        steps, source = MINIMUM_STEPS, f"the minimum of {MINIMUM_STEPS}; one epoch would be {per_epoch:,}"
    return {"steps": steps, "epochs": steps / per_epoch, "steps_per_epoch": per_epoch, "source": source}
