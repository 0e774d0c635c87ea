"""Where a solution's final answer stands, and when two answers are the same.

The rule, whole: a solution runs up to the end of the line in which its first "Answer:" (or "####") stands, and its
answer is what follows that mark on that line. The line must be over, by a line's end or the model's own end of text: an
answer that the token limit cut is no answer. Answers that are numbers are compared as exact numbers, others as text.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

# the word of the worked examples, and the mark of GSM8K's reference solutions
_MARK = re.compile(r"\banswer\s*:|####", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:(?<=\d)\.\d*|\.\d+)?", re.ASCII)
# a number among words: nothing that would make it part of another one may touch it
_AMONG_WORDS = re.compile(r"(?<![\w.,/-])[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w/]|[.,]\d)", re.ASCII)
_AROUND = " \t\"'`*_()[]{}<>“”‘’"
_CURRENCY = "$€£"
# an answer is a word, a number or a phrase; what is longer is compared as text only
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Solution:
    """The part of a generated text that is the solution, and its final answer (None where there is none)."""

    text: str
    answer: str | None


def solution_of(text: str, *, ended: bool) -> Solution:
    """The solution in `text`; `ended` says whether the model ended the text by itself.

    >>> solution_of("6 + 27 = 33. Answer: 33", ended=True).answer
    '33'
    >>> solution_of("6 + 27 = 33. Answer: 33", ended=False).answer is None   # it might have become 335
    True
    >>> solution_of("Answer: 33\\nuser: and 2 + 2? Answer: 4", ended=False).text
    'Answer: 33'
    """
    mark = _MARK.search(text)
    if mark is None:
        return Solution(text.rstrip(), None)
    line = re.search(r"[\n\r]", text[mark.end() :])
    end = mark.end() + line.start() if line is not None else len(text)
    if line is None and not ended:
        return Solution(text, None)
    answer = text[mark.end() : end].strip()
    return Solution(text[:end].rstrip(), answer if _trimmed(answer) else None)


def reference_answer(text: str) -> str:
    """The answer of a record's `answer` field, which may be a whole worked solution with a mark of its own."""
    found = solution_of(text, ended=True).answer
    return found if found is not None else text.strip()


def same_answer(given: str, reference: str) -> bool:
    """Whether `given` is the answer `reference`, after normalisation; numbers as numbers.

    Both are brought to Unicode's NFKC form, case-folded, rid of quotes, brackets and Markdown around them and of
    closing punctuation, and runs of white space become one space. Where the reference is a number (thousands commas, a
    decimal point, a/b, a currency sign before or a percent sign behind are read), the given answer must be an equal
    number, or words around exactly one number, which is equal.

    >>> same_answer("$1,200.00", "1200"), same_answer("33 shells.", "33"), same_answer("33 or 34", "33")
    (True, True, False)
    """
    return reference_key(reference) in given_keys(given)


def reference_key(reference: str) -> Fraction | str | None:
    """What an answer must be to be `reference`: an exact number, a normalised text, or None where nothing is it."""
    number = as_number(reference)
    return number if number is not None else _trimmed(reference) or None


def given_keys(given: str) -> tuple[Fraction | str, ...]:
    """What a given answer may count as: its normalised text, and the number that it is or holds."""
    text = _trimmed(given)
    number = as_number(text)
    if number is None:
        among = _AMONG_WORDS.findall(text) if len(text) <= _LONGEST else []
        # "1 of 3" has a second number, "5b" a letter at the number: then it is not known which one is meant
        alone = len(among) == 1 and not re.search(r"\d", text.replace(among[0], "", 1))
        number = as_number(among[0]) if alone else None
    return (text,) if number is None else (text, number)


def as_number(text: str) -> Fraction | None:
    """The exact number that the whole of `text` writes, or None.

    >>> as_number("1,200.50"), as_number("3/4"), as_number("12a")
    (Fraction(2401, 2), Fraction(3, 4), None)
    """
    text = _trimmed(text)
    if not text or len(text) > _LONGEST:
        return None
    sign = "-" if text.startswith("-") else ""
    text = sign + text.removeprefix("-").strip().lstrip(_CURRENCY).removesuffix("%").strip()
    parts = text.split("/")
    if len(parts) > 2 or any(not _NUMBER.fullmatch(part.strip()) for part in parts):
        return None
    values = [part.strip().replace(",", "") for part in parts]
    if any(not re.search(r"\d", value) for value in values):
        return None
    numbers = [Fraction(value) for value in values]
    if len(numbers) == 1:
        return numbers[0]
    return numbers[0] / numbers[1] if numbers[1] else None


def _trimmed(text: str) -> str:
    folded = " ".join(unicodedata.normalize("NFKC", text).replace("\u2212", "-").casefold().split())
    before = None
    while folded != before:
        before = folded
        folded = folded.strip(_AROUND).rstrip(".,;:!?")
    return folded
