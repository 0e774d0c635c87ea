"""Options: what excludes what, what is refused, and in which words."""

from types import SimpleNamespace

import pytest

from geonb.errors import InputError
from geonb.plan.horizon import horizon
from geonb.plan.options import PlanOptions, bytes_of, default_output, expert_names, role_names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 5, "epochs": 1}, "--max-steps and --epochs were both given"),
        ({"basis": "full", "max_rank": 4}, "--basis full and --max-rank were both given"),
        ({"basis": "full", "memory_budget": 4}, "--basis full and --memory-budget were both given"),
        ({"controller": "mass", "sides": "two"}, "--controller mass and --sides two were both given"),
        ({"controller": "mass", "basis": "top"}, "--controller mass and --basis top were both given"),
        ({"controller": "sgd"}, "--controller was given 'sgd'; allowed are frank-wolfe"),
        ({"basis": "left"}, "--basis was given 'left'"),
        ({"budget": "lax"}, "--budget was given 'lax'"),
        ({"sides": "three"}, "--sides was given 'three'"),
        ({"benchmark": "all"}, "--benchmark was given 'all'"),
        ({"max_steps": 0}, "--max-steps was given 0; allowed is a whole number from 1"),
        ({"epochs": -1}, "--epochs was given -1"),
        ({"seed": 2**32}, "--seed was given 4294967296"),
        ({"seq_length": 1}, "--seq-length was given 1"),
        ({"max_rank": True}, "--max-rank was given True"),
        ({"memory_budget": 0}, "--memory-budget was given 0"),
        (
            {"rank_rule": "wide"},
            "--rank-rule was given 'wide'; allowed are tail, customary, knee, noise, data, gradient",
        ),
        ({"exclude_roles": ("q", "attention")}, "--exclude-roles was given 'attention'; allowed are q, k, v, o, gate"),
        ({"basis": "full", "rank_rule": "knee"}, "--basis full and --rank-rule knee were both given"),
        ({"rank_rule": "gradient", "calibrate": False}, "--rank-rule gradient was given without a calibration"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(InputError) as caught:
        PlanOptions(**options).checked()
    assert str(caught.value).startswith(message)
    assert caught.value.exit_code == 2


def test_defaults_are_accepted_and_round_trip():
    options = PlanOptions().checked()
    assert PlanOptions.from_json(options.to_json()) == options


@pytest.mark.parametrize(
    ("text", "size"), [("8GB", 8 * 10**9), ("512 MiB", 512 * 2**20), ("1.5k", 1500), ("7", 7), (9, 9), (None, None)]
)
def test_sizes(text, size):
    assert bytes_of(text) == size


@pytest.mark.parametrize(
    ("tokens", "roles"), [("up, q,up", ("q", "up")), (["gate", "k"], ("k", "gate")), ((), ()), (None, ())]
)
def test_roles_once_each_and_in_their_order(tokens, roles):
    assert role_names(tokens) == roles
    options = PlanOptions(exclude_roles=roles, rank_rule="noise").checked()
    assert PlanOptions.from_json(options.to_json()) == options


@pytest.mark.parametrize("tokens", ["", "q,", "q;k", ["Q"]])
def test_a_role_that_is_none_is_refused_not_ignored(tokens):
    with pytest.raises(InputError, match=r"--exclude-roles was given '.*'; allowed are q, k, v"):
        role_names(tokens)


def test_a_size_that_is_none_is_refused():
    with pytest.raises(InputError, match="--memory-budget was given 'lots'"):
        bytes_of("lots")


def _refs():
    experts = [
        SimpleNamespace(name=f"layers.{layer}.up[{expert}]", layer=layer, expert=expert)
        for layer in range(2)
        for expert in range(3)
    ]
    return [SimpleNamespace(name="layers.0.q", layer=0, expert=None), *experts]


def test_experts_by_token_and_by_name_in_checkpoint_order():
    assert expert_names("layers.1.up[2], l0.e1 ,L0.E1", _refs()) == ("layers.0.up[1]", "layers.1.up[2]")
    assert expert_names(["L1.E0"], _refs()) == ("layers.1.up[0]",)
    assert expert_names(None, _refs()) == ()


@pytest.mark.parametrize("token", ["E1", "L0E1", "layers.0.q", "", "L0.E1;L1.E1"])
def test_an_unreadable_token_is_refused_not_ignored(token):
    with pytest.raises(InputError, match=r"allowed are tokens such as L0\.E1"):
        expert_names(f"L0.E0,{token}", _refs())


def test_an_expert_that_does_not_exist_is_named_with_the_range():
    with pytest.raises(InputError, match=r"'L0\.E9', but this model has layers 0 to 1, experts 0 to 2"):
        expert_names("L0.E9", _refs())


@pytest.mark.parametrize(
    ("arguments", "steps", "source"),
    [
        ({"n_train": 100, "batch_size": 16, "max_steps": None, "epochs": None}, 200, "the minimum of 200"),
        ({"n_train": 8000, "batch_size": 16, "max_steps": None, "epochs": None}, 500, "one epoch of 8,000"),
        ({"n_train": 100, "batch_size": 16, "max_steps": 3, "epochs": None}, 3, "given by --max-steps"),
        ({"n_train": 100, "batch_size": 16, "max_steps": None, "epochs": 2}, 14, "given by --epochs"),
    ],
)
def test_horizon(arguments, steps, source):
    found = horizon(**arguments)
    assert found["steps"] == steps and found["source"].startswith(source)
    assert found["epochs"] == pytest.approx(steps / found["steps_per_epoch"])


@pytest.mark.parametrize(
    ("model", "data", "expected"),
    [
        ("embedded", "embedded:kjv", "runs/embedded-embedded-kjv-7"),
        ("../../etc", "../a b.jsonl", "runs/etc-a-b-7"),
        ("org/Model", "x.jsonl", "runs/Model-x-7"),
        ("..", "..", "runs/model-model-7"),
    ],
)
def test_the_default_output_cannot_leave_its_folder(model, data, expected):
    assert default_output(model, data, 7) == expected
