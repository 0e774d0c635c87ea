"""The commands as a shell calls them: one JSON document, exit codes, one-sentence errors."""

import json
import subprocess
import sys

import pytest

from geonb.cli.app import main
from geonb.train import RunFolder


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as leave:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return leave.value.code, captured.out, captured.err


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "sums.jsonl"
    rows = [{"text": f"{i} apples and {i % 17} pears make {i + i % 17} pieces."} for i in range(200)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    from tests.families import write_tiny

    return write_tiny("llama", tmp_path_factory.mktemp("tiny"))


def test_help_teaches_every_group(capsys):
    for arguments in ([], ["--help"], ["model"], ["train"], ["train", "run", "--help"], ["demo", "--help"]):
        code, out, _ = call(capsys, *arguments)
        assert code == 0 and "Usage" in out


def test_train_run_leaves_a_verified_run_and_one_json_document(capsys, tiny, data, tmp_path):
    folder = tmp_path / "run"
    code, out, _ = call(capsys, "train", "run", "-m", tiny, "-d", data, "-o", folder, "--max-steps", 10, "--json")
    result = json.loads(out)
    assert code == 0 and result["verification"]["verdict"] == "passed" and result["stop"]["reason"] == "horizon"
    assert out.count("\n") == 1
    report = (folder / "report.html").read_text()
    assert "<svg" in report and "http://" not in report.replace("http://www.w3.org/2000/svg", "")
    code, out, _ = call(capsys, "train", "status", folder, "--json")
    assert code == 0 and json.loads(out)["state"] == "done"
    code, _, error = call(capsys, "train", "run", "-m", tiny, "-d", data, "-o", folder)
    assert code == 2 and "exists; allowed is a new or empty folder" in error
    code, out, _ = call(capsys, "train", "run", "--resume", "-o", folder, "--json")
    assert code == 0 and json.loads(out) == result


def test_plan_only_writes_nothing_and_explains(capsys, tiny, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capsys, "train", "run", "-m", tiny, "-d", data, "--plan-only")
    assert code == 0 and "learning rate" in out and "frank-wolfe" in out
    assert not list(tmp_path.iterdir())
    code, first, _ = call(capsys, "plan", "-m", tiny, "-d", data, "--json")
    code, second, _ = call(capsys, "plan", "-m", tiny, "-d", data, "--json")
    assert first == second and len(json.loads(first)["derivations"]) == 15


def test_a_failed_gate_exits_with_1(capsys, tiny, data, tmp_path, monkeypatch):
    import geonb.train.execute as execute

    real = execute.verify

    def failing(*arguments):
        import dataclasses

        return dataclasses.replace(real(*arguments), verdict="failed")

    monkeypatch.setattr(execute, "verify", failing)
    code, _, _ = call(capsys, "train", "run", "-m", tiny, "-d", data, "-o", tmp_path / "r", "--max-steps", 2, "--json")
    assert code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model", "info", "/no/where"], "does not exist; allowed are a model's folder"),
        (["model", "info"], "Missing argument 'MODEL'. Try `geonb model info --help`."),
        (["train", "run", "-m", "embedded"], "--data is missing; `train run` needs -m MODEL -d FILE"),
        (["train", "run", "--resume"], "--resume needs the run to go on with; give its folder with -o"),
        (["train", "run", "--explain", "--plan-only"], "--explain and --plan-only exclude each other"),
        (["train", "run", "--no-save", "-o", "x"], "--no-save and --output exclude each other"),
        (["train", "run", "--resume", "--overwrite", "-o", "x"], "--resume and --overwrite exclude each other"),
        (["train", "status", "/no/run"], "holds no plan.json"),
        (
            ["plan", "-m", "embedded", "-d", "embedded:kjv", "--max-steps", "5", "--epochs", "1"],
            "give only one of them",
        ),
        (["plan", "-m", "embedded", "-d", "embedded:kjv", "--controller", "sgd"], "allowed are"),
        (["plan", "-m", "embedded", "-d", "/no/data.jsonl"], "is not a file; the data is a JSONL file"),
        (["train", "run", "-m", "embedded", "-d", "x", "--benchmark", "quick"], "measures no task suites"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_and_exits_with_2(capsys, arguments, message):
    code, out, error = call(capsys, *arguments)
    assert code == 2 and message in error and out == ""
    assert error.strip().count("\n") == 0 and "Traceback" not in error


def test_importing_geonb_loads_numpy_and_nothing_heavier():
    heavy = "torch scipy transformers jax mlx plotly panel peft IPython pandas typer".split()
    code = f"import geonb, sys; print([name for name in {heavy!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_package_list_is_the_tree():
    import tomllib
    from pathlib import Path

    root = Path(__file__).parents[2]
    listed = set(tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    tree = {".".join(path.parent.relative_to(root).parts) for path in (root / "geonb").rglob("__init__.py")}
    views = {
        ".".join(("geonb", *path.parent.relative_to(root).parts)) for path in (root / "widgets").rglob("__init__.py")
    }
    assert listed == tree | views


def test_the_demo_runs_end_to_end(capsys, tmp_path):
    folder = tmp_path / "demo"
    code, out, error = call(capsys, "demo", "-o", folder, "--max-steps", 3)
    assert "The fifteen" in error and "report.html" in error and "task loss" in out
    assert code in (0, 1) and RunFolder.open(folder).report_path.is_file()
