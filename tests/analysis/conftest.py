"""The embedded model, loaded once; verses for it; a tiny model with an adapter of a short run."""

import json
from pathlib import Path

import pytest

from tests.tiny import tiny_model, tiny_run


@pytest.fixture(scope="session")
def runtime():
    """The embedded model."""
    from geonb.models import Checkpoint, TorchRuntime

    return TorchRuntime.load(Checkpoint.open("embedded"), device="cpu")


@pytest.fixture(scope="session")
def verses() -> list[str]:
    """Forty texts that the embedded model was not trained on."""
    from geonb.assets import dataset_path

    lines = dataset_path("kjv", evaluation=True).read_text().splitlines()
    return [json.loads(line)["text"][:200] for line in lines[:40]]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer llama."""
    return tiny_model(tmp_path_factory)


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter of a short run of the tiny model."""
    return tiny_run(tmp_path_factory) / "adapter"
