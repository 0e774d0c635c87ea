"""The tiny model, a trained adapter of it, and what transformers and PEFT alone make of a model and an adapter."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import tiny_model, tiny_run


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer llama."""
    return tiny_model(tmp_path_factory)


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter of a short run; copy it before you change it."""
    return tiny_run(tmp_path_factory) / "adapter"


@pytest.fixture(scope="session")
def alone() -> Callable[[Path, Path | None], Any]:
    """A base, with an adapter or without, as transformers and PEFT load it: no code of geonb."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def load(base: Path, with_adapter: Path | None = None) -> Any:
        network: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        return (network if with_adapter is None else PeftModel.from_pretrained(network, str(with_adapter))).eval()

    return load


@pytest.fixture(scope="session")
def scaled(adapter: Path) -> Callable[[Path, float], Path]:
    """Writes the adapter with every B multiplied by a factor into a new folder."""
    from safetensors.torch import load_file, save_file

    def write(folder: Path, factor: float) -> Path:
        shutil.copytree(adapter, folder)
        weights = load_file(folder / "adapter_model.safetensors")
        changed = {name: value * factor if "lora_B" in name else value for name, value in weights.items()}
        save_file(changed, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        return folder

    return write
