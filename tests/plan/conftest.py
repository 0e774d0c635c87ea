"""Plans of the embedded model on a few hundred short records, built once."""

import json

import pytest

from geonb.plan import build_plan


@pytest.fixture(scope="session")
def data_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "sums.jsonl"
    records = [
        {"text": f"{i} apples and {3 * i % 17} pears make {i + 3 * i % 17} pieces of fruit."} for i in range(200)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="session")
def plan(data_file):
    return build_plan("embedded", data_file)


@pytest.fixture(scope="session")
def quick_plan(data_file):
    return build_plan("embedded", data_file, calibrate=False)
