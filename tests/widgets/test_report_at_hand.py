"""A report draws spectra of a model that lies on this machine, in a folder or in the hub's cache, and fetches none."""

import json
import shutil
import socket

import pytest

from geonb.widgets import write_report
from tests.tiny import tiny_model, tiny_run


@pytest.fixture
def run(tmp_path, tmp_path_factory, monkeypatch):
    """A run of the model owner/name, an empty cache of the hub, and no network."""
    run = shutil.copytree(tiny_run(tmp_path_factory), tmp_path / "run")
    plan = json.loads((run / "plan.json").read_text())
    plan["model"]["source"] = "owner/name"
    (run / "plan.json").write_text(json.dumps(plan))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def refuse(*given, **named):
        pytest.fail(f"the network was asked for {given}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)
    return run


def test_a_model_that_is_not_here_is_told_of_and_not_fetched(run):
    page = write_report(run).read_text(encoding="utf-8")
    assert (
        "The spectra are left out: the plan&#x27;s model owner/name is neither a folder here nor in the hub&#x27;s cache"
        in page
    )
    assert "Singular values" not in page


def test_a_model_in_the_cache_of_the_hub_is_drawn(run, tmp_path, tmp_path_factory):
    kept = tmp_path / "hub" / "models--owner--name"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    shutil.copytree(tiny_model(tmp_path_factory), kept / "snapshots" / ("0" * 40))
    page = write_report(run).read_text(encoding="utf-8")
    assert "Singular values" in page and "left out" not in page


@pytest.mark.parametrize("source", ["../x/y/z", "~nobody-here/x", "a" * 5000, "a\0b", "", "owner/name/x"])
def test_a_name_that_no_model_has_is_told_of(run, source):
    plan = json.loads((run / "plan.json").read_text())
    plan["model"]["source"] = source
    (run / "plan.json").write_text(json.dumps(plan))
    assert "The spectra are left out: " in write_report(run).read_text(encoding="utf-8")
