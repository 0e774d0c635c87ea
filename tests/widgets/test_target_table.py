"""A plan as a table: what the page is sent is the plan, and an override strikes out what the derived plan said."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from geonb.errors import InputError
from geonb.plan import build_plan
from geonb.widgets.target_table import TargetTable
from tests import tiny

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m"


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return tiny.tiny_plan(tmp_path_factory)


@pytest.fixture
def table(plan):
    shown = TargetTable(plan)
    yield shown
    shown.close()


def asking(table, **change):
    """What the page sends when a person changes something, and what it then shows."""
    host = table.widget()
    host.event = {"kind": "what-if", "memory_budget": "", "rank_rule": "tail", "exclude_roles": [], **change}
    return host.state


def test_what_is_sent_is_strict_json_and_small(table):
    text = json.dumps(table.state(), allow_nan=False)
    assert len(text) < 40_000 and table.data() == b""


def test_every_row_says_what_the_weights_and_the_rules_say(table, plan, tmp_path_factory):
    weights = load_file(tiny.tiny_model(tmp_path_factory) / "model.safetensors")
    rows = {row["name"]: row for row in table.state()["matrices"]}
    assert list(rows) == [target.name for target in plan.targets]
    for name, row in rows.items():
        assert row["shape"] == list(weights[name].shape) and row["because"] and "was" not in row
        if row["chosen"]:
            # the default budget is at most sigma_max, and one-sided factors train B of out x rank
            sigma_max = np.linalg.svd(weights[name], compute_uv=False)[0]
            assert row["budget"] == pytest.approx(min(3 * row["sigma_k"], sigma_max), rel=1e-5)
            assert row["parameters"] == row["rank"] * row["shape"][0] and row["rank"] >= 1
        else:
            assert (row["rank"], row["parameters"]) == (0, 0)
    assert table.state()["parameters"] == [sum(row["parameters"] for row in rows.values())] * 2


def test_the_fifteen_numbers_are_those_of_the_plan(table, plan):
    sent = table.state()["derivations"]
    assert [one["number"] for one in sent] == list(range(1, 16))
    assert [one["because"] for one in sent] == [one.because for one in plan.derivations]
    assert all(isinstance(value, str | int | bool) for one in sent for value in one.values())


def test_nothing_is_an_override_at_first(table):
    state = table.state()
    assert state["is_override"] is False and state["arguments"] == []
    assert state["asked"] == {"memory_budget": "", "rank_rule": "tail", "exclude_roles": []}


@pytest.mark.parametrize(
    ("change", "arguments"),
    [
        ({"exclude_roles": ["q", "down"]}, ["--exclude-roles", "q,down"]),
        ({"rank_rule": "knee"}, ["--rank-rule", "knee"]),
        ({"rank_rule": "customary", "exclude_roles": ["v"]}, ["--rank-rule", "customary", "--exclude-roles", "v"]),
    ],
)
def test_struck_out_values_are_those_of_the_derived_plan(table, plan, change, arguments):
    state = asking(table, **change)
    derived = {target.name: target for target in plan.targets}
    for row in state["matrices"]:
        before = derived[row["name"]]
        old = {"chosen": before.chosen, "rank": before.rank, "parameters": before.parameters}
        now = {key: row[key] for key in old}
        assert row.get("was") == (old if now != old else None)
    assert any("was" in row for row in state["matrices"])
    assert state["is_override"] and state["arguments"] == arguments and state["error"] == ""
    after = sum(row["parameters"] for row in state["matrices"])
    assert state["parameters"] == [plan.n_parameters, after] and after == table.plan.n_parameters
    assert table.record is plan and len(json.dumps(state, allow_nan=False)) < 50_000


def test_an_override_is_the_plan_that_the_same_option_gives(table, tmp_path_factory):
    asking(table, exclude_roles=["q", "k"])
    model, data = tiny.tiny_model(tmp_path_factory), tiny.tiny_data(tmp_path_factory)
    built = build_plan(model, data, max_steps=4, calibrate=False, exclude_roles="q,k")
    assert table.plan.targets == built.targets and table.plan.n_parameters == built.n_parameters


def test_a_small_memory_budget_lowers_the_ranks(table, plan):
    asked = plan.batch["model_bytes"] + plan.batch["example_bytes"] + 60_000
    state = asking(table, memory_budget=f" {asked} ")
    assert state["error"] == "" and state["asked"]["memory_budget"] == str(asked)
    assert state["parameters"][1] < state["parameters"][0] and state["bytes"][1] < state["bytes"][0]


def test_the_derived_plan_comes_back_when_nothing_is_asked(table, plan):
    before = json.dumps(table.state())
    assert asking(table, exclude_roles=["q"])["is_override"]
    asking(table)
    assert json.dumps(table.state()) == before and table.plan == plan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory_budget": "a lot"}, "--memory-budget"),
        ({"memory_budget": "1"}, "--memory-budget"),
        ({"rank_rule": "nonsense"}, "--rank-rule was given 'nonsense'"),
        ({"exclude_roles": [EVIL]}, "--exclude-roles was given"),
    ],
)
def test_what_is_wrong_is_shown_under_the_table_and_changes_nothing(table, change, message):
    good = asking(table, exclude_roles=["q"])
    overridden = table.plan
    bad = asking(table, **change)
    assert message in bad["error"] and table.plan is overridden
    assert {**bad, "error": ""} == good
    with pytest.raises(InputError, match=message):
        table.what_if(**{"rank_rule": None, **change})
    assert table.plan is overridden


def test_an_event_of_another_kind_is_no_override(table, plan):
    table.receive({"kind": "stop", "rank_rule": "knee"})
    assert table.plan == plan


def test_roles_may_be_given_as_a_shell_takes_them(table):
    assert table.what_if(exclude_roles="q,k").state()["asked"]["exclude_roles"] == ["q", "k"]
    assert table.what_if(exclude_roles="q, k").state()["asked"]["exclude_roles"] == ["q", "k"]


def test_options_that_the_given_plan_has_are_shown_as_asked(tmp_path_factory):
    model, data = tiny.tiny_model(tmp_path_factory), tiny.tiny_data(tmp_path_factory)
    given = build_plan(model, data, max_steps=4, calibrate=False, exclude_roles="q", rank_rule="knee")
    asked = TargetTable(given).state()["asked"]
    assert asked["rank_rule"] == "knee"
    assert asked["exclude_roles"] == ["q"]


# -- still pictures -----------------------------------------------------------------------------------------------


def test_the_still_picture_is_the_map_of_ranks_with_both_tables(table, plan):
    (text,) = tiny.pictures(table.static())
    assert f"{len(plan.chosen())} of {len(plan.targets)} matrices" in text and "layer 1" in text
    assert all(target.name in table.static() for target in plan.targets)
    assert "skipped" not in text
    assert "skipped" in tiny.pictures(table.what_if(exclude_roles="q").static())[0]


def test_the_figure_holds_the_ranks_and_the_parameters_by_role(table, plan):
    heat, bar = table.figure().data
    assert (heat.type, bar.type) == ("heatmap", "bar")
    by_role = dict(zip(bar.x, bar.y, strict=True))
    for role in by_role:
        assert by_role[role] == sum(target.parameters for target in plan.targets if target.role == role)
        ranks = [target.rank for target in plan.targets if target.role == role and target.layer is not None]
        assert np.nanmax(np.array(heat.z, dtype=float)[:, list(heat.x).index(role)]) == max(ranks)


def test_names_of_strangers_stay_text(plan):
    targets = tuple(dataclasses.replace(one, name=f"{one.name}{EVIL}", because=EVIL) for one in plan.targets)
    evil = dataclasses.replace(
        plan, model={**plan.model, "name": EVIL}, data={**plan.data, "path": EVIL}, targets=targets
    )
    table = TargetTable(evil)
    tiny.pictures(table.static())
    assert "<script" not in table.static() and "&lt;script&gt;" in table.static()
    assert "<script" not in json.dumps(table.figure().to_dict(), default=str)
    assert EVIL in table.state()["title"], "the page makes text of it, never markup"


def test_a_plan_without_a_single_layer_still_has_its_pictures(plan):
    bare = TargetTable(dataclasses.replace(plan, targets=()))
    assert "0 of 0 matrices" in tiny.pictures(bare.static())[0]
    assert bare.figure().data and json.dumps(bare.state(), allow_nan=False)


def test_it_is_one_line_of_text(table, plan):
    assert repr(table) == f"TargetTable({len(plan.chosen())} of {len(plan.targets)} matrices, 'tiny')"
