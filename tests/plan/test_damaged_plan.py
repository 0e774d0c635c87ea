"""A plan file is read whole or not at all: what every display and the training need is checked where it is read."""

import json

import pytest

from geonb.derive import FIFTEEN
from geonb.errors import InputError
from geonb.plan.plan import Plan


@pytest.fixture
def tree(quick_plan):
    return json.loads(quick_plan.to_json())


def read(tree):
    return Plan.from_json(json.dumps(tree))


PARTS = ("model", "data", "evaluation", "split", "batch", "horizon", "controller")
# what no display names
FREE = {"momentum", "steps_per_epoch"}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_without_one_of_its_keys_is_refused_by_its_name(tree, part):
    for key in [key for key in tree[part] if key not in FREE]:
        less = {name: value for name, value in tree[part].items() if name != key}
        with pytest.raises(InputError, match=rf"the field '{part}'; allowed is an object with the key '{key}'"):
            read({**tree, part: less})


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("value", [[1], {"a": 1}, True], ids=repr)
def test_a_value_of_another_kind_is_refused_by_its_name(tree, part, value):
    for key in [key for key in tree[part] if key not in FREE]:
        with pytest.raises(InputError, match=rf"the field '{part}'; allowed is an object whose '{key}' is an? "):
            read({**tree, part: {**tree[part], key: value}})


def test_a_key_that_a_later_version_adds_is_kept(tree):
    tree["controller"]["rate"] = 0.5
    found = read(tree)
    assert found.controller["rate"] == 0.5 and json.loads(found.to_json()) == tree


@pytest.mark.parametrize("module", FIFTEEN, ids=lambda module: module.__name__.rpartition(".")[2])
def test_a_plan_without_one_of_the_fifteen_is_refused(tree, module):
    key = module.__name__.rpartition(".")[2]
    tree["derivations"] = [one for one in tree["derivations"] if one["key"] != key]
    with pytest.raises(InputError, match=f"derivations without '{key}'; allowed are all fifteen"):
        read(tree)


@pytest.mark.parametrize("number", [2**64, -(10**30)])
def test_a_count_that_no_machine_counts_to_is_refused(tree, number):
    tree["targets"][0]["structural_rank"] = number
    with pytest.raises(InputError, match="'structural_rank'; allowed is a whole number of at most 64 bits"):
        read(tree)


def test_half_a_character_is_refused_before_it_reaches_a_page(tree):
    tree["model"]["name"] = "\ud800"
    with pytest.raises(InputError, match=r"holds half a character \(a lone surrogate\)"):
        Plan.from_json(json.dumps(tree))
    tree["model"]["name"] = "\U0001f600"
    assert read(tree).model["name"] == "\U0001f600"
