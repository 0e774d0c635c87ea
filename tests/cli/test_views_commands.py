"""The commands that look - spectra, compare, audit, stop, dashboard - as a shell calls them."""

import contextlib
import json
import os
import shutil
import socket
import time
import xml.etree.ElementTree as tree

import pytest

from geonb.adapters.audit import AdapterAudit
from geonb.cli.app import main
from geonb.models import ModelSpectra
from geonb.train import RunsCompared
from geonb.train.run_folder import RunFolder
from tests import tiny


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as leave:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return leave.value.code, captured.out, captured.err


def refused(capsys, *arguments):
    """The one sentence of a command whose input is wrong."""
    code, out, error = call(capsys, *arguments)
    assert code == 2 and out == ""
    assert error.startswith("geonb: ") and error.strip().count("\n") == 0, error
    return error


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.tiny_model(tmp_path_factory)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny.tiny_run(tmp_path_factory, 4)


@pytest.fixture(scope="module")
def shorter(tmp_path_factory):
    return tiny.tiny_run(tmp_path_factory, 2)


@pytest.fixture
def port():
    """A port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_served(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


# -- spectra ---------------------------------------------------------------------------------------------------------


def test_spectra_are_one_json_document(capsys):
    code, out, _ = call(capsys, "spectra", "embedded", "--json")
    assert code == 0 and out.count("\n") == 1
    record = ModelSpectra.from_dict(json.loads(out))
    assert record.source == "embedded" and len(record.matrices) == 29
    assert json.loads(call(capsys, "spectra", "embedded", "--json")[1]) == json.loads(out), (
        "and from the cache the same"
    )


def test_spectra_are_a_table_for_a_person(capsys, model):
    code, out, _ = call(capsys, "spectra", model)
    assert code == 0 and "sigma_max" in out and out.count("model.layers.") == 14
    assert "model.layers.1.mlp.down_proj.weight" in out


def test_spectra_are_drawn_as_well_formed_svg(capsys, model, tmp_path):
    target = tmp_path / "map.svg"
    code, out, _ = call(capsys, "spectra", model, "--json", "--picture", target)
    assert code == 0 and json.loads(out)["matrices"]
    root = tree.fromstring(target.read_bytes())
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and "down_proj" in " ".join(root.itertext()) + out
    assert not [part for part in root.iter() if part.tag.endswith(("script", "image"))]
    assert list(tmp_path.iterdir()) == [target]


def test_a_picture_that_cannot_be_written_is_said_with_the_path_that_was_given(capsys, model, tmp_path):
    target = tmp_path / "nowhere" / "map.svg"
    error = refused(capsys, "spectra", model, "--json", "--picture", target)
    assert str(target) in error


def test_spectra_of_nonsense_are_refused(capsys):
    assert "does not exist; allowed are a model's folder" in refused(capsys, "spectra", "/no/such/model")


# -- runs ------------------------------------------------------------------------------------------------------------


def test_a_finished_run_is_not_stopped(capsys, run, tmp_path):
    assert "is not training" in refused(capsys, "stop", run) and not (run / "stop").exists()
    assert "holds no plan.json" in refused(capsys, "stop", tmp_path)
    assert "no run is training in this process" in refused(capsys, "stop")


def test_a_run_that_trains_is_asked_to_stop(capsys, run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    status = json.loads((folder / "status.json").read_text())
    now = {"state": "training", "step": 3, "process": os.getpid(), "updated": time.time()}
    (folder / "status.json").write_text(json.dumps({**status, **now}))
    with RunFolder(folder).held():
        code, out, _ = call(capsys, "stop", folder)
        assert code == 0 and "after step 3" in out and f"--resume -o {folder}" in out and (folder / "stop").exists()
        code, out, _ = call(capsys, "stop", folder, "--json")
    assert json.loads(out) == {"folders": [str(folder)], "steps": [3]}


def test_runs_are_compared_in_text_and_in_one_json_document(capsys, run, shorter):
    code, out, _ = call(capsys, "train", "compare", run, shorter)
    assert code == 0 and "2 runs compared" in out and "steps-2 minus steps-4" in out
    code, out, _ = call(capsys, "train", "compare", run, shorter, "--json")
    assert code == 0 and out.count("\n") == 1
    compared = RunsCompared.from_dict(json.loads(out))
    assert [facts.label for facts in compared.runs] == ["steps-4", "steps-2"]
    assert [pair.quantity for pair in compared.pairs] == ["task", "retention"]


def test_one_run_is_no_comparison(capsys, run):
    assert "allowed are two or more" in refused(capsys, "train", "compare", run)


def test_folders_that_are_no_runs_are_told_in_the_comparison(capsys, run, tmp_path):
    code, out, _ = call(capsys, "train", "compare", run, tmp_path)
    assert code == 0 and "holds no plan.json" in out and "not comparable" in out


# -- adapters --------------------------------------------------------------------------------------------------------


def test_the_adapter_of_a_run_is_audited_against_its_base(capsys, run, model):
    code, out, _ = call(capsys, "adapter", "audit", run / "adapter")
    assert code == 0 and "||dW||_2" in out and "model.layers.1.mlp.down_proj" in out
    code, out, _ = call(capsys, "adapter", "audit", run / "adapter", "--base", model, "--json")
    audit = AdapterAudit.from_dict(json.loads(out))
    assert code == 0 and out.count("\n") == 1 and len(audit.layers) == 14
    # geonb trains inside the ball of sigma_max
    assert audit.scale_verdict == "inside" and audit.base == str(model)


def test_what_is_no_adapter_is_refused(capsys, run, tmp_path):
    for nonsense in (tmp_path, tmp_path / "no", run / "plan.json"):
        assert "holds no adapter_config.json" in refused(capsys, "adapter", "audit", nonsense, "--json")
    error = refused(capsys, "adapter", "audit", run / "adapter", "--base", "/no/such/base", "--json")
    assert "does not exist" in error


# -- the dashboard ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0, -1, 65536])
def test_a_port_that_is_none_is_refused(capsys, bad):
    assert "allowed is a port from 1 to 65535" in refused(capsys, "dashboard", "embedded", "--port", bad)


def test_a_port_that_is_taken_is_refused(capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        error = refused(capsys, "dashboard", "embedded", "--port", taken)
    assert f"port {taken} cannot be used" in error and "--port" in error


@pytest.mark.parametrize("origin", ["*", "*:5006", "http://127.0.0.1:5006", "host/path"])
def test_an_origin_that_would_let_others_in_is_refused(capsys, port, origin):
    error = refused(capsys, "dashboard", "embedded", "--port", port, "--origin", origin)
    assert "allowed is one HOST:PORT" in error and not is_served(port)


def test_a_folder_with_neither_runs_nor_a_model_is_refused(capsys, port, tmp_path):
    error = refused(capsys, "dashboard", tmp_path, "--port", port)
    assert "neither a run (plan.json) nor a model (config.json)" in error and not is_served(port)


def test_a_model_that_does_not_exist_is_refused(capsys, port):
    error = refused(capsys, "dashboard", "/no/such/model", "--port", port)
    assert "does not exist; allowed are a model's folder" in error and not is_served(port)


def test_data_that_does_not_exist_is_refused(capsys, port, model):
    error = refused(capsys, "dashboard", model, "-d", "/no/data.jsonl", "--port", port)
    assert "/no/data.jsonl is not a file" in error and not is_served(port)


def test_a_dashboard_of_nothing_is_refused(capsys):
    assert "Missing argument" in refused(capsys, "dashboard")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["spectra"], ["sigma_max, sigma_k, k, tail", "--picture"]),
        (["stop"], ["stop at its next step", "checkpoint"]),
        (["train", "compare"], ["Hold runs, adapters or saved evaluations", "paired intervals"]),
        (["adapter", "audit"], ["random adapter of the same size", "beyond"]),
        (["adapter"], ["audit"]),
        (["dashboard"], ["models, plans, runs and claims in a browser", "127.0.0.1 only", "ssh -L"]),
        ([], ["spectra", "stop", "dashboard", "adapter"]),
    ],
)
def test_help_says_what_a_command_does(capsys, command, words):
    code, out, _ = call(capsys, *command, "--help")
    text = " ".join(out.split())
    assert code == 0 and not [word for word in words if word not in text]
