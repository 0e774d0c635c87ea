"""184 operations: counts, ranges, disjoint sides, short answers, no two alike, and a manifest that notices a change."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from geonb.coordinates.continual.operation import FORMS, LONGEST, OneOf, Word, ask, is_held_out, near, shown
from geonb.coordinates.continual.operations import DOMAINS, Manifest, by_name, draw, manifest, operations, sequence
from geonb.errors import InputError

EVERY = {one.name: one for one in operations()}


def drawn(operation, count, seed=0):
    rng = np.random.default_rng(seed)
    return [tuple(argument.draw(rng) for argument in operation.arguments) for _ in range(count)]


def test_there_are_184_operations_in_the_stated_domains():
    assert {name: sum(one.domain == name for one in operations()) for name in DOMAINS} == {
        "mathematics": 48, "physics": 36, "chemistry": 32, "biology": 32, "logic": 36,
    }  # fmt: skip
    assert len(operations()) == len(EVERY) == 184


def test_no_name_or_paraphrase_is_used_twice():
    names = [name for one in operations() for name in (one.name, one.paraphrase, one.unseen)]
    assert len(names) == len(set(names)) == 3 * 184
    assert all(name == name.strip().lower() and name.isascii() for name in names)


@pytest.mark.parametrize("name", EVERY)
def test_every_operation_has_many_inputs_on_both_sides_and_short_answers(name):
    one = EVERY[name]
    assert one.size >= 200
    inputs = drawn(one, 250)
    answers = [one.answer(each) for each in inputs]
    assert all(0 < len(answer) <= LONGEST and " " not in answer for answer in answers)
    assert len(set(answers)) > 1
    assert answers == [one.answer(each) for each in inputs]
    sides = {is_held_out(each) for each in inputs}
    assert sides == {True, False}


def test_the_whole_range_of_an_operation_of_few_inputs_has_short_answers():
    for one in operations():
        if one.size <= 1500:
            axes = [_all_values(argument) for argument in one.arguments]
            assert max(len(one.answer(inputs)) for inputs in itertools.product(*axes)) <= LONGEST, one.name


def _all_values(argument):
    if isinstance(argument, Word):
        return ["".join(letters) for letters in itertools.product(argument.alphabet, repeat=argument.length)]
    if isinstance(argument, OneOf):
        return list(argument.words)
    return list(range(argument.low, argument.high + 1))


def test_the_corners_of_every_range_have_short_answers():
    for one in operations():
        if all(not isinstance(argument, Word | OneOf) for argument in one.arguments):
            for inputs in itertools.product(*((argument.low, argument.high) for argument in one.arguments)):
                assert len(one.answer(inputs)) <= LONGEST, (one.name, inputs)


def test_no_two_operations_answer_alike_wherever_both_can_be_asked():
    probes = {one.name: drawn(one, 60) for one in operations()}
    compared = 0
    for first, second in itertools.combinations(operations(), 2):
        if len(first.arguments) != len(second.arguments):
            continue
        common = [
            inputs
            for inputs in probes[first.name] + probes[second.name]
            if all(argument.holds(value) for argument, value in zip(first.arguments, inputs, strict=True))
            and all(argument.holds(value) for argument, value in zip(second.arguments, inputs, strict=True))
        ]
        if len(common) >= 10:
            compared += 1
            assert any(first.answer(each) != second.answer(each) for each in common), (first.name, second.name)
    assert compared > 1000


@pytest.mark.parametrize("form", FORMS)
def test_training_and_held_out_prompts_never_share_their_inputs(form):
    rng = np.random.default_rng(3)
    for one in operations()[::9]:
        trained = {ask(one, rng, form, False).inputs for _ in range(40)}
        asked = {ask(one, rng, form, True).inputs for _ in range(40)}
        assert not trained & asked
        assert all(map(is_held_out, asked)) and not any(map(is_held_out, trained))


def test_a_held_out_paraphrase_is_never_seen_in_training():
    rng = np.random.default_rng(0)
    one = by_name("sum")
    trained = [draw(one, rng, form="paraphrased").prompt for _ in range(60)]
    asked = [draw(one, rng, form="paraphrased", held_out=True).prompt for _ in range(20)]
    assert not any(one.unseen in text for text in trained)
    assert all(one.unseen in text and one.name not in text.split() for text in asked)
    # the sentence around the name is another one as well
    assert not any(text.startswith("given ") for text in trained) and all(text.startswith("given ") for text in asked)


def test_an_anonymous_question_shows_four_right_examples_none_of_them_held_out_and_no_name():
    rng = np.random.default_rng(1)
    for one in operations()[::7]:
        prompt = ask(one, rng, "anonymous", True)
        *examples, question = prompt.prompt.split(" ; ")
        assert len(examples) == 4 and question == f"{shown(prompt.inputs)} >"
        for example in examples:
            left, right = example.split(" > ")
            values = tuple(
                given if isinstance(argument, Word | OneOf) else int(given)
                for given, argument in zip(left.split(), one.arguments, strict=True)
            )
            assert one.answer(values) == right and not is_held_out(values)


def test_the_same_seed_draws_the_same_prompts():
    first, second = (draw("remainder", np.random.default_rng(5)) for _ in range(2))
    assert first == second and first.answer == str(first.inputs[0] % first.inputs[1])


def test_the_manifest_has_a_hash_for_each_and_changes_with_one_answer():
    found = manifest()
    assert len({one.sha256 for one in found.operations}) == 184
    assert Manifest.from_json(found.to_json()) == found
    one = by_name("sum")
    wrong = dataclasses.replace(one, function=lambda a, b: a + b + (a == 47))
    renamed = dataclasses.replace(one, unseen="another name")
    assert len({one.digest, wrong.digest, renamed.digest}) == 3


def test_a_sequence_is_seeded_takes_every_domain_in_proportion_and_repeats_nothing():
    assert [one.name for one in sequence(8, 1)] == [one.name for one in sequence(8, 1)]
    assert [one.name for one in sequence(8, 1)] != [one.name for one in sequence(8, 2)]
    assert len({one.name for one in sequence(184, 0)}) == 184
    counts = [sum(one.domain == name for one in sequence(46, 0)) for name in DOMAINS]
    assert counts == [12, 9, 8, 8, 9]


def test_halves_are_rounded_up():
    assert [near(value) for value in (0.5, 1.5, -0.5, 2.4999)] == [1, 2, 0, 2]


def test_wrong_requests_are_told_what_is_allowed():
    with pytest.raises(InputError, match=r"operation 'summ' was given; the nearest of the 184 are sum"):
        by_name("summ")
    with pytest.raises(InputError, match=r"form 'spoken' was given; allowed are named, paraphrased, anonymous"):
        draw("sum", np.random.default_rng(0), form="spoken")
    with pytest.raises(InputError, match="185 operations were asked for; allowed are 2 to 184"):
        sequence(185, 0)
