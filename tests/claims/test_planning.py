"""Everything about a batch is checked before its first notebook starts, with one sentence for each mistake."""

import json

import pytest

from geonb.claims.batch import claim_events, run_claims, runs_of
from geonb.claims.planning import plan_batch
from geonb.claims.register import load_claims
from geonb.errors import InputError
from tests.claims.checkout import add_notebook, checkout, notebook, register, row, verifying

MODEL = 'profile = "smoke"\nmodel = ""\nvalue = 0.7'


def plan(root, *ids, **options):
    options = {"profile": "smoke", **options}
    return plan_batch(ids, register=load_claims(root / "papers" / "claims.toml"), root=root, **options)


def never_starts(papers, said, *ids, **options):
    """The batch is refused with `said` in its sentence, before a folder or an event."""
    folder = papers.parent / "out"
    with pytest.raises(InputError) as told:
        next(claim_events(ids, papers=papers, **{"output": folder, **options}))
    assert said in str(told.value) and "\x1b" not in str(told.value)
    assert not folder.exists()


def two(tmp_path, **bad):
    """A sound notebook before one that is not."""
    return checkout(tmp_path, good=notebook(verifying("good")), **bad)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"jobs": 0}, "jobs was given 0; allowed is 1 or more"),
        ({"timeout": 0}, "the time-out was given 0 s; allowed is any number above 0"),
        ({"timeout": float("nan")}, "the time-out was given nan s"),
        ({"profile": "quick\x1b[2J"}, "2J' was given; allowed are smoke and full"),
        ({"model": "embedded"}, "no notebook of good (notebooks/claims/good.ipynb) has a parameter 'model'"),
    ],
)
def test_a_wrong_option_is_told_before_anything_starts(tmp_path, options, said):
    never_starts(two(tmp_path), said, **options)


def test_a_model_that_cannot_be_opened_is_told_with_who_asked_for_it(tmp_path):
    add_notebook(tmp_path, "one", notebook(verifying("one"), parameters=MODEL))
    papers = register(tmp_path, row("one", full={"profile": "full", "model": "no/such/registered/folder"}))
    never_starts(papers, "--model: no/such/folder/at/all does not exist", model="no/such/folder/at/all")
    said = "one (notebooks/claims/one.ipynb): no/such/registered/folder does not exist"
    never_starts(papers, said, profile="full")


def test_an_unknown_claim_is_told(tmp_path):
    never_starts(two(tmp_path), "the claim 'goo' was given; the register has good", "good", "goo")


def test_a_missing_notebook_is_told_though_it_is_the_last(tmp_path):
    papers = two(tmp_path, bad=notebook(verifying("bad")))
    (tmp_path / "notebooks/claims/bad.ipynb").unlink()
    never_starts(papers, "bad.ipynb is not a file")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (notebook("print(1)"), "calls no `claims.verify`: a notebook must judge"),
        (notebook(verifying("other")), "the notebook judges other, and the register has it judge bad"),
        (notebook(verifying("bad"), parameters="n = 1"), "was given the parameter 'profile'; its notebook has n."),
        (
            notebook(verifying("bad"), parameters="profile = 3"),
            "for the parameter 'profile'; allowed is a whole number",
        ),
        ({**notebook(), "cells": []}, "has 0 cells with the tag 'parameters'"),
    ],
)
def test_a_notebook_that_cannot_be_run_as_registered_is_told(tmp_path, data, said):
    never_starts(two(tmp_path, bad=data), said)


def test_a_registered_parameter_of_the_wrong_type_is_told(tmp_path):
    add_notebook(tmp_path, "one", notebook(verifying("one"), parameters='profile = "smoke"\nn = 3'))
    papers = register(tmp_path, row("one", smoke={"profile": "smoke", "n": 0.5}))
    never_starts(
        papers, "one (notebooks/claims/one.ipynb) was given 0.5 for the parameter 'n'; allowed is a whole number"
    )


def test_an_empty_register_is_told(tmp_path):
    checkout(tmp_path, one=notebook(verifying("one")))
    (tmp_path / "papers/claims.toml").write_text("claim = []\n")
    with pytest.raises(InputError):
        plan(tmp_path)


def test_a_folder_that_is_no_batch_or_another_one_is_left_alone(tmp_path):
    papers = two(tmp_path)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else than a batch"):
        run_claims(papers=papers, output=mine)
    with pytest.raises(InputError, match="is a file; allowed is a folder"):
        run_claims(papers=papers, output=mine / "notes.txt")
    with pytest.raises(InputError, match="is no folder of a batch"):
        runs_of(mine)
    (mine / "notes.txt").unlink()
    (mine / "batch.json").write_text(json.dumps({"profile": "full", "model": ""}))
    with pytest.raises(
        InputError, match="holds a batch of the profile full and each notebook's own model, and smoke with"
    ):
        run_claims(papers=papers, output=mine)


def test_the_model_goes_to_the_notebooks_that_have_one_and_the_others_are_told(tmp_path):
    checkout(
        tmp_path, plain=notebook(verifying("plain")), with_model=notebook(verifying("with-model"), parameters=MODEL)
    )
    found = plan(tmp_path, model="embedded")
    with_model, without = sorted(found.runs, key=lambda run: -len(run.model))
    assert with_model.parameters == {"profile": "smoke", "model": "embedded"} and len(with_model.model_hash) == 64
    assert without.parameters == {"profile": "smoke"} and without.model_hash == ""
    assert found.notes == (
        "plain (notebooks/claims/plain.ipynb): it has no parameter 'model', and runs as registered.",
    )
    assert plan(tmp_path, "with-model").runs[0].model == ""


def test_a_model_in_a_folder_is_handed_over_by_its_whole_path(tmp_path, tmp_path_factory, monkeypatch):
    from tests.tiny import tiny_model

    model = tiny_model(tmp_path_factory)
    checkout(tmp_path, one=notebook(verifying("one"), parameters=MODEL))
    monkeypatch.chdir(model.parent)
    (run,) = plan(tmp_path, model=model.name).runs
    assert run.parameters["model"] == str(model.resolve())
    # another model is another result
    assert run.key != plan(tmp_path, model="embedded").runs[0].key


def test_one_notebook_with_two_sets_of_parameters_is_run_twice_under_two_names(tmp_path):
    parameters = 'profile = "smoke"\nname = ""\nvalue = 0.7'
    source = "from geonb import claims\nclaims.verify(name, [claims.Check.of('r', value, '>=', 0.5)], profile=profile)"
    add_notebook(tmp_path, "shared", notebook(source, parameters=parameters))
    register(tmp_path, *(row(name, "shared", smoke={"profile": "smoke", "name": name}) for name in ("a", "b")))
    assert [(run.name, run.ids) for run in plan(tmp_path).runs] == [
        ("claims/shared--a", ("a",)),
        ("claims/shared--b", ("b",)),
    ]
    assert [run.ids for run in plan(tmp_path, "b").runs] == [("b",)]
