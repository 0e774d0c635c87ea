"""The magics, in a real IPython shell in this process."""

import json
from types import SimpleNamespace

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from geonb.magics import complete
from geonb.models import ModelCapacity, ModelInfo
from geonb.plan import Plan


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
    ("line", "offered"),
    [("%geonb ", {"model", "plan", "train", "demo"}), ("%geonb model c", {"capacity", "info"}),
     ("%geonb model capacity --", {"--sort-by", "--json", "embedded"})],
)  # fmt: skip
def test_completion_offers_groups_commands_and_flags(shell, line, offered):
    assert offered <= set(complete(shell, SimpleNamespace(line=line)))


def test_help_is_there_for_the_question_mark(shell):
    found = shell.object_inspect("%geonb")
    assert found["found"] and "JSONL records" in found["docstring"]
