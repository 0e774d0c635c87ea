"""Numbers as a plan stores them: rounded to significant digits, so that equal inputs give equal bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

STORED_DIGITS = 9
# measured on activations and gradients: float32 sums differ in the fifth digit between machines, three survive
MEASURED_DIGITS = 3


def significant(value: float, digits: int = STORED_DIGITS) -> float:
    """`value` with `digits` significant decimal digits; zero and non-finite values stay.

    >>> significant(0.123456789123, 3)
    0.123
    """
    value = float(value)
    if value == 0.0 or not math.isfinite(value):
        return value
    return float(f"{value:.{digits - 1}e}")


def rounded(value: Any, digits: int = STORED_DIGITS) -> Any:
    """`value` with every float in it rounded by `significant`; mappings become dicts and sequences tuples.

    >>> rounded({"a": [1, 2.0000000001]})
    {'a': (1, 2.0)}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return significant(value, digits)
    if isinstance(value, Mapping):
        return {str(key): rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(rounded(item, digits) for item in value)
    return value
