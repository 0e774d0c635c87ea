"""The magics, in a real IPython shell in this process."""

import contextlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from geonb.cli.live import TrainingJob, running_jobs
from geonb.errors import GeonbError, InputError
from geonb.magics import complete
from geonb.models import ModelCapacity, ModelInfo, ModelSpectra
from geonb.plan import Plan
from geonb.train import Run, RunFolder
from geonb.widgets.mass_trace import MassTrace
from tests import tiny


@pytest.fixture(scope="module")
def shell():
    found = InteractiveShell.instance()
    found.run_line_magic("load_ext", "geonb")
    yield found
    found.run_line_magic("unload_ext", "geonb")
    InteractiveShell.clear_instance()


def test_a_command_returns_its_record_and_prints_nothing(shell, capsys):
    info = shell.run_line_magic("geonb", "model info embedded")
    assert isinstance(info, ModelInfo) and info.layers == 4
    assert capsys.readouterr().out == ""


def test_out_binds_the_record(shell):
    shell.run_line_magic("geonb", "model capacity embedded --sort-by recommended-rank --out room")
    room = shell.user_ns["room"]
    assert isinstance(room, ModelCapacity)
    ranks = [matrix.recommended_rank for matrix in room.matrices]
    assert ranks == sorted(ranks, reverse=True)


def test_a_cell_of_records_is_the_data(shell):
    rows = "\n".join(json.dumps({"text": f"number {i} comes before number {i + 1}"}) for i in range(170))
    plan = shell.run_cell_magic("geonb", "plan -m embedded --max-steps 3", rows)
    assert isinstance(plan, Plan) and plan.data["n_examples"] == 170


def test_a_cell_of_toml_is_the_options(shell):
    plan = shell.run_cell_magic(
        "geonb",
        "train run --plan-only",
        'model = "embedded"\ndata = "embedded:kjv"\nmax_steps = 5\ndim_monitor = true\n',
    )
    assert plan.horizon["steps"] == 5 and plan.options["dim_monitor"] is True


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("model info /no/such/place", "does not exist; allowed are a model's folder"),
        ("model nonsense", "No such command"),
        ("plan -m embedded", "Missing option"),
        ("model info embedded --out 3x", "needs the name of a variable"),
        ("model info 'embedded", "the line cannot be read .No closing quotation.: check its quotes"),
        ("stop", "no run is training in this process: give the folder of the run to stop"),
    ],
)
def test_errors_are_one_line_without_a_traceback(shell, line, message):
    with pytest.raises(UsageError, match=message) as caught:
        shell.run_line_magic("geonb", line)
    assert "\n" not in str(caught.value).strip()


def test_a_cell_that_is_neither_is_refused(shell):
    with pytest.raises(UsageError, match="neither JSONL records nor TOML"):
        shell.run_cell_magic("geonb", "plan -m embedded", "what is this")


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ("a = " + "[" * 20_000, r"neither JSONL records nor TOML options \(maximum recursion depth exceeded"),
        ("a = " + "9" * 5000, r"neither JSONL records nor TOML options \(Exceeds the limit"),
        ("a = 0x" + "f" * 5000, "the cell's option a is a number of thousands of digits: correct it"),
        ("a." * 20_000 + "b = 1", r"neither JSONL records nor TOML options \(a key of more than 20 parts\)"),
        ("x = {" + "'a'." * 30 + "b = 1}", "a key of more than 20 parts"),
        ('{"text": "\ud800"}', "no Unicode text at position 10: mend it"),
        ('x = "\ud800"', "no Unicode text at position 5: mend it"),
    ],
    ids=[
        "brackets",
        "digits",
        "hexadecimal",
        "a long key",
        "a long key in a table",
        "half a character",
        "the same in TOML",
    ],
)
def test_a_hostile_cell_is_refused_in_one_line(shell, cell, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        shell.run_cell_magic("geonb", "plan -m embedded", cell)
    assert "\n" not in str(caught.value).strip() and len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["a.b" * 40, "# " + "a." * 40, '"""' + "a." * 40])
