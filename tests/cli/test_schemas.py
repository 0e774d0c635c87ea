"""Every command that has --json is run, and its document holds against the schema that `geonb schema` prints for it."""

import functools
import importlib.util
import itertools
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from geonb.cli.app import main
from geonb.cli.live import TrainingJob
from geonb.cli.output import PRINTED
from geonb.cli.schema import json_commands, records_of
from geonb.errors import InputError
from tests.claims.checkout import checkout, notebook, verifying
from tests.cli.schema_work import Work, call
from tests.test_record_schema import leaf_paths

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    # the data library of lm-eval reads its Arrow files through memory maps that it leaves to the collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
COMMANDS = {" ".join(path): callback for path, callback in json_commands()}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return Work(tmp_path_factory)


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path, monkeypatch):
    """What a command writes by default, and the names of models, stay in the test's own folders."""
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@functools.cache
def schema_of(command):
    """The schema as `geonb schema COMMAND` prints it."""
    schema = json.loads(call("schema", *command.split()))
    Draft202012Validator.check_schema(schema)
    return schema


slow = pytest.mark.slow
eval_only = [slow, pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm_eval is not installed")]
BASE = ("-m", "{model}", "-a", "{run}")
STEPS = ("-m", "{model}", "-d", "{data}", "--max-steps", "2")
CPU = ("--device", "cpu")
# every command, in each form that prints another record or another part of one; {name} is an attribute of Work
CASES = [
    ("spectra", "{model}"),
    ("plan", *STEPS, *CPU),
    pytest.param(("demo", "-d", "{data}", "--max-steps", "2"), marks=slow),
    ("schema",),
    ("schema", "model"),
    ("schema", "schema"),
    ("model info", "{model}"),
    ("model capacity", "{model}", "--sort-by", "sigma-k"),
    ("model add", "schema-tiny", "{model}"),
    ("model list",),
    ("model search", "schema"),
    ("model delete", "schema-tiny"),
    ("model quantize", "{model}", "-o", "quantised"),
    ("model quantize", "{model}", "-o", "gguf", "--form", "gguf", "--no-geometry"),
    ("data prepare", "{data}", "-o", "prepared.jsonl", "-m", "{model}", "--show-dropped"),
    ("train run", *STEPS, *CPU, "-o", "new"),
    ("train run", *STEPS, *CPU, "--no-save"),
    ("train run", *STEPS, *CPU, "--plan-only"),
    ("train status", "{run}"),
    ("train evaluate", *BASE, *CPU, "-d", "{held_out}", "--limit", "6"),
    ("train evaluate", *BASE, *CPU, "--prompts", "{prompts}", "--max-tokens", "3"),
    pytest.param(("train evaluate", *BASE, *CPU, "--benchmark", "{task}"), marks=eval_only),
    ("train compare", "{run}", "{other}"),
    ("train compare", "-m", "{model}", "--adapter-a", "{run}", "--adapter-b", "{other}", "-d", "{held_out}", *CPU),
    ("train compare", "--result-a", "{evaluation}", "--result-b", "{evaluation}"),
    pytest.param(("train validate-derived", *STEPS, *CPU, "--trials", "2"), marks=slow),
    (
        "train star",
        "-m",
        "{model}",
        "-d",
        "{problems}",
        "-o",
        "star",
        "--samples",
        "1",
        "--max-generation-tokens",
        "2",
        *CPU,
    ),
    ("train export", *BASE, "-o", "export", "--target", "merged_bf16"),
    ("train merge", *BASE, "-o", "merged"),
    ("adapter audit", "{run}/adapter", "--base", "{model}"),
    ("adapter audit", "{run}/adapter"),
    ("adapter analyze", "{run}/adapter", "--base", "{model}", "--draws", "2"),
    ("adapter calibrate-baseline", "-m", "{model}", "--rank", "2", "--draws", "2"),
    ("infer run", *BASE, *CPU, "--prompt", "3 apples", "--max-tokens", "3", "--scan"),
    ("infer run", "-m", "{model}", *CPU, "--prompt", "3 apples", "--max-tokens", "2"),
    ("infer suite", "{prompts}", *BASE, *CPU, "--max-tokens", "3", "--scan"),
    ("merge run", "-t", "{model}", "-s", "{donor}", "-o", "out", "--probes", "{held_out}", *CPU),
    ("merge batch", "-t", "{model}", "-s", "{donor}", "-s", "{model}", "-o", "out", "--probes", "{held_out}", *CPU),
    ("benchmark zero-knob", "--list", "--rows", "none.jsonl"),
    ("benchmark table", "--rows", "{rows}"),
    ("claims list",),
    ("claims ledger",),
    pytest.param(("claims run", "made-claim"), marks=slow),
    ("coordinates verify", "--preset", "tiny"),
    ("coordinates train", "-o", "run", "--preset", "tiny", "--steps", "3", "--rows", "6", "--length", "48"),
    ("coordinates generate", "{coordinates}", "-p", "The baker", "--tokens", "3", "--refine", "1", "--weights", "int8"),
    ("coordinates analyze", "{coordinates}", "-t", "The bakers"),
    ("coordinates analyze", "{coordinates}", "--clusters", "style", "--count", "3"),
    (
        "coordinates interpolate",
        "{coordinates}",
        "--first",
        "a door",
        "--second",
        "the lamp",
        "-p",
        "The",
        "--steps",
        "2",
    ),
    ("coordinates export", "{coordinates}", "-o", "out", "--style", "plain=The baker waits."),
    (
        "coordinates forgetting",
        "--stage",
        "teachers",
        "--tasks",
        "2",
        "--seeds",
        "1",
        "--steps",
        "3",
        "--arms",
        "frozen",
    ),
    pytest.param(
        (
            "coordinates compare-optimisers",
            "-o",
            "out",
            "--seeds",
            "2",
            "--steps",
            "3",
            "--rows",
            "6",
            "--length",
            "48",
        ),
        marks=slow,
    ),
    ("coordinates import", "{coordinates}", "-o", "out", "-a", "{style}"),
    ("system status",),
    ("system probe",),
    ("system probe", "memory"),
    ("system cache",),
    ("system cache", "--clear", "--yes"),
    pytest.param(("system benchmark", "--repeats", "3"), marks=slow),
]
ALONE = {"stop"}  # runs in a test of its own, because it needs a run in training


def case_of(entry):
    """A case without its marks; what `pytest.param` makes is a tuple too."""
    return entry.values[0] if hasattr(entry, "values") else entry


def document_of(work, case):
    """What one case prints: exactly one JSON document."""
    filled = [one.format_map(_Attributes(work)) for one in case[1:]]
    out = call(*case[0].split(), *filled, "--json")
    assert out.count("\n") == 1
    return json.loads(out)


class _Attributes(dict):
    def __init__(self, work):
        self.work = work

    def __missing__(self, name):
        return str(getattr(self.work, name))


@pytest.fixture
def named(work, monkeypatch, tmp_path):
    """A cache of its own with one model that has a name."""
    monkeypatch.setenv("GEONB_CACHE", str(tmp_path / "cache"))
    call("model", "add", "schema-tiny", work.model)


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case)[:70])
def test_what_json_prints_holds_against_the_schema(case, work, request):
    if case[0].startswith("model ") and case[0].split()[1] in ("list", "search", "delete"):
        request.getfixturevalue("named")
    elif case[0] in ("model add", "system cache"):
        request.getfixturevalue("monkeypatch").setenv("GEONB_CACHE", str(Path.cwd() / "cache"))
    if case[0] == "claims run":
        papers = checkout(Path.cwd(), made_claim=notebook(verifying("made-claim")))
        request.getfixturevalue("monkeypatch").setenv("GEONB_PAPERS", str(papers))
    if "--benchmark" in case:
        import datasets

        request.getfixturevalue("monkeypatch").setattr(
            datasets.config, "HF_DATASETS_CACHE", str(Path.cwd() / "datasets")
        )
    if case[0] == "model quantize":
        pytest.importorskip("torchao")
        pytest.importorskip("gguf")
    document = document_of(work, case)
    Draft202012Validator(schema_of(case[0])).validate(document)


