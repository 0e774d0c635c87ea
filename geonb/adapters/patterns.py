"""The regular expressions of a stranger's adapter config: which of them may be matched without waiting for ever.

PEFT matches the keys of rank_pattern and alpha_pattern, the entries of modules_to_save and layers_pattern, and
target_modules and exclude_modules where each is one string, against the name of every module of the base. Python's
matcher tries one way after another, and (a+)+ has exponentially many. Here a bound on its steps is derived from the
expression alone, as `geonb.adapters.matching` says, and an expression beyond the bound is never matched.
"""

from __future__ import annotations

import functools
import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

from geonb.adapters import matching
from geonb.errors import InputError

# each expression as PEFT puts it together: the prefix that it tries first costs steps as well
_KEY = r"(.*\.)?({})$"
FORMS = {
    "rank_pattern": _KEY,
    "alpha_pattern": _KEY,
    "target_modules": "{}",
    "exclude_modules": "{}",
    "modules_to_save": r"(^|.*\.){}($|\..*)",
    "layers_pattern": r"(?:^|.*?\.){}\.(?P<idx>\d+)\.",
}
_LISTS = ("modules_to_save", "layers_pattern")  # of expressions; in the other fields a list holds plain names
_LONGEST = 2000  # characters; the full path of a module in a config is below 200
_NAME = 200  # characters of a module's name; real ones are shorter by far, and their bounds much smaller
_MOST_STEPS = 2e7  # for one name of this length; measured are 1 to 8 ns a step
_MOST_TOGETHER = 4e8  # for one such name, all expressions of a config
_COMPILING = 40_000  # steps; a config of ten thousand names is slow before one of them is matched
_ANALYSING = 400_000  # steps; what is more than a name is taken apart here first
_PLAIN = re.compile(r"\^?(?:\w|\\?[.-])*\$?")


def why_unsafe(pattern: str, field: str = "rank_pattern") -> str | None:
    """Why `pattern` in `field` is not matched: too long, no regular expression, or beyond the bound; None for a safe one.

    A pattern that passes answers for a name of 200 characters within 0.2 s.

    >>> why_unsafe(r"^model\\.layers\\.\\d+\\.self_attn\\.(q|v)_proj$") is None
    True
    >>> why_unsafe("(a+)+$")
    'it repeats what can match in several ways'
    """
    return _judged(pattern, FORMS[field])[0]


def steps(pattern: str, field: str, *, names: int, length: int) -> float:
    """At most how many steps PEFT's matching of `pattern` takes on `names` names of `length` characters; inf if unsafe."""
    reason, bound, cost = _judged(pattern, FORMS[field])
    return math.inf if reason is not None else names * matching.value(bound, length) + cost


def compiled(pattern: str, field: str) -> re.Pattern[str]:
    """A safe `pattern` as PEFT compiles it for `field`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.compile(FORMS[field].format(pattern))


@functools.lru_cache(maxsize=4096)
def _judged(pattern: str, form: str) -> tuple[str | None, matching.Sum, float]:
    """Why a pattern is not matched, its bound, and what it costs before it is matched."""
    if len(pattern) > _LONGEST:
        return f"it is {len(pattern):,} characters long", (), 0.0
    if _PLAIN.fullmatch(pattern):
        # one way from every place that the prefix can end at, and of what is put behind it one walk to the end
        return None, (0.0, len(pattern) + 10.0, 0.0 if form == _KEY else 2.0), _COMPILING
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "possible nested set" and the like are for who wrote it
            re.compile(pattern)
            bound = matching.bound(form.format(pattern))
    except (re.error, OverflowError, RecursionError):
        return "it is no regular expression", (), 0.0
    except matching.Unbounded as error:
        return str(error), (), 0.0
    most = matching.value(bound, _NAME)
    return (f"it can take {most:.1g} steps" if most > _MOST_STEPS else None), bound, _ANALYSING


def refuse_unsafe_patterns(config: Mapping[str, Any], source: Any) -> None:
    """Raise `InputError` for the first expression of an adapter's config that PEFT could be stuck on."""
    given: list[tuple[str, str, str]] = []
    for field, form in FORMS.items():
        found = config.get(field)
        if isinstance(found, str):
            given.append((field, form, found))
        elif isinstance(found, Mapping) or (field in _LISTS and isinstance(found, list)):
            given += [(field, form, one) for one in found if isinstance(one, str)]
        elif field == "target_modules" and isinstance(found, list) and config.get("ensure_weight_tying"):
            given += [(field, FORMS["modules_to_save"], one) for one in found if isinstance(one, str)]
    together = 0.0
    for field, form, pattern in given:
        reason, bound, cost = _judged(pattern, form)
        together += matching.value(bound, _NAME) + cost
        if reason is None and together > _MOST_TOGETHER:
            reason = "together they can take too long"
        if reason is not None:
            raise InputError(
                f"{source} holds the pattern {pattern[:60]!r} in {field}, which is not matched ({reason}): write plain "
                "module names there."
            )
