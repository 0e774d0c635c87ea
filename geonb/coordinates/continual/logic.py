"""36 operations of logic: words of bits, three-valued logic (T, U, F), sets as words of bits, automata and circuits."""

# one operation a row is what makes the table readable
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby, pairwise

from geonb.coordinates.continual.operation import Word, domain

FOUR, FIVE, EIGHT, NINE, TEN = (Word("01", length) for length in (4, 5, 8, 9, 10))
THREE_VALUED, PAIR_VALUED = Word("TUF", 6), Word("TUF", 3)
_DEGREE = {"T": 2, "U": 1, "F": 0}
_LETTER = "FUT"


def _bitwise(rule: Callable[..., int]) -> Callable[..., str]:
    """A rule of bits, place by place."""
    return lambda *words: "".join(str(rule(*map(int, bits)) & 1) for bits in zip(*words, strict=True))


def _graded(rule: Callable[..., int]) -> Callable[..., str]:
    """A rule of degrees 0 (F), 1 (U), 2 (T), place by place."""
    return lambda *words: "".join(
        _LETTER[rule(*(_DEGREE[letter] for letter in letters))] for letters in zip(*words, strict=True)
    )


def _gray(word: str) -> int:
    """The number that a Gray code stands for."""
    value, bit = 0, 0
    for letter in word:
        bit ^= int(letter)
        value = 2 * value + bit
    return value


def _longest(word: str, letter: str) -> int:
    return max((len(list(run)) for kind, run in groupby(word) if kind == letter), default=0)


def _unmatched(word: str) -> int:
    """Brackets without a partner."""
    opened = lonely = 0
    for letter in word:
        if letter == "(":
            opened += 1
        elif opened:
            opened -= 1
        else:
            lonely += 1
    return opened + lonely


def _automaton(rule: int) -> Callable[[str], int]:
    """Ones after one step of an elementary cellular automaton on a ring (Wolfram's numbering)."""
    return lambda word: sum(
        rule >> int(word[place - 1] + word[place] + word[(place + 1) % len(word)], 2) & 1 for place in range(len(word))
    )


# fmt: off
OPERATIONS = domain("logic", [
    ("and", "conjunction", "true where both are", _bitwise(lambda a, b: a & b), FIVE, FIVE),
    ("or", "disjunction", "true where any is", _bitwise(lambda a, b: a | b), FIVE, FIVE),
    ("exclusive or", "antivalence", "true where they differ", _bitwise(lambda a, b: a ^ b), FIVE, FIVE),
    ("nand", "sheffer stroke", "false only where both are true", _bitwise(lambda a, b: 1 - (a & b)), FIVE, FIVE),
    ("nor", "peirce arrow", "true only where neither is", _bitwise(lambda a, b: 1 - (a | b)), FIVE, FIVE),
    ("equivalence", "biconditional", "true where they agree", _bitwise(lambda a, b: 1 - (a ^ b)), FIVE, FIVE),
    ("implication", "conditional", "false only where truth leads to falsehood", _bitwise(lambda a, b: (1 - a) | b), FIVE, FIVE),
    ("set difference", "first without the second", "true where only the first is", _bitwise(lambda a, b: a & (1 - b)), FIVE, FIVE),
    ("kleene negation", "three valued not", "truth reversed, doubt kept", _graded(lambda a: 2 - a), THREE_VALUED),
    ("kleene conjunction", "three valued and", "less true of both", _graded(min), PAIR_VALUED, PAIR_VALUED),
    ("kleene disjunction", "three valued or", "truer of both", _graded(max), PAIR_VALUED, PAIR_VALUED),
    ("kleene implication", "three valued if", "not the first or the second", _graded(lambda a, b: max(2 - a, b)), PAIR_VALUED, PAIR_VALUED),
    ("lukasiewicz implication", "polish three valued if", "doubt implies doubt", _graded(lambda a, b: min(2, 2 - a + b)), PAIR_VALUED, PAIR_VALUED),
    ("parity", "even or odd number of ones", "oddness of the truths", lambda w: "odd" if w.count("1") % 2 else "even", TEN),
    ("majority", "vote of nine", "what most say", lambda w: int(w.count("1") > 4), NINE),
    ("number of truths", "count of ones", "how many hold", lambda w: w.count("1"), TEN),
    ("binary value", "number in base two", "decimal for the bits", lambda w: int(w, 2), NINE),
    ("gray value", "number of the reflected code", "decimal of a one-change code", _gray, NINE),
    ("first truth", "position of the first one", "where truth begins", lambda w: w.find("1") + 1, TEN),
    ("signed value", "two's complement number", "decimal with a sign bit", lambda w: int(w, 2) - 512 * int(w[0]), NINE),
    ("longest run of truths", "length of the longest block of ones", "most ones in a row", lambda w: _longest(w, "1"), TEN),
    ("changes", "neighbours that differ", "how often the bit flips", lambda w: sum(a != b for a, b in pairwise(w)), TEN),
    ("palindrome", "same backwards", "whether a mirror changes nothing", lambda w: w == w[::-1], NINE),
    ("exactly half", "four of eight", "whether truth and falsehood balance", lambda w: w.count("1") == 4, EIGHT),
    ("divisible by three", "multiple of three in base two", "whether three shares the bits evenly", lambda w: int(w, 2) % 3 == 0, NINE),
    ("unmatched brackets", "brackets without a partner", "parentheses left alone", _unmatched, Word("()", 10)),
    ("rule 110", "ones after automaton one hundred ten", "living cells of the universal rule", _automaton(110), TEN),
    ("rule 30", "ones after automaton thirty", "living cells of the chaotic rule", _automaton(30), TEN),
    ("subset", "whether the first lies in the second", "all members shared", lambda a, b: not int(a, 2) & ~int(b, 2), FIVE, FIVE),
    ("disjoint", "no common member", "whether the sets never meet", lambda a, b: not int(a, 2) & int(b, 2), FIVE, FIVE),
    ("hamming distance", "places that differ", "flips to turn one into the other", lambda a, b: (int(a, 2) ^ int(b, 2)).bit_count(), FIVE, FIVE),
    ("binary adder", "sum in base two", "carry chain of the words", lambda a, b: f"{int(a, 2) + int(b, 2):06b}", FIVE, FIVE),
    ("binary comparator", "whether the first is less", "smaller in base two", lambda a, b: int(a, 2) < int(b, 2), FIVE, FIVE),
    ("multiplexer", "data bit under an address", "line chosen by three selectors", lambda s, d: int(d[int(s, 2)]), Word("01", 3), EIGHT),
    ("if then else", "second or third by the first", "choice place by place", _bitwise(lambda a, b, c: b if a else c), FOUR, FOUR, FOUR),
    ("two of three", "voter of three words", "what at least two say", _bitwise(lambda a, b, c: int(a + b + c > 1)), FOUR, FOUR, FOUR),
])
# fmt: on
