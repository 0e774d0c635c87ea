"""A guessing model and its problems, made once a session."""

import pytest

from tests.workbench.star import colours


@pytest.fixture(scope="session")
def guesser(tmp_path_factory):
    return colours.guessing_model(tmp_path_factory.mktemp("guesser"))


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("problems")
    pool = colours.write(folder / "pool.jsonl", colours.problems(90))
    held = colours.write(folder / "held.jsonl", colours.problems(60, first=1000))
    return pool, held
