"""What a notebook takes is read from its one parameters cell; what is given to it must be known and of its type."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.claims.parameters import check_parameters, judged_ids, notebook_hash, parameters_of
from geonb.errors import InputError
from tests.claims.checkout import add_notebook, code, notebook, verifying

literals = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda name: name.isidentifier())


def read(folder, source):
    return parameters_of(add_notebook(folder, "one", notebook(parameters=source)))


def test_the_parameters_are_what_papermill_finds_and_more(tmp_path):
    import papermill

    data = notebook(parameters='profile = "smoke"\nn: int = 3  # how many\nrate = -0.5')
    data["metadata"] = {"language_info": {"name": "python"}, "kernelspec": {"name": "python3", "display_name": "x"}}
    path = add_notebook(tmp_path, "one", data)
    assert parameters_of(path) == {"profile": "smoke", "n": 3, "rate": -0.5}
    assert list(papermill.inspect_notebook(str(path))) == list(parameters_of(path))
    # papermill passes over a line whose comment holds a second "="
    assert read(tmp_path, "n = 3  # n = 5 in full")["n"] == 3


@given(table=st.dictionaries(names, literals, max_size=4))
def test_every_literal_is_read_as_python_reads_it(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("literals")
    source = "\n".join(f"{name} = {value!r}" for name, value in table.items() if name not in ("if", "in", "is"))
    expected: dict = {}
    try:
        exec(source, {}, expected)
    except SyntaxError:
        return
    assert read(folder, source) == expected


def test_a_cell_in_lines_is_one_text(tmp_path):
    assert read(tmp_path, ["a = 1\n", "b = 'x'"]) == {"a": 1, "b": "x"}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import os", "has the statement 'import os'; allowed is one `name = literal` a line"),
        ("a = b = 1", "has the statement 'a = b = 1'"),
        ("a = open('x')", "has the statement"),
        ("%matplotlib inline", "is no Python"),
        ("a = '\x1b[2J' + x", r"has the statement \"a = '\x1b[2J' + x\"".replace('\\"', '"')),
    ],
)
def test_a_parameters_cell_gives_literals_to_names_and_nothing_else(tmp_path, source, said):
    with pytest.raises(InputError) as told:
        read(tmp_path, source)
    assert said.split("\x1b")[0].split('"')[0] in str(told.value) and "\x1b" not in str(told.value)


@pytest.mark.parametrize(("cells", "count"), [((), 0), (("a = 1", "b = 1"), 2)])
def test_there_is_exactly_one_parameters_cell(tmp_path, cells, count):
    data = {**notebook(), "cells": [code(source, "parameters") for source in cells]}
    with pytest.raises(InputError, match=f"has {count} cells with the tag 'parameters'; allowed is exactly one"):
        parameters_of(add_notebook(tmp_path, "one", data))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "is no notebook of format 4"),
        ({"cells": [3], "nbformat": 4}, "is no notebook of format 4"),
        ({"cells": [], "nbformat": 3}, "is no notebook of format 4"),
        ({"cells": [{"cell_type": "code", "metadata": 3, "source": 4}], "nbformat": 4}, "has 0 cells with the tag"),
    ],
)
def test_a_file_that_is_no_notebook_is_told(tmp_path, data, said):
    with pytest.raises(InputError, match=said):
        parameters_of(add_notebook(tmp_path, "one", data))
    with pytest.raises(InputError, match="is not a file: give the path of a notebook"):
        parameters_of(tmp_path / "none.ipynb")


@pytest.mark.parametrize(
    ("known", "given", "said"),
    [
        ({"n": 3}, {"m": 3}, "was given the parameter 'm'; its notebook has n."),
        ({}, {"m": 3}, "was given the parameter 'm'; its notebook has none."),
        ({"n": 3}, {"n": 0.5}, "was given 0.5 for the parameter 'n'; allowed is a whole number, like its default 3."),
        ({"n": 3}, {"n": True}, "allowed is a whole number"),
        ({"x": 0.5}, {"x": True}, "allowed is a number"),
        ({"x": True}, {"x": 1}, "allowed is true or false"),
        ({"x": "a"}, {"x": 1}, "allowed is a text"),
    ],
)
def test_a_parameter_that_does_not_fit_is_told(known, given, said):
    with pytest.raises(InputError) as told:
        check_parameters(known, given, "f4")
    assert str(told.value).startswith("f4 was given") and said in str(told.value)


@given(value=literals)
def test_what_has_the_type_of_its_default_fits(value):
    check_parameters({"x": value}, {"x": value}, "f4")
    check_parameters({"x": None}, {"x": value}, "f4")
    check_parameters({"x": 0.5}, {"x": 3}, "f4")


def test_the_ids_that_a_notebook_judges_are_those_of_its_last_code_cell(tmp_path):
    def ids(*sources):
        return judged_ids(add_notebook(tmp_path, "one", notebook(*sources)))

    assert ids(verifying("a"), verifying("b", "c")) == ("b", "c")
    assert ids("verify(claim_id='b', checks=[])") == ("b",)
    assert ids(verifying("a"), "print('done')") == ()
    assert ids("claims.verify(name, checks)") is None and ids("%geonb x") is None


def test_the_hash_is_of_what_a_notebook_does_and_not_of_what_it_shows(tmp_path):
    plain = notebook(verifying("a"))
    shown = json.loads(json.dumps(plain))
    shown["cells"][1] |= {"outputs": [{"output_type": "stream", "name": "stdout", "text": "7"}], "execution_count": 3}
    retagged = json.loads(json.dumps(plain))
    retagged["cells"][1]["metadata"]["tags"] = ["x"]
    hashes = [notebook_hash(add_notebook(tmp_path, "one", data)) for data in (plain, shown, retagged)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert notebook_hash(add_notebook(tmp_path, "two", notebook(verifying("a", "b")))) not in hashes
