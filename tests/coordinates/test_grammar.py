"""The grammar says what its attributes say, and no held-out content is ever trained on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.coordinates.grammar import (
    ATTRIBUTES,
    PERSONS,
    PLACES,
    THINGS,
    VERBS,
    Sentence,
    composition,
    dialogue,
    draw_content,
    draw_sentence,
    is_held_out,
    minimal_pair,
)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "The baker closes the clock in the field."),
        ({"number": "many"}, "The bakers close the clock in the field."),
        ({"tense": "past"}, "The baker closed the clock in the field."),
        ({"polarity": "denied", "number": "many"}, "The bakers do not close the clock in the field."),
        ({"tense": "future", "polarity": "denied"}, "The baker will not close the clock in the field."),
        ({"mood": "glad"}, "The baker gladly closes the clock in the field."),
        ({"register": "formal"}, "It is hereby noted that the baker closes the clock in the field."),
        (
            {"register": "casual", "mood": "grudging"},
            "Well, the baker grudgingly closes the clock in the field, you know.",
        ),
    ],
)
def test_a_sentence_says_its_attributes(values, text):
    assert Sentence((1, 7, 19, 9), **values).text() == text


def test_third_persons_are_spelt():
    said = {VERBS[v].split(":")[0]: Sentence((0, v, 0, 0)).text().split()[2] for v in range(len(VERBS))}
    assert (
        said["carry"] == "carries"
        and said["polish"] == "polishes"
        and said["fetch"] == "fetches"
        and said["need"] == "needs"
    )
    assert len(said) == len(VERBS) == 32 and len(PERSONS) == len(THINGS) == 48 and len(PLACES) == 24


@given(st.integers(0, 10_000), st.booleans())
def test_every_drawn_text_is_of_its_side(seed, held_out):
    rng = np.random.default_rng(seed)
    assert is_held_out(draw_content(rng, held_out=held_out)) == held_out
    assert is_held_out(draw_sentence(rng, held_out=held_out).content) == held_out


@given(st.integers(0, 10_000), st.sampled_from(list(ATTRIBUTES)))
def test_a_minimal_pair_differs_in_one_attribute(seed, attribute):
    one, other = minimal_pair(np.random.default_rng(seed), attribute, held_out=False)
    differing = [name for name in ("content", *ATTRIBUTES) if getattr(one, name) != getattr(other, name)]
    assert differing == [attribute] and one.text() != other.text()


def test_held_out_compositions_join_what_training_never_joins():
    joined = {False: set(), True: set()}
    rng = np.random.default_rng(0)
    for held_out in joined:
        for _ in range(600):
            both, first, second = composition(rng, held_out=held_out)
            marks = {
                name: getattr(both, name) for name, allowed in ATTRIBUTES.items() if getattr(both, name) != allowed[0]
            }
            assert len(marks) == 2
            parts = {
                name: getattr(first if getattr(first, name) != ATTRIBUTES[name][0] else second, name) for name in marks
            }
            assert parts == marks and both.content == first.content == second.content
            joined[held_out].add(tuple(sorted(marks.items())))
    assert not joined[False] & joined[True] and len(joined[True]) >= 1 and len(joined[False]) > 20


def test_a_dialogue_never_contradicts_itself():
    rng = np.random.default_rng(1)
    for _ in range(50):
        said = {}
        for turn in dialogue(rng, 6, held_out=False):
            question, answer = turn.strip().split("\n")
            aspect = question.split("What is the ")[1].split(" of ")[0]
            assert said.setdefault(aspect, answer) == answer


def test_a_seed_gives_the_same_texts():
    made = [[draw_sentence(np.random.default_rng(5), held_out=False).text() for _ in range(3)] for _ in range(2)]
    assert made[0] == made[1]