def test_a_run_that_is_asked_to_stop_answers_by_its_schema(work):
    from geonb.cli.app import run_command
    from geonb.cli.live import in_background
    from geonb.cli.output import returning_records

    with returning_records(), in_background():
        long = (
            "train",
            "run",
            "-m",
            work.model,
            "-d",
            work.data,
            "--max-steps",
            "4000",
            "-o",
            "long",
            "--device",
            "cpu",
        )
        job = run_command(list(map(str, long)))[1]
    assert isinstance(job, TrainingJob)
    document = json.loads(call("stop", "long", "--json"))
    job.result(timeout=60)
    Draft202012Validator(schema_of("stop")).validate(document)
    assert document["folders"] == ["long"]


def test_no_command_with_json_is_left_without_a_case():
    assert {case_of(entry)[0] for entry in CASES} | ALONE == set(COMMANDS), "add the new command to CASES"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_with_json_says_which_record_it_prints(command):
    records = records_of(COMMANDS[command])
    assert records, f"mark {command} with @prints and annotate what it returns, as the others are"
    Draft202012Validator.check_schema(schema_of(command))
    assert set(schema_of(command)["$defs"]) >= {record.__name__ for record in records}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_json_names_the_schema(command):
    shown = " ".join(call(*command.split(), "--help").split())
    assert "Print one JSON document; its schema: `geonb schema GROUP COMMAND`." in shown


