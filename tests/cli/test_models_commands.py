"""`model list|add|delete|search` as a shell calls them; what deletes asks first."""

import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from geonb.cli import models as group
from geonb.errors import InputError
from geonb.models import registry
from tests import tiny

app = typer.Typer()
app.command("list")(group.list_models)
app.command("add")(group.add)
app.command("delete")(group.delete)
app.command("search")(group.search)


def call(*arguments, answers=None):
    return CliRunner().invoke(app, list(map(str, arguments)), input=answers)


@pytest.fixture(autouse=True)
def model(tmp_path, tmp_path_factory, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setenv("GEONB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return Path(shutil.copytree(tiny.tiny_model(tmp_path_factory), tmp_path / "tiny"))


@pytest.fixture
def at_a_terminal(monkeypatch):
    """The commands ask only where somebody can answer; the runner's input stands for a person."""
    monkeypatch.setattr("geonb.cli.models.sys", type("Sys", (), {"stdin": type("In", (), {"isatty": lambda: True})}))


def names():
    return [found["name"] for found in json.loads(call("list", "--json").stdout)["models"]]


def test_a_model_is_added_listed_found_and_forgotten(model):
    assert "no model registered or in the cache" in call("list").stdout
    added = call("add", "tiny-one", model)
    assert added.exit_code == 0 and "LlamaForCausalLM" in added.stdout
    assert names() == ["tiny-one"]
    (found,) = json.loads(call("search", "TINY", "--json").stdout)["models"]
    assert found["folder"] == str(model) and found["is_there"]
    gone = call("delete", "tiny-one")
    assert "deleted the name tiny-one" in gone.stdout and "its folder stays" in gone.stdout
    assert names() == [] and model.is_dir()


def test_files_are_deleted_after_a_yes_and_stay_after_a_no(model, at_a_terminal):
    call("add", "mine", model)
    refused = call("delete", "mine", "--files", answers="n\n")
    assert refused.exit_code == 1 and model.is_dir() and names() == ["mine"]
    done = call("delete", "mine", "--files", answers="y\n")
    assert done.exit_code == 0 and "with everything in it?" in done.output
    assert not model.exists() and names() == []


def test_files_are_deleted_without_asking_only_with_yes(model):
    call("add", "mine", model)
    for arguments in (["--files"], ["--files", "--json"]):
        told = call("delete", "mine", *arguments)
        assert isinstance(told.exception, InputError) and "add --yes if you mean it" in str(told.exception)
    assert model.is_dir()
    gone = json.loads(call("delete", "mine", "--files", "--yes", "--json").stdout)
    assert gone["files_deleted"] and gone["bytes_freed"] > 0 and not model.exists()


def test_embedded_is_never_deleted():
    told = call("delete", "embedded", "--files", "--yes")
    assert "embedded is the model that geonb ships" in str(told.exception)


def test_a_name_that_is_taken_moves_with_overwrite(model, tmp_path):
    other = Path(shutil.copytree(model, tmp_path / "other"))
    call("add", "mine", model)
    assert "the name mine is taken" in str(call("add", "mine", other).exception)
    assert call("add", "mine", other, "--overwrite").exit_code == 0
    assert registry.folder_of("mine") == other
