"""Problems are read with their line numbers, no question stands on two sides, and rounds draw fairly."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as some

from geonb.assets import resolve_data
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.workbench.star.problems import Problem, drawn, gather_problems, prompt_ids, read_problems
from tests.workbench.star import colours


def file_of(folder, *lines):
    path = folder / "problems.jsonl"
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines))
    return path


def test_both_forms_of_a_record_are_read_and_a_worked_solution_is_set_apart(tmp_path):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]
    path = file_of(
        tmp_path,
        {"prompt": "1 + 1?", "answer": 2},
        {
            "messages": [*turns, {"role": "assistant", "content": "Four. Answer: 4"}],
            "answer": "2 + 2 = 4\n#### 4",
            "group": "sum",
        },
    )
    first, second = read_problems(path)
    assert (first.answer, first.turns, first.worked, first.id) == (
        "2",
        ({"role": "user", "content": "1 + 1?"},),
        None,
        "line-1",
    )
    assert (second.answer, second.turns, second.worked, second.group) == ("4", tuple(turns), "Four. Answer: 4", "sum")
    assert second.hinted()[-1]["content"] == "2 + 2? (The answer is 4.)" and second.hinted()[0] == turns[0]


def test_the_shipped_problems_are_all_read_and_their_worked_solutions_pass_their_own_check():
    from geonb.workbench.star.checking import same_answer, solution_of

    for source in ("embedded:chat", "embedded:chat/eval"):
        problems = read_problems(source)
        assert len(problems) == len(resolve_data(source).read_text().splitlines())
        for one in problems:
            assert same_answer(solution_of(one.worked, ended=True).answer, one.answer)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 1 is not JSON"),
        ({"answer": "4"}, 'line 1 needs exactly one of the fields "prompt" and "messages"'),
        ({"prompt": "a", "messages": [], "answer": "4"}, "exactly one of the fields"),
        ({"prompt": "2 + 2?"}, 'line 1 has no "answer" that is a text or a number'),
        ({"prompt": "2 + 2?", "answer": ""}, 'has no "answer"'),
        ({"prompt": "2 + 2?", "answer": True}, 'has no "answer"'),
        ({"prompt": 5, "answer": "4"}, "has a question that is not a text"),
        ({"prompt": " ", "answer": "4"}, "has no question of the user"),
        ({"messages": [{"role": "assistant", "content": "x"}], "answer": "4"}, "has no question of the user"),
        ({"messages": "hello", "answer": "4"}, "has a question that is not"),
        ({"prompt": "a", "answer": "4", "group": 3}, 'has a "group" that is a int'),
    ],
)
def test_a_record_that_is_none_is_refused_with_its_line(line, told, tmp_path):
    with pytest.raises(InputError, match=told):
        read_problems(file_of(tmp_path, line))


def test_an_empty_or_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="is empty; it needs problems"):
        read_problems(file_of(tmp_path))
    with pytest.raises(InputError, match="is not a file"):
        read_problems(tmp_path / "nothing.jsonl")


@pytest.mark.parametrize("seed", [0, 7])
def test_a_split_covers_the_file_once_and_follows_its_seed(seed, tmp_path):
    path = colours.write(tmp_path / "all.jsonl", colours.problems(150))
    made = gather_problems(path, None, few_shot=0, seed=seed)
    digests = [{one.digest for one in side} for side in (made.pool, made.held_out)]
    assert [len(one) for one in digests] == [120, 30] and not digests[0] & digests[1]
    assert made == gather_problems(path, None, few_shot=0, seed=seed)
    assert made.held_out != gather_problems(path, None, few_shot=0, seed=seed + 1).held_out


def test_held_out_and_repeated_questions_leave_the_pool_and_a_note(tmp_path):
    pool = colours.write(tmp_path / "pool.jsonl", [*colours.problems(30), *colours.problems(4)])
    held = colours.write(tmp_path / "held.jsonl", colours.problems(20, first=25))
    made = gather_problems(pool, held, few_shot=0, seed=0)
    assert len(made.pool) == 25 and len(made.held_out) == 20
    assert made.notes == (
        "4 repeated questions were left out",
        "5 questions are held out too and were left out of the pool",
    )


def test_the_shipped_problems_bring_their_own_held_out_ones():
    made = gather_problems("embedded:chat", None, few_shot=3, seed=1)
    assert (len(made.pool), len(made.held_out), len(made.shots)) == (1997, 256, 3)
    assert not {one.digest for one in made.shots} & {one.digest for one in made.pool}
    assert all(one.worked for one in made.shots)


@pytest.mark.parametrize(
    ("given", "held", "told"),
    [
        (colours.problems(99), None, "holds 99 different problems; to hold out a fifth of them takes 100"),
        (colours.problems(30), colours.problems(1, first=50), "1 problems are held out"),
        (colours.problems(5), colours.problems(5), "leaves no problem to learn from"),
    ],
)
def test_too_few_problems_are_refused(given, held, told, tmp_path):
    pool = colours.write(tmp_path / "pool.jsonl", given)
    other = colours.write(tmp_path / "held.jsonl", held) if held is not None else None
    with pytest.raises(InputError, match=told):
        gather_problems(pool, other, few_shot=0, seed=0)


def test_the_problems_own_file_is_no_held_out_file(tmp_path):
    pool = colours.write(tmp_path / "pool.jsonl", colours.problems(30))
    with pytest.raises(InputError, match="is the file of the problems itself"):
        gather_problems(pool, pool, few_shot=0, seed=0)


@given(some.integers(1, 40), some.integers(1, 50), some.integers(0, 5))
def test_rounds_ask_every_problem_equally_often(size, count, seed):
    pool, asked = range(size), Counter()
    rounds = [drawn(pool, count, round_number=number, seed=seed) for number in range(1, 9)]
    for one in rounds:
        assert len(one) == len(set(one)) == min(count, size)
        asked.update(one)
    assert max(asked.values()) - min(asked[place] for place in pool) <= 1


def test_worked_examples_stand_before_the_question_as_the_template_writes_them():
    tokenizer = Checkpoint.open("embedded").load_tokenizer()
    shot = Problem("s", ({"role": "user", "content": "1 + 1?"},), "2", None, "Answer: 2")
    asked = Problem("p", ({"role": "user", "content": "2 + 2?"},), "4", None, "Answer: 4")
    text = tokenizer.decode(prompt_ids(asked, tokenizer, shots=[shot]))
    assert text == "<|user|>1 + 1?<|end|><|assistant|>Answer: 2<|end|><|user|>2 + 2?<|end|><|assistant|>"
    assert "The answer is 4" in tokenizer.decode(prompt_ids(asked, tokenizer, hint=True))
