"""Tiny bases of three families with adapters that PEFT itself wrote, and what PEFT makes of the two together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.families import write_tiny

EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": dict(
        r=4, lora_alpha=6, target_modules="all-linear", rank_pattern={"q_proj": 2}, alpha_pattern={"up_proj": 3}
    ),
    "gpt2": dict(r=4, lora_alpha=6, target_modules=["c_attn", "c_fc", "c_proj"], fan_in_fan_out=True),
    "mixtral": dict(r=2, lora_alpha=6, target_modules=["q_proj"], target_parameters=EXPERTS),
}


@dataclass(frozen=True)
class Pair:
    """A base and an adapter on disk."""

    base: Path
    adapter: Path

    def merged_by_peft(self, dtype: torch.dtype = torch.float64) -> Any:
        """PEFT's own merge, in float64."""
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(self.base, dtype=dtype)
        wrapped = PeftModel.from_pretrained(model, str(self.adapter), autocast_adapter_dtype=False)
        # the adapter's float32 numbers are read exactly into float64, so only the products round
        return wrapped.to(dtype).merge_and_unload().eval()


def write_adapter(base: Path, folder: Path, *, std: float = 0.1, **config: Any) -> Path:
    """A random adapter of `base`, saved by PEFT."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in sorted(wrapped.named_parameters()):
            if "lora_" in name:
                parameter.normal_(std=std, generator=generator)
    wrapped.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    made: dict[str, Pair] = {}

    def pair(family: str) -> Pair:
        if family not in made:
            root = tmp_path_factory.mktemp(family)
            base = write_tiny(family, root / "base")
            made[family] = Pair(base, write_adapter(base, root / "adapter", **CONFIGS[family]))
        return made[family]

    return pair


@pytest.fixture(scope="session")
def write():
    """`write_adapter`, for tests that need another base or another config."""
    return write_adapter


@pytest.fixture(scope="session")
def pair_of():
    return Pair


@pytest.fixture(scope="session")
def few(tmp_path_factory):
    """Four short probe texts: the tests are about equality, not about statistics."""
    import json

    path = tmp_path_factory.mktemp("probes") / "few.jsonl"
    texts = [f"The index of {i} tables is read before row {i * 37} is written to the log." for i in range(4)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path
