"""The name of an arm: two arms have the same one exactly where they are the same."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from geonb.errors import InputError
from geonb.workbench.benchmark.arm import (
    BASES,
    FOLKLORE,
    FORMS,
    METHODS,
    OPEN,
    PEER_DEFAULT,
    RANKS,
    STRICT,
    THREE,
    VARIANTS,
    Arm,
    adamw,
)
from geonb.workbench.benchmark.design import RATES
from geonb.workbench.benchmark.queue import read_rows

numbers = st.sampled_from([1.0, 2.0, 0.333]) | st.floats(min_value=0, exclude_min=True, allow_infinity=False)


@st.composite
def arms(draw):
    """Any arm that is allowed; those that would be refused are drawn again."""
    given_ = {
        "method": draw(st.sampled_from(METHODS)),
        "rate": draw(st.none() | numbers),
        "rank": draw(st.sampled_from(RANKS)),
        "targets": draw(st.sampled_from(["all", "q+v"])),
        "form": draw(st.sampled_from(FORMS)),
        "schedule": draw(st.sampled_from(["cosine", "constant"])),
        "basis": draw(st.sampled_from(BASES)),
        "sides": draw(st.sampled_from(["one", "two"])),
        "budget": draw(numbers),
        "unit_of_budget": draw(st.sampled_from(["sigma_k", "sigma_max"])),
        "unit": draw(numbers),
        "momentum": draw(numbers | st.just(0.0)),
    }
    if given_["method"] not in ("adamw", "muon", "scaled-gd", "nb-lora", "full", "schedule-free"):
        given_["rate"] = None
    elif given_["method"] != "schedule-free":
        assume(given_["rate"] is not None)
    if given_["method"] not in ("adamw", "muon", "prodigy", "schedule-free", "dog"):
        given_["form"] = "lora"
    if given_["method"] == "frank-wolfe":
        given_ |= {name: draw(st.sampled_from(allowed)) for name, allowed in VARIANTS.items()}
        given_["power"] = draw(numbers | st.just(0.0))
    assume(given_["form"] != "lora+" or given_["method"] == "adamw")
    return Arm(**given_)


@given(arms(), arms())
def test_keys_are_equal_exactly_where_the_arms_are(one, other):
    assert (one.key == other.key) == (one == other)


@given(arms(), st.data())
def test_changing_one_number_by_the_smallest_step_changes_the_key(arm, data):
    name = data.draw(st.sampled_from(["budget", "unit", "momentum"] + ["power"] * (arm.method == "frank-wolfe")))
    near = math.nextafter(getattr(arm, name), math.inf)
    assume(math.isfinite(near))
    assert dataclasses.replace(arm, **{name: near}).key != arm.key


@given(arms())
def test_an_arm_comes_back_from_json_with_its_key(arm):
    back = Arm.from_json(arm.to_json())
    assert back == arm and back.key == arm.key


def test_the_key_says_what_is_not_the_default_in_a_fixed_order():
    assert OPEN.key == "frank-wolfe"
    assert STRICT.key == "frank-wolfe unit_of_budget=sigma_k"
    assert THREE.key == "frank-wolfe budget=3 unit_of_budget=sigma_k"
    assert FOLKLORE.key == "adamw rate=0.0002 rank=8 targets=q+v"
    assert PEER_DEFAULT.key == "adamw rate=0.0002 rank=32 form=pissa"
    assert [adamw(rate).key.split("=")[1] for rate in RATES] == [
        "3e-05", "0.0001", "0.0003", "0.001", "0.003", "0.01", "0.03", "0.1", "0.3",
    ]  # fmt: skip


def test_the_rows_of_the_paper_are_read_with_the_keys_they_were_written_with():
    # the fields that came later are at their defaults there: no run is made twice because an arm learned a word
    path = Path(__file__).parents[3] / "papers/zero-knob/results.jsonl"
    written = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = read_rows(path)
    assert len(written) > 50 and set(rows) == {one["key"] for one in written}
    assert all(row.job.key == key for key, row in rows.items())


def test_a_variant_says_in_its_key_what_it_exchanges():
    arm = dataclasses.replace(THREE, confirm="agreement", power=0.25, decay="anytime")
    assert arm.key == f"{THREE.key} power=0.25 confirm=agreement decay=anytime"
    assert arm.is_variant and not THREE.is_variant


def test_a_whole_number_and_the_same_number_with_a_point_are_one_arm():
    assert Arm(method="adamw", rate=10_000_000) == Arm(method="adamw", rate=1e7)
    assert Arm(method="adamw", rate=10_000_000).key == Arm(method="adamw", rate=1e7).key
    assert Arm(method="frank-wolfe", momentum=-0.0).key == Arm(method="frank-wolfe", momentum=0.0).key


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        ({"method": "sgd"}, "the method 'sgd'; allowed are frank-wolfe, mass"),
        ({"method": "adamw", "rate": 1e-3, "form": "vera"}, "the form 'vera'; allowed are lora, rslora"),
        ({"method": "mass", "rank": "16"}, "the rank '16'; allowed are 8, 32, tail"),
        ({"method": "mass", "targets": "k"}, "the targets 'k'; allowed are all, q\\+v"),
        ({"method": "mass", "basis": "head"}, "the basis 'head'; allowed are tail, top"),
        ({"method": "mass", "schedule": "linear"}, "the schedule 'linear'; allowed are cosine, constant"),
        ({"method": "mass", "sides": "three"}, "the sides 'three'; allowed are one, two"),
        ({"method": "mass", "unit_of_budget": "nats"}, "the unit_of_budget 'nats'; allowed are sigma_k, sigma_max"),
        ({"method": "adamw"}, "the method adamw has a learning rate to be given: name it with rate"),
        ({"method": "full"}, "the method full has a learning rate to be given"),
        ({"method": "frank-wolfe", "rate": 1e-3}, "the method frank-wolfe derives its steps: leave the rate 0.001 out"),
        ({"method": "dog", "rate": 1e-3}, "the method dog derives its steps"),
        ({"method": "full", "rate": 1e-3, "form": "dora"}, "the form dora is not made for the method full: give lora"),
        ({"method": "muon", "rate": 1e-3, "form": "lora+"}, "the form lora\\+ is not made for the method muon"),
        ({"method": "adamw", "rate": 0.0}, "the rate 0; allowed is any finite number above 0"),
        ({"method": "adamw", "rate": math.nan}, "the rate nan; allowed is any finite number above 0"),
        ({"method": "mass", "budget": math.inf}, "the budget inf; allowed is any finite number above 0"),
        ({"method": "frank-wolfe", "unit": -1.0}, "the unit -1; allowed"),
        ({"method": "frank-wolfe", "power": math.nan}, "the power nan; allowed is any finite number from 0 on"),
        ({"method": "frank-wolfe", "confirm": "half"}, "the confirm 'half'; allowed are none, agreement"),
        ({"method": "frank-wolfe", "decay": "step"}, "the decay 'step'; allowed are linear, constant"),
        ({"method": "frank-wolfe", "memory": "long"}, "the memory 'long'; allowed are horizon, anytime, noise"),
        ({"method": "frank-wolfe", "average": "ema"}, "the average 'ema'; allowed are none, schedule-free"),
        ({"method": "mass", "power": 0.5}, "the method mass has no variants: leave power, confirm, decay, memory, average"),
        ({"method": "dog", "decay": "anytime"}, "the method dog has no variants: leave power, confirm"),
        ({"method": "frank-wolfe", "momentum": -0.5}, "the momentum -0.5; allowed is any finite number from 0 on"),
    ],
)  # fmt: skip
def test_what_no_arm_can_be_is_one_sentence(given_, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        Arm(**given_)
    assert str(caught.value).count(". ") == 0 and str(caught.value).endswith(".")
