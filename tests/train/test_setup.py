"""The bases that a run left behind are read back to the bit, or refused in a sentence."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from geonb.errors import InputError
from geonb.train.setup import equip

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def test_bases_come_back_to_the_bit_and_are_not_made_again(tiny_plan, tmp_path):
    path = tmp_path / "bases.safetensors"
    first = equip(tiny_plan, device="cpu", bases_path=path)
    written = path.read_bytes()
    again = equip(tiny_plan, device="cpu", bases_path=path)
    assert path.read_bytes() == written
    for one, other in zip(first.matrices, again.matrices, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.factors(), other.factors(), strict=True))


@pytest.mark.parametrize("content", [b"", b"{}", b"\x80" * 100])
def test_bases_that_cannot_be_read_are_refused(tiny_plan, tmp_path, content):
    path = tmp_path / "bases.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bases\.safetensors cannot be read .*: start the run again with --overwrite"):
        equip(tiny_plan, device="cpu", bases_path=path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "change",
    [
        lambda basis: None,
        lambda basis: basis[:, 1:].clone(),
        lambda basis: basis.double(),
        lambda basis: basis[0].clone(),
    ],
    ids=["absent", "too narrow", "float64", "no matrix"],
)
def test_bases_of_another_plan_are_refused_by_the_matrix(tiny_plan, tmp_path, change):
    path = tmp_path / "bases.safetensors"
    equip(tiny_plan, device="cpu", bases_path=path)
    tensors = load_file(path)
    name = next(iter(tensors))
    changed = {**tensors, name: change(tensors[name])}
    save_file({key: value for key, value in changed.items() if value is not None}, path)
    with pytest.raises(InputError, match=f"holds no basis of {name} that fits its plan: start the run again"):
        equip(tiny_plan, device="cpu", bases_path=path)