def test_dots_inside_a_string_or_a_comment_are_no_key(shell, text):
    with pytest.raises(UsageError) as caught:
        shell.run_cell_magic("geonb", "plan -m embedded", f"seed = 'x'\noutput = '{text}'\n# {text}\n")
    assert "parts" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "offered"),
    [("%geonb ", {"model", "plan", "train", "demo"}), ("%geonb model c", {"capacity", "info"}),
     ("%geonb model capacity --", {"--sort-by", "--json", "embedded"})],
)  # fmt: skip
def test_completion_offers_groups_commands_and_flags(shell, line, offered):
    assert offered <= set(complete(shell, SimpleNamespace(line=line)))


def test_help_is_there_for_the_question_mark(shell):
    found = shell.object_inspect("%geonb")
    assert found["found"] and "JSONL records" in found["docstring"]


# -- a run behind the cell -----------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder; whatever still trains when the test is over is stopped."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for job in running_jobs():
        with contextlib.suppress(OSError, GeonbError):
            job.stop().result(60)


@pytest.fixture
def options(tmp_path_factory):
    return tiny.options(tmp_path_factory)


@pytest.fixture
def old(here, tmp_path_factory):
    """A finished run of four steps in `old`."""
    return shutil.copytree(tiny.tiny_run(tmp_path_factory), here / "old")


def refused(shell, line, cell):
    with pytest.raises(UsageError) as caught:
        shell.run_cell_magic("geonb", f"train {line}", cell)
    assert "\n" not in str(caught.value).strip()
    return str(caught.value)


@pytest.mark.slow
def test_a_cell_of_options_trains_behind_the_cell_to_its_end(shell, here, options, capsys):
    job = tiny.train(shell, "-o mine --out job", options.replace("4000", "3"))
    assert job.is_running and repr(job) == "TrainingJob('mine', training)" and shell.user_ns["job"] is job
    shown = shell.display_formatter.format(job)[0]
    assert len(tiny.pictures(shown["text/html"])) == 1 and "MassTrace('mine'" in shown["text/plain"]
    with pytest.raises(InputError, match="still training after 0 seconds"):
        job.result(0)
    run = job.result(120)
    assert isinstance(run, Run) and (run.folder, run.stop.reason, run.stop.step) == ("mine", "horizon", 3)
    assert Path("mine/report.html").is_file() and repr(job) == "TrainingJob('mine', done)" and running_jobs() == []
    assert capsys.readouterr().out == ""


def test_cells_of_the_same_records_use_one_file_that_stays(shell, here, tmp_path_factory):
    line, folders = f"-m {tiny.tiny_model(tmp_path_factory)} --max-steps 4000 -o", ("a", "b", "c")
    cells = (tiny.sums(), "\n" + tiny.sums() + "\n\n", tiny.sums("plums"))
    for folder, cell in zip(folders, cells, strict=True):
        result = tiny.train(shell, f"{line} {folder}", cell).stop().result(60)
        assert isinstance(result, Run) and result.stop.reason == "requested" and result.verification is None
    first, second, other = (Path(RunFolder(folder).plan().data["path"]) for folder in folders)
    assert first == second != other
    assert first.read_text() == tiny.sums() and other.read_text() == tiny.sums("plums")


@pytest.mark.parametrize("run", ["run_line_magic", "run_cell_magic"])
def test_a_line_may_ask_for_the_background(shell, here, options, run):
    (model, data) = (line.split('"')[1] for line in options.splitlines()[:2])
    line = f"train run -m {model} -d {data} --max-steps 4000 -o mine --background"
    job = getattr(shell, run)("geonb", line, *(["seed = 1"] if "cell" in run else []))
    assert isinstance(job, TrainingJob) and job.stop().result(60).stop.reason == "requested"


def test_stop_ends_a_run_with_a_checkpoint_and_resume_goes_on(shell, here, options):
    job = tiny.train(shell, "-o mine", options, steps=3)
    asked = shell.run_line_magic("geonb", "stop")
    assert asked.folders == ("mine",) and "--resume -o mine" in asked.to_text()
    stop = job.result(60).stop
    assert stop.reason == "requested" and stop.step >= 3 and RunFolder("mine").checkpoint_path.is_file()
    assert RunFolder("mine").status().state == "stopped" and not Path("mine/stop").exists()
    again = tiny.train(shell, "--resume -o mine", steps=stop.step + 2)
    assert shell.run_line_magic("geonb", "stop mine").folders == ("mine",)
    assert again.result(60).stop.step >= stop.step + 2


