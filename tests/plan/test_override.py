"""An overridden plan is the one that `build_plan` gives with the same options, recomputed at once and labelled."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import geonb.plan.memory
from geonb.derive import recompute
from geonb.derive.lora_rank import RANK_RULES
from geonb.errors import InputError
from geonb.plan import Plan, WhatIf, build_plan, what_if

ROLES = ("q", "k", "v", "o", "gate", "up", "down")
OVERRIDES = [
    *({"rank_rule": rule} for rule in ("customary", "knee", "noise", "data")),
    {"exclude_roles": ("q", "gate")},
    {"exclude_roles": "embed"},
    {"max_rank": 8},
    {"memory_budget": "30MB"},
    {"memory_budget": 30_000_000, "rank_rule": "knee", "exclude_roles": "k", "max_rank": 20},
]


@pytest.fixture(scope="module")
def build(data_file):
    return lambda **options: build_plan("embedded", data_file, **options)


@pytest.mark.parametrize("override", OVERRIDES, ids=str)
def test_an_override_is_the_plan_that_would_be_built(quick_plan, build, override):
    found = what_if(quick_plan, **override)
    assert found.plan.to_dict() == build(calibrate=False, **override).to_dict()
    read_back = Plan.from_json(quick_plan.to_json())
    assert what_if(read_back, **override).to_json() == found.to_json()
    assert WhatIf.from_json(found.to_json()) == found
    for derivation in found.plan.derivations:
        assert recompute(derivation) == (derivation.value, derivation.documented_value), derivation.key


@pytest.mark.parametrize(
    "options",
    [
        {"basis": "random", "sides": "two", "budget": "strict", "epochs": 3, "dim_monitor": True},
        {"controller": "mass-layer", "max_rank": 9},
        {"memory_budget": "40MB", "exclude_roles": "v", "rank_rule": "data"},
    ],
    ids=str,
)
def test_so_it_is_for_plans_that_were_given_options(build, options):
    override = {"rank_rule": "noise", "exclude_roles": "up,k", "max_rank": 30}
    found = what_if(build(calibrate=False, **options), **override)
    assert found.plan.to_dict() == build(calibrate=False, **{**options, **override}).to_dict()


@pytest.mark.parametrize("override", [{"rank_rule": "gradient"}, {"rank_rule": "knee", "exclude_roles": "q"}], ids=str)
def test_rules_and_roles_change_nothing_that_was_calibrated(plan, build, override):
    assert what_if(plan, **override).plan.to_dict() == build(**override).to_dict()


def test_limits_keep_the_calibration_and_say_so(plan, build, monkeypatch):
    # the calibration itself is what cannot be equal; given the same one, all the rest is
    monkeypatch.setattr("geonb.plan.build._calibrate", lambda *arguments: plan.calibration)
    for override in ({"max_rank": 5}, {"memory_budget": "30MB", "rank_rule": "gradient"}):
        found = what_if(plan, **override)
        assert found.plan.to_dict() == build(**override).to_dict()
        assert "the calibration, and the batch that follows from it, stay as they were measured" in found.because


def test_ranks_that_a_small_device_limited(build, monkeypatch):
    monkeypatch.setattr(geonb.plan.memory, "device_memory", lambda device: 40_000_000)
    small = build(calibrate=False)
    assert "the memory limit (0 GiB of cpu)" in small.derivation("lora_rank").because
    for override in ({"rank_rule": "data"}, {"rank_rule": "customary"}, {"exclude_roles": "o"}):
        assert what_if(small, **override).plan.to_dict() == build(calibrate=False, **override).to_dict()


def test_nothing_overridden_is_the_plan_that_was_given(quick_plan):
    for same in ({}, {"rank_rule": "tail"}, {"exclude_roles": ()}):
        found = what_if(quick_plan, **same)
        assert found.plan == quick_plan and found.changes == () and found.arguments == ()
        assert found.because == "Nothing is overridden: this is the derived plan."
    override = what_if(quick_plan, max_rank=3).plan
    assert what_if(override).because.startswith("Nothing more is overridden")
    assert what_if(override).arguments == ("--max-rank", "3")


def test_an_override_can_be_taken_back(plan):
    away = what_if(plan, rank_rule="customary", exclude_roles="gate,up")
    back = what_if(away.plan, rank_rule="tail", exclude_roles=())
    assert back.plan == plan and back.arguments == ()
    assert back.parameters == away.parameters[::-1]
    assert (
        back.because == "An override: --rank-rule tail in place of customary, --exclude-roles none in place of gate,up."
    )


def test_an_override_is_labelled_wherever_it_decides(quick_plan):
    found = what_if(quick_plan, rank_rule="customary", exclude_roles=["up", "gate"], max_rank=4)
    rank, modules = found.plan.derivation("lora_rank"), found.plan.derivation("target_modules")
    assert rank.because.startswith("Decided by --rank-rule customary, an override of the derived tail_dims, and by ")
    assert "--max-rank 4 in" in rank.because and rank.evidence == "convention" and not rank.applied
    assert rank.documented_value == {t.name: t.tail_dims for t in found.plan.chosen()}
    assert "An override: --exclude-roles gate,up took out 8 of the matrices" in modules.because
    reasons = {t.because for t in found.plan.skipped() if t.role == "gate"}
    assert reasons == {"not targeted: the role gate was excluded by --exclude-roles (an override)"}
    assert "--rank-rule customary, an override" in found.plan.to_text().lower()
    assert found.because == (
        "An override: --max-rank 4 in place of none, --rank-rule customary in place of tail, --exclude-roles gate,up in "
        "place of none."
    )
    assert found.arguments == ("--max-rank", "4", "--rank-rule", "customary", "--exclude-roles", "gate,up")


def test_changes_are_those_between_the_two_plans(quick_plan):
    found = what_if(quick_plan, exclude_roles="q", max_rank=60)
    before = {target.name: target for target in quick_plan.targets}
    after = {target.name: target for target in found.plan.targets}
    for change in found.changes:
        assert change.derived == getattr(before[change.name], change.quantity)
        assert change.override == getattr(after[change.name], change.quantity) != change.derived
    assert {change.quantity for change in found.changes if after[change.name].role == "q"} == {
        "chosen",
        "rank",
        "parameters",
    }
    assert found.parameters == (quick_plan.n_parameters, found.plan.n_parameters)
    text = found.to_text()
    assert text.startswith(found.because) and f"{found.parameters[1]:,}" in text and found.changes[0].name in text


def test_the_arguments_reproduce_it_on_the_command_line(plan, data_file, capsys):
    from geonb.cli.app import main

    found = what_if(plan, rank_rule="gradient", exclude_roles="q,k")
    with pytest.raises(SystemExit) as leave:
        main(["plan", "-m", "embedded", "-d", str(data_file), *found.arguments, "--json"])
    assert leave.value.code == 0
    assert json.loads(capsys.readouterr().out) == found.plan.to_dict()


def test_what_cannot_be_recomputed_is_refused(plan, quick_plan):
    batch = {name: size for name, size in quick_plan.batch.items() if not name.endswith("_bytes")}
    old = dataclasses.replace(quick_plan, batch=batch, geonb_version="0.0.1")
    with pytest.raises(InputError, match=r"this plan of geonb 0\.0\.1 does not hold: build it again"):
        what_if(old, memory_budget="30MB")
    assert what_if(old, max_rank=4).parameters == what_if(quick_plan, max_rank=4).parameters
    with pytest.raises(InputError, match="--rank-rule gradient was given without a calibration"):
        what_if(quick_plan, rank_rule="gradient")
    unmeasured = dataclasses.replace(plan.calibration, gradient_ranks={})
    with pytest.raises(InputError, match="28 of 28 have none: choose another rule"):
        what_if(dataclasses.replace(plan, calibration=unmeasured), rank_rule="gradient")
    with pytest.raises(InputError, match="--memory-budget was given 1,000 bytes"):
        what_if(quick_plan, memory_budget=1000)
    with pytest.raises(InputError, match="--exclude-roles was given 'attention'; allowed are q, k"):
        what_if(quick_plan, exclude_roles="attention")
    with pytest.raises(InputError, match=r"leaves no matrix of embedded.* to train"):
        what_if(quick_plan, exclude_roles=ROLES)


def test_excluding_everything_is_refused_before_a_calibration(build, monkeypatch):
    def never(*arguments):
        raise AssertionError("calibrated a plan that trains nothing")

    monkeypatch.setattr("geonb.plan.build._calibrate", never)
    with pytest.raises(InputError, match="--exclude-roles was given q,k,v,o,gate,up,down, which leaves no matrix"):
        build(exclude_roles=ROLES)


def test_hostile_names_are_escaped(quick_plan):
    change = what_if(quick_plan, max_rank=2).changes[0]
    hostile = dataclasses.replace(
        what_if(quick_plan), changes=(dataclasses.replace(change, name="<script>\x1b[2J"),), because="<b>"
    )
    assert "<script" not in hostile.to_html() and "<b>" not in hostile.to_html()
    assert "\x1b" not in hostile.to_html() + hostile.to_text()


@given(
    rule=st.sampled_from(RANK_RULES),
    roles=st.sets(st.sampled_from(ROLES), max_size=len(ROLES) - 1),
    cap=st.none() | st.integers(1, 200),
    megabytes=st.none() | st.integers(20, 80),
)
def test_ranks_stay_within_the_tail_and_excluded_roles_out(plan, rule, roles, cap, megabytes):
    budget = None if megabytes is None else megabytes * 10**6
    found = what_if(plan, rank_rule=rule, exclude_roles=roles, max_rank=cap, memory_budget=budget)
    for target in found.plan.chosen():
        assert 1 <= target.rank <= min(target.tail_dims, cap or target.tail_dims)
        assert target.role not in roles
    assert all(target.rank == target.parameters == 0 for target in found.plan.skipped())
    assert found.parameters[1] <= found.parameters[0] and found.adapter_bytes[1] <= found.adapter_bytes[0]
    if budget is not None:
        assert found.plan.batch["model_bytes"] + found.plan.batch["example_bytes"] + found.adapter_bytes[1] <= budget


@given(sizes=st.tuples(st.integers(20_000_000, 60_000_000), st.integers(20_000_000, 60_000_000)))
def test_parameters_fall_when_the_budget_falls(quick_plan, sizes):
    less, more = (what_if(quick_plan, memory_budget=size) for size in sorted(sizes))
    assert less.parameters[1] <= more.parameters[1] and less.plan.batch["micro"] <= quick_plan.batch["size"]
    ranks = {target.name: target.rank for target in more.plan.targets}
    assert all(target.rank <= ranks[target.name] for target in less.plan.targets)
