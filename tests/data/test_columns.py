"""Which columns are taken, in which order and why; what each row becomes, and why it becomes nothing."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.data.columns import Unusable, choose_columns, to_record
from geonb.errors import InputError

TALK = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHARED = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


def record(row, **named):
    return to_record(row, choose_columns([row], **named), Counter())[0]


def reason(row, sample, **named):
    with pytest.raises(Unusable) as told:
        to_record(row, choose_columns([sample], **named), Counter())
    return str(told.value)


@pytest.mark.parametrize(
    ("row", "kind", "columns"),
    [
        ({"text": "t", "messages": TALK, "prompt": "p", "answer": "a"}, "conversation", ("messages",)),
        ({"id": "1", "conversations": SHARED}, "conversation", ("conversations",)),
        ({"text": "t", "prompt": "p", "completion": "c"}, "pair", ("prompt", "completion")),
        ({"instruction": "i", "output": "o", "text": "t"}, "pair", ("instruction", "output")),
        ({"question": "q", "answer": "a"}, "pair", ("question", "answer")),
        ({" Prompt ": "p", "ANSWER": "a"}, "pair", (" Prompt ", "ANSWER")),
        ({"content": "c", "text": "t"}, "text", ("text",)),
        ({"content": "c", "question": "q"}, "text", ("content",)),
        ({"question": "q", "prompt": "p"}, "text", ("question",)),
        ({"id": 4, "body": "b"}, "text", ("body",)),
        ({"messages": "no list", "text": "t"}, "text", ("text",)),
        ({"prompt": "p", "answer": None, "text": "t"}, "text", ("text",)),
    ],
)
def test_a_conversation_comes_before_a_pair_and_a_pair_before_a_text(row, kind, columns):
    first = choose_columns([row])[0]
    assert (first.kind, first.columns) == (kind, columns)
    assert first.because
    assert set(first.others) == set(row) - set(columns) - set(first.extra.values())


def test_a_prompt_without_an_answer_is_read_as_text_and_said_so():
    assert "no answer beside it" in choose_columns([{"prompt": "p"}])[0].because


def test_named_columns_are_the_only_ones_read():
    row = {"text": "t", "messages": TALK, "a": "x", "b": "y"}
    assert record(row, text="a") == {"text": "x"}
    assert [message["content"] for message in record(row, prompt="b", answer="a")["messages"]] == ["y", "x"]
    assert reason({"text": "t"}, row, text="a") == "none of the chosen columns"


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"text": "absent"}, "data has no column 'absent'; there are 'one', 'two': name one of these"),
        ({"prompt": "one"}, "allowed are --text-column alone, or --prompt-column and --answer-column together"),
        ({"answer": "one"}, "--answer-column together"),
        ({"text": "one", "prompt": "one", "answer": "two"}, "name one of these two ways"),
        ({}, "data has no column that looks like text; there are 'one', 'two': name one with --text-column"),
    ],
)
def test_columns_that_cannot_be_chosen_are_one_sentence(named, message):
    with pytest.raises(InputError, match=message):
        choose_columns([{"one": "x", "two": "y"}], where="data", **named)


def test_roles_are_renamed_and_counted():
    roles = Counter()
    talk = [
        {"from": "system", "value": "s"},
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": "f"},
        {"from": "observation", "value": "o"},
        {"from": "gpt", "value": "a"},
    ]
    row = {"conversations": talk}
    found, _ = to_record(row, choose_columns([row]), roles)
    assert [message["role"] for message in found["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
    assert roles == {
        "human -> user": 1,
        "function_call -> assistant": 1,
        "observation -> tool": 1,
        "gpt -> assistant": 1,
    }


def test_an_instruction_takes_its_input_and_its_system_prompt_along():
    row = {"system": "s", "instruction": "do", "input": "this", "output": "done"}
    assert record(row)["messages"] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "do\n\nthis"},
        {"role": "assistant", "content": "done"},
    ]
    assert record({**row, "system": "", "input": " "}, prompt="instruction", answer="output")["messages"][0] == {
        "role": "user",
        "content": "do",
    }


def test_conversations_come_as_lists_as_json_text_in_pieces_and_in_parts():
    expected = {"messages": TALK}
    assert record({"messages": TALK}) == expected
    assert record({"messages": '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]'}) == expected
    assert record({"prompt": TALK[:1], "completion": TALK[1:]}) == expected
    parts = [{"role": "user", "content": [{"type": "text", "text": "q"}]}, TALK[1]]
    assert record({"messages": parts}) == expected
    assert record({"messages": [{**TALK[0], "weight": 0.5}, TALK[1]]}) == expected


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"messages": None}, "empty"),
        ({"messages": []}, "empty"),
        ({"messages": "words"}, "not a list of messages"),
        ({"messages": [{"content": "x"}]}, "not a list of messages"),
        ({"messages": TALK[:1]}, "no assistant turn"),
        ({"messages": [TALK[0], {"role": "assistant", "content": "  "}]}, "no assistant turn"),
        ({"messages": [{"role": "user", "content": " "}, {"role": "assistant", "content": ""}]}, "empty"),
        ({"messages": [{"role": "narrator", "content": "x"}, TALK[1]]}, "unknown role"),
        ({"messages": [TALK[0], {"role": "assistant", "content": None}]}, "not a string"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, TALK[1]]}, "not a string"),
        ({"messages": [*TALK, {**TALK[1], "tool_calls": [{}]}]}, "tool calls, which the format has no field for"),
        ({"messages": [TALK[0], {"role": "assistant", "content": "\ud800"}]}, "not valid Unicode"),
        ({"other": 1}, "none of the chosen columns"),
    ],
)
def test_a_conversation_that_teaches_nothing_says_why(row, why):
    assert reason(row, {"messages": TALK}) == why


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "p", "answer": None}, "no assistant turn"),
        ({"prompt": "p", "answer": " "}, "no assistant turn"),
        ({"prompt": "p", "answer": 4}, "not a string"),
        ({"prompt": "", "answer": "a"}, "empty"),
        ({"prompt": None, "answer": None}, "empty"),
    ],
)
def test_half_a_pair_is_no_text(row, why):
    assert reason(row, {"prompt": "p", "answer": "a"}) == why


@pytest.mark.parametrize(
    ("value", "why"),
    [(None, "empty"), ("", "empty"), (" \n", "empty"), (7, "not a string"), ("\udfff", "not valid Unicode")],
)
def test_a_text_that_is_none_says_why(value, why):
    assert reason({"text": value}, {"text": "t"}) == why


def test_rows_that_mix_forms_are_each_read_by_the_first_that_they_fill():
    sample = [{"messages": TALK, "text": None}, {"text": "t"}]
    choices = choose_columns(sample)
    assert [to_record(row, choices, Counter())[1] for row in sample] == [0, 1]


@given(st.text(st.characters(codec="utf-8")).filter(str.strip), st.text(st.characters(codec="utf-8")).filter(str.strip))
def test_text_is_handed_on_unchanged(first, second):
    assert record({"text": first}, text="text") == {"text": first}
    messages = record({"p": first, "a": second}, prompt="p", answer="a")["messages"]
    assert [message["content"] for message in messages] == [first, second]
