"""Names for models: what is listed is what lies there, nothing is lost between processes, nothing too much is deleted."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from geonb.errors import InputError
from geonb.models import Checkpoint, registry
from geonb.models.cache import cache_folder
from tests import tiny
from tests.families import write_tiny


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """A cache and a Hugging Face cache of the test's own."""
    from huggingface_hub import constants

    monkeypatch.setenv("GEONB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.fixture
def model(tmp_path_factory, tmp_path):
    """A copy of the tiny model that a test may delete."""
    return Path(shutil.copytree(tiny.tiny_model(tmp_path_factory), tmp_path / "models" / "tiny"))


def in_hub_cache(root, folder, name, revision, *, main=False):
    """Lay `folder` into a Hugging Face cache as the hub's client does: blobs, and links to them."""
    place = root / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = place / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (place / "blobs").mkdir(exist_ok=True)
    (place / "refs").mkdir(exist_ok=True)
    for path in folder.iterdir():
        blob = place / "blobs" / f"{revision}-{path.name}"
        shutil.copyfile(path, blob)
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    if main:
        (place / "refs" / "main").write_text(revision)
    return snapshot


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_a_name_is_listed_with_what_the_checkpoint_says(tmp_path, family):
    folder = write_tiny(family, tmp_path / family)
    known = registry.add("mine", folder)
    checkpoint = Checkpoint.open(folder)
    assert registry.list_models().models == (known,)
    assert (known.architecture, known.parameters) == (checkpoint.architecture, checkpoint.parameters)
    assert known.bytes_on_disk == sum(path.stat().st_size for path in folder.iterdir())
    assert known.is_there and known.problem == "" and known.place == "registered"
    assert registry.folder_of("mine") == folder.resolve()
    text = registry.list_models().to_text()
    assert "mine" in text and f"{checkpoint.parameters:,}" in text and str(folder) in text


@pytest.mark.parametrize(
    "name", ["", "embedded", "Embedded", "a/b", "../up", ".hidden", "-flag", "a b", "ü", "x" * 65, "a\n"]
)
def test_names_that_could_be_taken_for_something_else_are_refused(model, name):
    with pytest.raises(InputError, match="allowed are 1 to 64 letters, digits"):
        registry.add(name, model)
    assert registry.folder_of(name) is None


def test_only_a_folder_that_opens_as_a_checkpoint_is_added(tmp_path, model):
    with pytest.raises(InputError, match="is not a folder; a name is given to a local model"):
        registry.add("mine", tmp_path / "absent")
    (model / "model.safetensors").write_bytes(b"short")
    with pytest.raises(InputError, match="is not a whole safetensors file"):
        registry.add("mine", model)
    assert registry.list_models().models == ()


def test_a_taken_name_is_moved_only_on_request(tmp_path, model):
    other = write_tiny("llama", tmp_path / "other")
    registry.add("mine", model)
    registry.add("mine", model)
    with pytest.raises(InputError, match=r"the name mine is taken by .*: choose another, or --overwrite"):
        registry.add("mine", other)
    assert registry.folder_of("mine") == model.resolve()
    registry.add("mine", other, overwrite=True)
    assert registry.folder_of("mine") == other.resolve()


def test_a_folder_that_is_gone_is_listed_as_gone_and_not_opened(model):
    registry.add("mine", model)
    shutil.rmtree(model)
    (known,) = registry.list_models().models
    assert not known.is_there and known.bytes_on_disk is None and "is gone" in known.problem
    with pytest.raises(InputError, match="which is gone: add it again, or `geonb model delete mine`"):
        registry.folder_of("mine")
    assert registry.delete("mine").files_deleted is False
    assert registry.list_models().models == ()


def test_a_name_is_deleted_and_the_folder_stays(model):
    registry.add("mine", model)
    before = sorted(model.iterdir())
    assert registry.delete("mine").bytes_freed == 0
    assert sorted(model.iterdir()) == before and registry.folder_of("mine") is None
    with pytest.raises(InputError, match="no model is registered as 'mine'; there are none"):
        registry.delete("mine")
    with pytest.raises(InputError, match="embedded is the model that geonb ships; it cannot be deleted"):
        registry.delete("embedded", files=True)


def test_files_are_deleted_with_the_folder_and_links_are_not_followed(tmp_path, model):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "dear.txt").write_text("keep")
    (model / "folder").symlink_to(outside, target_is_directory=True)
    (model / "file").symlink_to(outside / "dear.txt")
    size = sum(path.stat().st_size for path in model.iterdir() if not path.is_symlink())
    registry.add("mine", model)
    gone = registry.delete("mine", files=True)
    assert gone.files_deleted and gone.bytes_freed == size
    assert not model.exists() and (outside / "dear.txt").read_text() == "keep"
    assert model.parent.is_dir()


