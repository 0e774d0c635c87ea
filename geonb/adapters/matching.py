"""At most how many steps Python's backtracking matcher takes for an expression, from the expression alone.

Every part of an expression gets a bound on its ways (how often what follows is tried) and on its steps, both as functions
of the number l of characters left: sums of c_k C(l + k, k). One character has one way. Alternatives add, where they can
begin with the same character. A free repeat, such as ".*", can end at every place that is left, so it sums what follows
over those places,

    sum of C(i + k, k) for i from 0 to l = C(l + k + 1, k + 1),

which is a shift of k by one; and where a fixed word must follow that overlaps itself by shifts of d at the least, only
every d-th of these places counts: f(l) + (1/d) sum of f(i). What repeats something that has several ways is not bounded.
"""

from __future__ import annotations

import itertools
import math
import re
from typing import Any, NamedTuple

kinds: Any = None
parser: Any = None
try:  # how Python reads an expression is no public interface, and it is the only exact reading
    import re._constants as kinds
    import re._parser as parser
except ImportError:  # pragma: no cover
    pass

_MOST_ORDERS = 7  # repeats one after another; seven are beyond any bound that is useful
_LOOK_AHEAD = 6  # characters of the words that must follow a repeat
_MOST_WORDS = 64
_COUNTED = 16  # up to so many repetitions are counted one by one
_ALL = (1 << 129) - 1  # a set of characters: one bit for each of ASCII, and the last for all others
_OTHER = 1 << 128

Sum = tuple[float, ...]  # c_k by k, for the sum of c_k C(l + k, k)
Words = frozenset[tuple[int, ...]]  # what the next characters can be; a short word ends in what is not known
_ONE, _UNKNOWN = (1.0,), frozenset({()})


class Unbounded(Exception):
    """Nothing bounds the steps of this expression; says why."""


class Part(NamedTuple):
    """What is known of a part of an expression, with what follows it."""

    ways: Sum
    steps: Sum
    words: Words
    empty: bool  # whether the part itself can match nothing


def bound(expression: str) -> Sum:
    """At most how many steps `expression` takes from the start of a name, as a sum that `value` takes at its length.

    Raises `Unbounded` where nothing bounds them, and what `re` raises for what is no expression.

    >>> [value(bound(one), 200) for one in ("abc", ".*b", ".*.*b")]
    [3.0, 805.0, 82612.0]
    """
    if parser is None:
        raise Unbounded("it is more than a plain name, and this Python does not show how it would be read")
    tree = parser.parse(expression)
    if tree.state.flags & (re.IGNORECASE | re.LOCALE | re.ASCII):
        raise Unbounded("it sets a flag")
    return _sequence(tree, _UNKNOWN).steps


def value(total: Sum, length: int) -> float:
    """The sum of c_k C(length + k, k)."""
    return sum(factor * math.comb(length + k, k) for k, factor in enumerate(total))


def _times(left: Sum, right: Sum) -> Sum:
    found = [0.0] * (len(left) + len(right) - 1)
    for (i, a), (j, b) in itertools.product(enumerate(left), enumerate(right)):
        found[i + j] += a * b
    if len(found) > _MOST_ORDERS or max(found) > 1e200:
        raise Unbounded("it can match in too many ways")
    return tuple(found)


def _plus(*sums: Sum) -> Sum:
    return tuple(sum(column) for column in itertools.zip_longest(*sums, fillvalue=0.0))


def _most(*sums: Sum) -> Sum:
    return tuple(max(column) for column in itertools.zip_longest(*sums, fillvalue=0.0))


def _sequence(tree: Any, after: Words) -> Part:
    """One part after another, read from the end, because a repeat depends on what follows it."""
    whole = Part(_ONE, (0.0,), after, True)
    for kind, argument in reversed(list(tree)):
        one = _part(kind, argument, whole.words)
        whole = Part(
            _times(one.ways, whole.ways),
            _plus(one.steps, _times(one.ways, whole.steps)),
            one.words,
            one.empty and whole.empty,
        )
    return whole


def _part(kind: Any, argument: Any, after: Words) -> Part:
    characters = _characters(kind, argument)
    if characters is not None:
        return Part(_ONE, _ONE, _limited({(characters, *word[: _LOOK_AHEAD - 1]) for word in after}), False)
    if kind is kinds.AT:
        return Part(_ONE, _ONE, after, True)
    if kind is kinds.SUBPATTERN:
        if argument[1] or argument[2]:
            raise Unbounded("it sets a flag")
        return _sequence(argument[3], after)
    if kind is kinds.ATOMIC_GROUP:
        return _sequence(argument, after)
    if kind in (kinds.ASSERT, kinds.ASSERT_NOT):
        # it is tried at every place that a repeat before it can end at, so no word behind it thins those places out
        return Part(_ONE, _plus(_ONE, _sequence(argument[1], _UNKNOWN).steps), _UNKNOWN, True)
    if kind is kinds.BRANCH:
        return _branch([_sequence(branch, after) for branch in argument[1]])
    if kind in (kinds.MAX_REPEAT, kinds.MIN_REPEAT, kinds.POSSESSIVE_REPEAT):
        least, most, body = argument
        return _repeat(int(least), int(most), body, after)
    raise Unbounded("it refers back to a group")


