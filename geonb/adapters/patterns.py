"""The regular expressions of a stranger's adapter config: which of them may be matched without waiting for ever.

PEFT matches the keys of rank_pattern and alpha_pattern, and target_modules where it is one string, against every module
of the base. A repeat inside a repeat, such as (a+)+, takes time exponential in the length of a name.
"""

from __future__ import annotations

import re
import re._constants as kinds
import re._parser as parser
from collections.abc import Mapping
from typing import Any

from geonb.errors import InputError

_LONGEST = 2000  # characters; the full path of a module in a config is below 200
_MOST_REPEATS = 3  # each unbounded repeat after another multiplies the time by the length of the name
_REPEATS = (kinds.MAX_REPEAT, kinds.MIN_REPEAT, kinds.POSSESSIVE_REPEAT)


def why_unsafe(pattern: str) -> str | None:
    """Why `pattern` is not matched: too long, no regular expression, or one that can blow up; None for a safe one.

    >>> why_unsafe(r"^model\\.layers\\.\\d+\\.self_attn\\.(q|v)_proj$") is None
    True
    >>> why_unsafe("(a+)+$")
    'it repeats a repeat'
    """
    if len(pattern) > _LONGEST:
        return f"it is {len(pattern):,} characters long"
    try:
        tree = parser.parse(pattern)
    except (re.error, OverflowError, RecursionError):
        return "it is no regular expression"
    repeats = _nested(tree, inside=False)
    if repeats is None:
        return "it repeats a repeat"
    return f"it has {repeats} repeats without a bound" if repeats > _MOST_REPEATS else None


def _nested(tree: Any, *, inside: bool) -> int | None:
    """How many unbounded repeats there are; None where one stands inside another, or repeats alternatives."""
    total = 0
    for kind, argument in tree:
        own = 0
        if kind in _REPEATS:
            _, most, body = argument
            loops = most > 1
            if loops and inside:
                return None
            found = _nested(body, inside=inside or loops)
            own = 1 if most is kinds.MAXREPEAT or most > 100 else 0
        elif kind is kinds.BRANCH:
            # alternatives that begin alike are as slow under a repeat as a repeat itself
            if inside:
                return None
            found = _sum(_nested(branch, inside=inside) for branch in argument[1])
        elif kind is kinds.SUBPATTERN:
            found = _nested(argument[-1], inside=inside)
        elif kind in (kinds.ASSERT, kinds.ASSERT_NOT):
            found = _nested(argument[1], inside=inside)
        elif kind is kinds.ATOMIC_GROUP:
            found = _nested(argument, inside=inside)
        elif kind in (kinds.GROUPREF, kinds.GROUPREF_EXISTS):
            return None
        else:
            found = 0
        if found is None:
            return None
        total += own + found
    return total


def _sum(counts: Any) -> int | None:
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


def refuse_unsafe_patterns(config: Mapping[str, Any], source: Any) -> None:
    """Raise `InputError` for the first expression of an adapter's config that PEFT could be stuck on."""
    given: list[tuple[str, Any]] = []
    for field in ("rank_pattern", "alpha_pattern"):
        found = config.get(field)
        given += [(field, key) for key in found] if isinstance(found, Mapping) else []
    for field in ("target_modules", "exclude_modules", "layers_pattern", "target_parameters"):
        found = config.get(field)
        given += [(field, found)] if isinstance(found, str) else []
    for field, pattern in given:
        reason = why_unsafe(str(pattern))
        if reason is not None:
            raise InputError(
                f"{source} holds the pattern {str(pattern)[:60]!r} in {field}, which is not matched ({reason}): write plain "
                "module names there."
            )
