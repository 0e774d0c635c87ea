"""Donors for merges: copies of a model with a random change, and models as plain arrays."""

import shutil

import torch
from safetensors.torch import load_file, save_file


def perturbed(source, folder, *, seed=1, size=0.3, only=("",)):
    """A donor: `source` with a random change of every block matrix whose name holds one of `only`."""
    shutil.copytree(source, folder)
    tensors, noise = load_file(folder / "model.safetensors"), torch.Generator().manual_seed(seed)
    for name, tensor in tensors.items():
        drawn = torch.randn(tensor.shape, generator=noise)
        if tensor.ndim >= 2 and any(part in name for part in only) and not name.startswith(("lm_head", "model.embed")):
            tensors[name] = (tensor.float() + size * tensor.float().std() * drawn).to(tensor.dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def weights_of(folder):
    """Every stored tensor of a folder in float64, by name."""
    return {name: tensor.double().numpy() for name, tensor in load_file(folder / "model.safetensors").items()}


def stored_bytes(folder):
    """The weight file, byte by byte."""
    return (folder / "model.safetensors").read_bytes()
