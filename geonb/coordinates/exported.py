"""Whole folders in and out: a trained coordinate model as a Llama with LoRAs, and LoRAs as coordinates of a new model."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from geonb.coordinates.analyze import style_of
from geonb.coordinates.export import export_base, export_style
from geonb.coordinates.imports import ImportedStyles, import_styles
from geonb.coordinates.run import TOKENIZER, load_model, load_tokenizer, save_model
from geonb.coordinates.tokenizer import END, PAD
from geonb.errors import InputError
from geonb.records import Record

COORDINATES = "coordinates.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedModel(Record):
    """Where an export lies."""

    base: str
    styles: tuple[str, ...]

    def summary(self) -> str:
        return f"ExportedModel({self.base}, {len(self.styles)} styles)"


def export_model(folder: str | Path, output: str | Path, styles: Mapping[str, str]) -> ExportedModel:
    """`output`/base as a Llama with its tokenizer, `output`/styles/NAME a LoRA for each example text; whole or not at all."""
    from transformers import PreTrainedTokenizerFast

    target = Path(output)
    if target.exists():
        raise InputError(f"{target} is there; allowed is a folder that is not: give another, or remove it.")
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    coordinates = {name: style_of(model, tokenizer, text) for name, text in styles.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as made:
        work = Path(made) / "export"
        work.mkdir()
        export_base(model, work / "base")
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token=END, bos_token=END, pad_token=PAD
        ).save_pretrained(work / "base")
        for name, theta in coordinates.items():
            export_style(model, theta, work / "styles" / name, base="../../base")
        work.rename(target)
    return ExportedModel(base=str(target / "base"), styles=tuple(str(target / "styles" / name) for name in coordinates))


def import_model(folder: str | Path, adapters: Sequence[str | Path], output: str | Path) -> ImportedStyles:
    """The model of `folder` with its modulation replaced by `adapters`, in a new folder; their coordinates beside it."""
    from geonb.adapters.peft_files import load_factors
    from geonb.adapters.serialise import safetensors_bytes
    from geonb.records import atomic_write

    target = Path(output)
    if target.exists():
        raise InputError(f"{target} is there; allowed is a folder that is not: give another, or remove it.")
    names = [Path(one).name for one in adapters]
    if len(set(names)) < len(names):
        raise InputError(
            f"two adapters are named {next(one for one in names if names.count(one) > 1)}; allowed is each name once."
        )
    model = load_model(folder)
    theta, found = import_styles(model, [load_factors(one) for one in adapters])
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as made:
        work = Path(made) / "model"
        save_model(model, work)
        shutil.copyfile(Path(folder) / TOKENIZER, work / TOKENIZER)
        tensors = {name: one.clone() for name, one in zip(names, theta.unbind(), strict=True)}
        atomic_write(work / COORDINATES, safetensors_bytes(tensors, {"format": "pt"}))
        work.rename(target)
    return found


def load_coordinates(folder: str | Path) -> dict[str, torch.Tensor]:
    """The named coordinates of a model that holds imported styles; raises `InputError` where there are none, or no whole file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(folder) / COORDINATES
    if not path.is_file():
        raise InputError(
            f"{path} is not there, so the model has no named coordinates: `geonb coordinates import` makes some."
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}; import the styles again.") from None
