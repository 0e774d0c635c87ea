"""What each held-out example costs, base and adapter, kept so that two runs can be paired example by example."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from geonb.data.example import Example
from geonb.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleLosses(Record):
    """Nats per counted token of every evaluation example, and of every held-out base text, in their order.

    The plain mean of `adapted` minus that of `base` is the `task` of the verification. Its `base_loss` and
    `adapted_loss` are other means: over tokens, where an example weighs as many tokens as it counts.
    """

    evaluation_digest: str
    base: tuple[float, ...]
    adapted: tuple[float, ...]
    retention_digest: str | None  # None where the run had no held-out base text
    base_retention: tuple[float, ...]
    adapted_retention: tuple[float, ...]

    def summary(self) -> str:
        return f"ExampleLosses({len(self.base)} evaluation examples, {len(self.base_retention)} of retention)"


def examples_digest(examples: Sequence[Example]) -> str:
    """sha256 over token ids and counted masks in order: equal where the same tokens are scored at the same places."""
    digest = hashlib.sha256()
    for example in examples:
        # the length goes first, so that no two divisions of one stream of tokens look alike
        digest.update(len(example.input_ids).to_bytes(8, "little"))
        digest.update(np.asarray(example.input_ids, dtype="<i8").tobytes())
        digest.update(np.asarray(example.loss_mask, dtype="u1").tobytes())
    return digest.hexdigest()


def six_digits(values: Iterable[float]) -> tuple[float, ...]:
    """Six significant digits: a thousandth of what any interval resolves, at a third of the bytes."""
    return tuple(float(f"{float(value):.6g}") for value in values)