def _branch(branches: list[Part]) -> Part:
    """Alternatives: all are looked at, and only some can match at the same place."""
    starts = [_UNKNOWN if one.empty else one.words for one in branches]
    alike = [[branches[index] for index in group] for group in _together(starts, 1)]
    whole = [[branches[index] for index in group] for group in _together(starts, _LOOK_AHEAD)]
    return Part(
        _most(*(_plus(*(one.ways for one in group)) for group in whole)),
        _plus((float(len(branches)),), _most(*(_plus(*(one.steps for one in group)) for group in alike))),
        _limited(frozenset().union(*(one.words for one in branches))),
        any(one.empty for one in branches),
    )


def _together(starts: list[Words], depth: int) -> set[frozenset[int]]:
    """Which of the alternatives that begin with `starts` can go through their first `depth` characters at one place."""
    groups = {frozenset((index, word) for index, words in enumerate(starts) for word in words)}
    for at in range(depth):
        split = set()
        for group in groups:
            masks = {word[at] for _, word in group if len(word) > at}
            for bit in _atoms(masks):
                split.add(frozenset((i, word) for i, word in group if len(word) <= at or word[at] & bit))
        if len(split) > _MOST_WORDS:
            break
        groups = split
    return {frozenset(index for index, _ in group) for group in groups}


def _atoms(masks: set[int]) -> list[int]:
    """One character, as its bit, of every set into which `masks` divide the characters."""
    found = {tuple(mask & 1 << bit > 0 for mask in masks): 1 << bit for bit in range(129)}
    return list(found.values())


def _repeat(least: int, most: int, body: Any, after: Words) -> Part:
    if most <= 1:
        once = _sequence(body, after)
        if least == 1:
            return once
        return Part(_plus(_ONE, once.ways), _plus(_ONE, once.steps), _limited(once.words | after), True)
    letters = _letters(body)
    if not letters:
        raise Unbounded("it repeats what can match in several ways")
    words = _limited({(*letters[:_LOOK_AHEAD],)}) if least else _UNKNOWN
    if most <= _COUNTED:
        ways = float(most - least + 1)
        return Part((ways,), (float(most * len(letters)) + ways,), words, least == 0)
    if len(letters) > 1:
        return Part((1.0, 1 / len(letters)), (0.0, 2.0), words, least == 0)
    # at each place what must follow is tried, and most often fails within its first characters
    tried = len(after) + max(sum(len(word) for word in after if word and word[0] >> bit & 1) for bit in range(129))
    if all(word and not word[0] & letters[0] for word in after):
        return Part(_ONE, (0.0, 1.0 + tried), words, least == 0)
    return Part((1.0, 1 / _shift(after)), (0.0, 1.0 + tried), words, least == 0)


def _letters(body: Any) -> list[int] | None:
    """The sets of characters that a repeated body consists of; None where it can match in several ways."""
    found: list[int] = []
    for kind, argument in body:
        characters = _characters(kind, argument)
        if characters is not None:
            found.append(characters)
        elif kind is kinds.SUBPATTERN and not argument[1] and not argument[2]:
            inside = _letters(argument[3])
            if inside is None:
                return None
            found += inside
        else:
            return None
    return found


def _shift(words: Words) -> int:
    """The smallest distance of two places at which one of `words` can begin."""
    reach = min(map(len, words))
    for shift in range(1, reach):
        for left, right in itertools.product(words, repeat=2):
            if all(a & b for a, b in zip(left[shift:], right, strict=False)):
                return shift
    return max(1, reach)


def _limited(words: Any) -> Words:
    return frozenset(words) if len(words) <= _MOST_WORDS else _UNKNOWN


def _characters(kind: Any, argument: Any) -> int | None:
    """The set of characters of a part that matches exactly one; None for any other part."""
    if kind is kinds.ANY:
        return _ALL
    if kind is kinds.LITERAL:
        return 1 << min(argument, 128)
    if kind is kinds.NOT_LITERAL:
        return _ALL & ~(1 << argument) if argument < 128 else _ALL
    if kind is not kinds.IN:
        return None
    found, turned = 0, False
    for inner, value in argument:
        if inner is kinds.NEGATE:
            turned = True
        elif inner is kinds.RANGE:
            low, high = value
            found |= ((1 << min(high, 127) + 1) - (1 << low) if low < 128 else 0) | (_OTHER if high > 127 else 0)
        elif inner is kinds.CATEGORY:
            found |= _category(value)
        else:
            found |= _characters(inner, value) or 0
    return (_ALL & ~found) | _OTHER if turned else found


def _category(value: Any) -> int:
    """The characters of \\d, \\s, \\w or of what is none of them; beyond ASCII there may be some of every kind."""
    letter = {"DIGIT": "d", "SPACE": "s", "WORD": "w"}[str(value).rpartition("_")[2]]
    expression = re.compile("\\" + (letter.upper() if "_NOT_" in str(value) else letter))
    return _OTHER | sum(1 << code for code in range(128) if expression.match(chr(code)))
