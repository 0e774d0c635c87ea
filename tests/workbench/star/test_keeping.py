"""What is kept is right, once, and without its hint; the control is wrong, answered, and of the same size."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as some

from geonb.errors import InputError
from geonb.workbench.star.keeping import divided, kept_rows, read_rows, together, write_rows, wrong_rows
from geonb.workbench.star.problems import Problem

PROBLEMS = [Problem(f"p{n}", ({"role": "user", "content": f"{n}?"},), str(n), f"g{n % 2}", None) for n in range(12)]

rows = some.lists(
    some.builds(
        lambda problem, text, right, answered: {
            "problem": problem,
            "text": f"{text} Answer: {problem if right else 99}",
            "answer": (str(problem) if right else "99") if answered or right else None,
            "right": right,
        },
        some.integers(0, 11),
        some.sampled_from(["a", "a ", "b", "c"]),
        some.booleans(),
        some.booleans(),
    ),
    max_size=60,
)


@given(rows)
def test_every_different_right_solution_is_kept_once(drafts):
    kept = kept_rows(drafts, PROBLEMS, round_number=2, source="sampled")
    expected = {(row["problem"], " ".join(row["text"].split())) for row in drafts if row["right"]}
    assert sorted((row["problem"], " ".join(row["messages"][-1]["content"].split())) for row in kept) == sorted(
        expected
    )
    assert all(row["answer"] == str(row["problem"]) and row["round"] == 2 for row in kept)


@given(rows)
def test_a_limit_per_problem_keeps_the_first_ones(drafts):
    kept = kept_rows(drafts, PROBLEMS, round_number=1, source="rationalised", per_problem=1)
    assert Counter(row["problem"] for row in kept) == dict.fromkeys(
        {row["problem"] for row in drafts if row["right"]}, 1
    )


@given(rows, rows)
def test_rounds_are_put_together_without_repeating_a_solution(first, second):
    one, two = (kept_rows(part, PROBLEMS, round_number=n, source="sampled") for n, part in ((1, first), (2, second)))
    both = together(one, two)
    assert together(both, one, two) == both and both[: len(one)] == one
    assert len(both) == len({(row["problem"], " ".join(row["messages"][-1]["content"].split())) for row in both})


@given(rows, some.integers(0, 99))
def test_a_problem_is_either_trained_on_or_chooses_the_adapter(drafts, seed):
    kept = kept_rows(drafts, PROBLEMS, round_number=1, source="sampled")
    train, validation = divided(kept, seed=[seed])
    sides = [{row["problem"] for row in part} for part in (train, validation)]
    assert not sides[0] & sides[1] and len(train) + len(validation) == len(kept)
    assert len(sides[1]) == len(sides[0] | sides[1]) // 5


@given(rows, some.integers(0, 99))
def test_the_control_is_wrong_answered_different_and_as_large(drafts, seed):
    kept = kept_rows(drafts, PROBLEMS, round_number=1, source="sampled")
    wrong = {
        (row["problem"], " ".join(row["text"].split())): row
        for row in drafts
        if not row["right"] and row["answer"] is not None
    }
    control = wrong_rows(drafts, PROBLEMS, kept, round_number=1, seed=[seed])
    if len(wrong) < len(kept):
        assert control is None
        return
    told = [(row["problem"], " ".join(row["messages"][-1]["content"].split())) for row in control]
    assert len(told) == len(kept) == len(set(told)) and set(told) <= set(wrong)
    # group by group as many as the kept ones, as far as the wrong ones reach
    wanted, there = Counter(row["group"] for row in kept), Counter(f"g{problem % 2}" for problem, _ in wrong)
    has = Counter(row["group"] for row in control)
    assert all(has[group] >= min(wanted[group], there[group]) for group in wanted)


def test_rows_come_back_as_they_were_and_foreign_files_are_refused(tmp_path):
    given_rows = [{"text": "a\u2028b", "right": True}, {"text": "\u00e9"}]
    assert read_rows(write_rows(tmp_path / "rows.jsonl", given_rows)) == given_rows
    (tmp_path / "odd.jsonl").write_text("not json\n")
    with pytest.raises(InputError, match="is not the JSONL that this run wrote"):
        read_rows(tmp_path / "odd.jsonl")
