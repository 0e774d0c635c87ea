"""Small evaluation sets, and a folder for the data of a file's runs."""

import pytest

from tests.workbench.benchmark.small import small_sets


@pytest.fixture
def small(monkeypatch):
    small_sets(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmark-data")
