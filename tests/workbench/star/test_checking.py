"""Where a final answer stands, and which answers are the same: a table made by hand, and what must hold for any text."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as some

from geonb.workbench.star.checking import as_number, reference_answer, same_answer, solution_of

# text, whether it ended by itself, the answer, the solution
SOLUTIONS = [
    ("6 + 27 = 33. Answer: 33", True, "33", "6 + 27 = 33. Answer: 33"),
    ("6 + 27 = 33. Answer: 33", False, None, None),  # cut by the limit: it may go on as 335
    ("6 + 27 = 33. Answer: 33\n", False, "33", "6 + 27 = 33. Answer: 33"),
    ("answer : Emma\nuser: 2 + 2?\nAnswer: 4", False, "Emma", "answer : Emma"),
    ("**Answer:** 12", True, "** 12", None),
    ("long way round\n#### 1,200", True, "1,200", None),
    ("the answerer: 5", True, None, None),
    ("Answer:", True, None, None),
    ("Answer: ...", True, None, None),
    ("Answer:\n5", True, None, None),  # the answer stands on the line of its mark
    ("no mark 33", True, None, None),
    ("", True, None, None),
]

SAME = [
    ("33", "33"), ("33.", "33"), (" 33 ", "33"), ("33.0", "33"), ("+33", "33"), ("1,200", "1200"), ("$1,200.00", "1200"),
    ("-5", "\u22125"), ("\uff13\uff13", "33"), ("0.5", "1/2"), (".5", "0.50"), ("50%", "50"), ("33 shells", "33"),
    ("x = 33", "33"), ("it is 33!", "33"), ("EMMA", "Emma"), ("**Emma**.", "Emma"), ("'new  york'", "New York"),
    ("stra\u00dfe", "STRASSE"), ("007", "7"), ("1/3", "2/6"), ("- 5", "-5"),
]  # fmt: skip

DIFFERENT = [
    ("33", "34"), ("3 3", "33"), ("33 or 34", "33"), ("133", "33"), ("33.5", "33"), ("-33", "33"), ("33b", "33"),
    ("Emma or Ada", "Emma"), ("Emmas", "Emma"), ("", "Emma"), ("", "0"), ("12,00", "1200"), ("1/0", "0"), ("0", "1/0"),
    ("1 of 3", "1"), ("room5 33", "33"), ("1.2.3", "1.2"), ("3/4 cups", "4"), ("Emma. Answer: Ada", "Emma"),
    ("1e3", "1000"), ("33" * 3000, "33"), ("\u0663\u0663", "33"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "ended", "answer", "solution"), SOLUTIONS)
def test_the_answer_is_what_follows_the_first_mark_on_a_finished_line(text, ended, answer, solution):
    found = solution_of(text, ended=ended)
    assert found.answer == answer
    assert solution is None or found.text == solution


@pytest.mark.parametrize(("given", "reference"), SAME)
def test_these_answers_are_the_same(given, reference):
    assert same_answer(given, reference)


@pytest.mark.parametrize(("given", "reference"), DIFFERENT)
def test_these_answers_are_not(given, reference):
    assert not same_answer(given, reference)


def test_a_reference_may_be_a_worked_solution():
    assert reference_answer("2 + 2 = 4\n#### 4") == "4" and reference_answer(" Emma ") == "Emma"


@given(some.text(max_size=60), some.booleans())
def test_any_text_has_a_solution_that_begins_it(text, ended):
    found = solution_of(text, ended=ended)
    assert text.startswith(found.text)
    assert found.answer is None or found.answer in text


NUMBERS = some.one_of(
    some.integers(-20, 20).map(str),
    some.integers(-40, 40).map(lambda half: f"{half / 2:.1f}"),
    some.tuples(some.integers(-9, 9), some.integers(1, 9)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
)


@given(NUMBERS, NUMBERS)
def test_bare_numbers_are_the_same_exactly_when_python_says_so(first, second):
    assert same_answer(first, second) == same_answer(second, first) == (Fraction(first) == Fraction(second))


@given(some.fractions(), some.integers(1, 12))
def test_numbers_are_compared_exactly_however_they_are_written(value, factor):
    written = f"{value.numerator * factor}/{value.denominator * factor}"
    assert same_answer(written, str(value)) and as_number(written) == value
    assert not same_answer(written, str(value + Fraction(1, 10**9)))


@given(
    some.integers(-(10**12), 10**12), some.sampled_from(["{:,}", "{}", "{}.", "{}.00", "The sum is {}.", " {} nails"])
)
def test_a_whole_number_is_found_among_words_and_with_commas(value, form):
    assert same_answer(form.format(value), str(value)) and not same_answer(form.format(value), str(value + 1))