def objects(schema):
    """Every record in a schema."""
    if isinstance(schema, dict):
        if "properties" in schema and "title" in schema:
            yield schema
        for inner in schema.values():
            yield from objects(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from objects(inner)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_field_is_undocumented_or_left_out(command):
    found = list(objects(schema_of(command)))
    assert found
    for one in found:
        assert one["additionalProperties"] is False and list(one["properties"]) == one["required"]


@pytest.fixture(scope="module")
def documents(work):
    """A few documents of many records, with the class that reads each back."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work.folder)
        for entry in CASES:
            case = case_of(entry)
            if case[0] in ("plan", "model info", "train status", "train compare", "adapter audit", "infer run"):
                document = document_of(work, case)
                kind = next(one for one in records_of(COMMANDS[case[0]]) if _reads(one, document))
                found.append((case[0], document, kind))
    return found


def _reads(kind, document):
    try:
        kind.from_dict(document)
    except InputError:
        return False
    return True


OTHERS = [None, True, 3, 2.5, "x", [], {}, ["x"], {"x": "y"}]


def shapes(document):
    """One leaf of every place in a document: the elements of a list are one place."""
    found = {}
    for path in leaf_paths(document):
        found.setdefault(tuple("*" if isinstance(key, int) else key for key in path), path)
    return found.values()


def test_a_leaf_of_another_type_is_refused_unless_the_record_itself_would_read_it(documents):
    for command, document, kind in documents:
        alone = {**schema_of(command), "$ref": f"#/$defs/{kind.__name__}"}
        alone.pop("anyOf", None)
        validator = Draft202012Validator(alone)
        for path, other in itertools.product(shapes(document), OTHERS):
            # beyond types: a record reads a bare tuple from anything, and a plan asks for all fifteen keys by name
            if path[0] == "differences" or (path[0] == "derivations" and path[-1] == "key"):
                continue
            changed = json.loads(json.dumps(document))
            place = functools.reduce(lambda inner, key: inner[key], path[:-1], changed)
            place[path[-1]] = other
            assert validator.is_valid(changed) == _reads(kind, changed), (command, path, other)


def test_without_a_command_all_are_listed_and_a_group_lists_its_own():
    listed = call("schema")
    for command, callback in COMMANDS.items():
        line = next(one for one in listed.splitlines() if one.startswith(f"{command} "))
        assert all(record.__name__ in line for record in records_of(callback))
    group = call("schema", "merge").split("\n\n")[0].splitlines()
    assert [line.split("  ")[0] for line in group] == ["merge run", "merge batch"]


def test_a_command_of_several_records_allows_any_of_them():
    assert [one["$ref"] for one in schema_of("train run")["anyOf"]] == ["#/$defs/Run", "#/$defs/Plan"]
    assert "TrainingJob" in getattr(COMMANDS["train run"], PRINTED)  # in a notebook alone, and no record


@pytest.mark.parametrize("words", [("nothing",), ("dashboard",), ("train", "fly"), ("run",)])
def test_what_prints_no_json_is_one_sentence_and_exit_code_2(words, capsys):
    with pytest.raises(SystemExit) as leave:
        main(["schema", *words])
    assert leave.value.code == 2
    assert (
        f"{' '.join(words)!r} is no command that prints JSON; allowed are a group or a command"
        in capsys.readouterr().err
    )


def test_the_start_of_the_program_imports_no_record():
    import subprocess
    import sys

    code = "import sys, geonb.cli.app; from geonb.cli.app import app; import typer; typer.main.get_command(app)\n"
    code += "print([m for m in ('torch', 'transformers', 'peft', 'geonb.train.execute') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"