def test_a_stop_that_came_too_late_does_not_end_the_resumed_run(shell, here, options):
    made = tiny.train(shell, "-o mine", options, steps=1).stop().result(60).stop.step
    with pytest.raises(InputError, match="no step left to stop at"):
        MassTrace("mine").receive({"kind": "stop"})  # a page that was still open
    RunFolder("mine").request_stop()  # a stop while the adapters were being saved
    tiny.train(shell, "--resume -o mine", steps=made + 1)


@pytest.mark.parametrize("folder", ["mine", "./mine"])
@pytest.mark.parametrize("flag", ["", "--overwrite", "--resume"])
def test_a_second_run_in_the_same_folder_is_refused(shell, here, options, folder, flag):
    job = tiny.train(shell, "-o mine", options, steps=1)
    message = refused(shell, f"-o {folder} {flag}", options)
    assert ("is training in this process" if flag else "exists; allowed is a new or empty folder") in message
    assert running_jobs() == [job] and job.stop().result(60).stop.reason == "requested"


def test_overwrite_begins_anew_over_an_old_run_and_over_nothing_else(shell, old, options):
    assert "exists; allowed is a new or empty folder" in refused(shell, "-o old", options)
    assert "is not a geonb run, so --overwrite" in refused(shell, f"-o {old.parent} --overwrite", options)
    job = tiny.train(shell, "-o old --overwrite", options, steps=1)
    assert RunFolder("old").plan().horizon["steps"] == 4000 and not (old / "verification.json").exists()
    assert job.stop().result(60).stop.horizon == 4000


@pytest.mark.parametrize(
    ("line", "more", "message"),
    [
        ("-o mine --no-such", "", "No such option: --no-such"),
        ("-o mine", "max_step = 3", "No such option: --max-step"),
        ("-o mine", 'controller = "sgd"', "allowed are frank-wolfe, mass, mass-layer"),
        ("--no-save", "", "--no-save leaves no trace to follow"),
        ("-o mine", "seed = 1979-05-27", "seed"),
    ],
)
def test_what_is_wrong_is_said_in_the_cell_and_starts_nothing(shell, here, options, line, more, message):
    assert message in refused(shell, line, f"{options}{more}\n")
    assert running_jobs() == [] and list(here.iterdir()) == []


def test_what_a_run_dies_of_is_raised_by_its_result(shell, old):
    checkpoint = RunFolder(old).checkpoint_path
    checkpoint.write_bytes(checkpoint.read_bytes()[:50])
    job = tiny.train(shell, "--resume -o old")
    with pytest.raises(InputError, match="is not a readable checkpoint"):
        job.result(60)
    assert repr(job) == "TrainingJob('old', failed)" and running_jobs() == []


def test_a_record_is_displayed_as_its_view_until_the_extension_is_unloaded(shell):
    spectra = shell.run_line_magic("geonb", "spectra embedded")
    assert isinstance(spectra, ModelSpectra) and len(spectra.matrices) == 29
    shown = shell.display_formatter.format(spectra)[0]
    assert shown["text/plain"] == spectra.to_text() and len(tiny.pictures(shown["text/html"])) == 1
    shell.run_line_magic("unload_ext", "geonb")
    try:
        assert shell.display_formatter.format(spectra)[0] == spectra._repr_mimebundle_()
        assert shell.find_line_magic("geonb") is None and shell.find_cell_magic("geonb") is None
    finally:
        shell.run_line_magic("load_ext", "geonb")


@pytest.mark.parametrize("line", ["%geonb train --", "%%geonb train -o x --", "%geonb train run -"])
def test_completion_of_a_training_offers_its_flags(shell, here, line):
    assert {"--max-steps", "--resume", "--overwrite", "-o", "--out"} <= set(tiny.completed(shell, line))


@pytest.mark.parametrize("command", ["spectra", "stop", "dashboard", "train compare", "train status", "train -o"])
def test_completion_offers_run_folders_the_latest_first(shell, old, command):
    shutil.copytree(old, old.parent / "runs" / "later", copy_function=shutil.copy)
    offered = tiny.completed(shell, f"%geonb {command} ")
    assert [word for word in offered if word in ("old", "runs/later")] == ["runs/later", "old"]
    assert "embedded" in offered and "audit" in tiny.completed(shell, "%geonb adapter ")