def test_files_that_are_not_the_models_alone_stay(tmp_path, monkeypatch, model):
    registry.add("mine", model)
    folder = model.resolve()

    def refused(why):
        with pytest.raises(InputError, match=f"{why}, so its files are not deleted"):
            registry.delete("mine", files=True)
        assert registry.folder_of("mine") == folder and (model / "config.json").exists()

    with monkeypatch.context() as patch:
        patch.setenv("HOME", str(model))
        refused("holds the home folder")
    with monkeypatch.context() as patch:
        (model / "work").mkdir()
        patch.chdir(model / "work")
        refused("holds the working folder")
    registry.add("again", model)
    refused("is shared with another registered name")
    registry.delete("again")
    inner = Path(shutil.copytree(tiny_files(model), model / "inner"))
    registry.add("inner", inner)
    refused("is shared with another registered name")
    registry.delete("inner")
    moved = model.rename(tmp_path / "moved")
    model.symlink_to(moved, target_is_directory=True)
    refused("is reached through a link now")
    model.unlink()
    moved.rename(model)
    (model / "config.json").rename(model / "other.json")
    with pytest.raises(InputError, match=r"holds no config\.json any more"):
        registry.delete("mine", files=True)


def tiny_files(model):
    """The model's own files, in a folder beside it."""
    place = model.parent / "plain"
    place.mkdir()
    for path in model.iterdir():
        if path.is_file():
            shutil.copy(path, place)
    return place


def test_models_of_the_hugging_face_cache_are_listed_and_never_deleted(places, model):
    in_hub_cache(places, model, "someone/small", "a" * 40)
    snapshot = in_hub_cache(places, model, "someone/small", "b" * 40, main=True)
    (known,) = registry.list_models().models
    assert (known.name, known.place, known.folder) == ("someone/small", "Hugging Face cache", str(snapshot))
    assert known.parameters == Checkpoint.open(model).parameters
    assert known.bytes_on_disk == sum(path.stat().st_size for path in model.iterdir())
    assert registry.list_models(cached=False).models == ()
    registry.add("mine", snapshot)
    with pytest.raises(InputError, match="belongs to the Hugging Face cache"):
        registry.delete("mine", files=True)
    assert Checkpoint.open(registry.folder_of("mine")).parameters == known.parameters


def test_what_cannot_be_read_is_told_not_raised(places, model):
    in_hub_cache(places, model, "someone/broken", "a" * 40, main=True)
    for path in (places / "hub").rglob("*-config.json"):
        path.write_text("[]")
    (places / "hub" / "models--odd").mkdir()
    listed = registry.list_models()
    (known,) = listed.models
    assert "config.json cannot be read" in known.problem and known.parameters is None
    assert listed.notes == ("1 entries of the Hugging Face cache are damaged and not shown",)


def test_search_looks_in_all_names_whatever_their_case(places, model):
    registry.add("My-Tiny", model)
    in_hub_cache(places, model, "someone/tiny-model", "a" * 40, main=True)
    assert [found.name for found in registry.search("TINY").models] == ["My-Tiny", "someone/tiny-model"]
    assert registry.search("someone").models[0].place == "Hugging Face cache"
    assert "no model with 'absent' in its name" in registry.search("absent").to_text()
    with pytest.raises(InputError, match="an empty text was given"):
        registry.search(" ")


def test_search_on_the_hub_without_a_network_is_one_sentence(tmp_path):
    code = """
        from geonb.errors import InputError
        from geonb.models import registry
        try:
            registry.search("llama", hub=True)
        except InputError as error:
            print(error)
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.startswith("the hub did not answer (") and said.strip().count("\n") == 0
    assert said.strip().endswith("check the network, or search without --hub.")


@pytest.mark.slow
def test_processes_that_add_at_once_lose_nothing(model):
    code = """
        import sys
        from geonb.models import registry
        for count in range(10):
            registry.add(f"{sys.argv[1]}-{count}", sys.argv[2])
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    running = [subprocess.Popen([*command, f"p{number}", str(model)]) for number in range(3)]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    names = [found.name for found in registry.list_models().models]
    assert names == sorted(f"p{number}-{count}" for number in range(3) for count in range(10))


@pytest.mark.parametrize(
    "content", ["", "[]", '{"models": []}', '{"models": {"a": {}}}', '{"models": {"../a": {"folder": "/"}}}']
)
def test_a_damaged_list_is_named_and_left_as_it_is(model, content):
    path = cache_folder() / "models.json"
    path.parent.mkdir()
    path.write_text(content)
    for call in (registry.list_models, lambda: registry.add("mine", model), lambda: registry.folder_of("mine")):
        with pytest.raises(InputError, match=r"models\.json is not a list of models that geonb wrote"):
            call()
    assert path.read_text() == content


def test_hostile_text_reaches_neither_terminal_nor_page(places, model):
    config = json.loads((model / "config.json").read_text())
    registry.add("mine", model)
    (model / "config.json").write_text(json.dumps({**config, "architectures": ["\x1b[2J<script>"]}))
    listed = registry.list_models()
    assert "\x1b" not in listed.to_text() and "\\x1b[2J<script>" in listed.to_text()
    assert "<script>" not in listed.to_html()


def test_records_survive_json(model):
    registry.add("mine", model)
    listed = registry.list_models()
    assert registry.KnownModels.from_json(listed.to_json()) == listed
