"""One base, several adapters: each gives the logits that PEFT alone gives, and the base stays what it was."""

import json
import shutil

import pytest
import torch
from peft import PeftModel

from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.runtime import TorchRuntime
from geonb.workbench.bench import Bench, adapter_folder
from tests.tiny import tiny_model, tiny_run

# transformers warns about itself whenever PEFT loads an adapter
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
IDS = list(range(5, 25))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return tiny_run(tmp_path_factory) / "adapter"


@pytest.fixture(scope="module")
def stronger(adapter, tmp_path_factory):
    """The same adapter with twice the scale."""
    folder = shutil.copytree(adapter, tmp_path_factory.mktemp("stronger") / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["lora_alpha"] *= 2
    config["alpha_pattern"] = {key: 2 * value for key, value in config["alpha_pattern"].items()}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def alone(model, adapter):
    runtime = TorchRuntime.load(Checkpoint.open(model), device="cpu")
    if adapter is not None:
        runtime.model = PeftModel.from_pretrained(runtime.model, str(adapter)).eval()
    return runtime.logits(IDS)


def test_each_adapter_gives_the_logits_that_it_gives_alone(model, adapter, stronger):
    bench = Bench.open(model, {"once": adapter, "twice": stronger}, device="cpu")
    assert bench.labels == ("once", "twice")
    for label, folder in (("twice", stronger), (None, None), ("once", adapter), ("twice", stronger), (None, None)):
        with bench.using(label):
            assert torch.equal(bench.runtime.logits(IDS), alone(model, folder)), label


def test_a_run_stands_for_its_adapter(adapter):
    assert adapter_folder(adapter.parent) == adapter


def test_what_is_no_adapter_is_refused_in_a_sentence(model, adapter, tmp_path):
    with pytest.raises(InputError, match=r"holds no adapter_config\.json"):
        Bench.open(model, {"a": tmp_path})
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match="as a pickle"):
        Bench.open(model, {"a": tmp_path})
    bench = Bench.open(model, {"a": adapter}, device="cpu")
    with pytest.raises(InputError, match="two adapters were called 'a'"):
        bench.add("a", adapter)
    with pytest.raises(InputError, match="there is no adapter 'b'; loaded are a"), bench.using("b"):
        pass


def test_an_adapter_of_another_model_is_refused(adapter):
    with pytest.raises(InputError, match="does not fit embedded"):
        Bench.open("embedded", {"a": adapter}, device="cpu")
