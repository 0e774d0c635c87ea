"""Any PEFT LoRA adapter as it lies on a disk, whoever wrote it: its config, its factors with their scales, its base."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geonb.adapters.patterns import compiled, steps, why_unsafe
from geonb.adapters.peft_files import CONFIG, WEIGHTS
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.matrix_ref import MatrixRef
from geonb.records import Record, is_file, is_folder

_FACTOR = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.[^.]+)?\.weight")
_PEFT_DEFAULT = 8  # LoraConfig's own r and lora_alpha where the file leaves them out
_MOST_STEPS = 4e9  # of matching all expressions with all paths: ten seconds, where a stranger chose both for the worst
_MOVES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_OTHERS = {  # what a key contains -> what is said of all such keys
    "lora_embedding_": "the factors of an embedding are not measured",
    "lora_magnitude_vector": "DoRA rescales W + dW by this vector; the numbers here are those of dW alone",
    "lora_": "is not a lora_A or lora_B weight, and is not measured",
    "": "is stored whole beside the adapter (modules_to_save or a bias?) and is not measured",
}
Found = dict[tuple[str, str], list[str]]  # (kind, because) -> subjects: what a thousand tensors share is one finding
Expressions = list[tuple[re.Pattern[str], Any]]  # with the value that each stands for
Pairs = dict[str, tuple[Any, Any, float]]  # name -> B, A as tensors, scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding(Record):
    """What is wrong with an adapter ("problem") or should be known when its numbers are read ("note")."""

    kind: str
    subject: str
    because: str


def read_config(folder: Path) -> dict[str, Any]:
    """The config of an adapter's folder; raises `InputError` for a pickle, a missing file, or another kind of adapter."""
    if (folder.suffix == ".bin" and is_file(folder)) or (
        is_folder(folder) and not (folder / WEIGHTS).is_file() and any(folder.glob("adapter_model*.bin"))
    ):
        raise InputError(
            f"{folder} gives the adapter as a .bin file, a pickle, which may run code when it is read; allowed is "
            f"{WEIGHTS}, never pickle: save the adapter again with safe_serialization=True."
        )
    for name in (CONFIG, WEIGHTS):
        if not is_file(folder / name):
            raise InputError(f"{folder} holds no {name}: give the folder of a PEFT LoRA adapter.")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise InputError(f"{folder / CONFIG} is not JSON: copy or save the adapter again.") from None
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise InputError(f'{folder / CONFIG} declares peft_type {kind!r}; allowed is "LORA": give a LoRA adapter.')
    return config


def read_pairs(folder: Path, config: Mapping[str, Any], found: Found) -> tuple[Pairs, int]:
    """Every whole pair of factors by its module's path, and how many numbers the file stores."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{folder / WEIGHTS} cannot be read ({error}): copy or save the adapter again.") from None
    if "lora_alpha" not in config:
        add_finding(
            found, "note", f"lora_alpha is missing; PEFT takes {_PEFT_DEFAULT}, and so do these numbers", CONFIG
        )
    start = str(config.get("init_lora_weights")).lower()
    if start.startswith(_MOVES_BASE):
        add_finding(found, "note", f"the start {start!r} also changes the base; measured is scale B A alone", CONFIG)
    paths: dict[str, dict[str, str]] = {}
    for key in sorted(tensors):
        match = _FACTOR.fullmatch(key)
        if match is None:
            add_finding(found, "note", next(because for mark, because in _OTHERS.items() if mark in key), key)
        elif paths.setdefault(match[1], {}).setdefault(match[2], key) != key:
            add_finding(found, "problem", "this factor is stored twice, under two adapters' names", key)
    if not paths:
        add_finding(found, "problem", "no key ends in lora_A.weight or lora_B.weight", WEIGHTS)
    parameters = [str(name).rpartition(".")[0] for name in field_of(config, "target_parameters", list)]
    ranks, alphas = (_expressions(config, field, paths, found) for field in ("rank_pattern", "alpha_pattern"))
    pairs: Pairs = {}
    for path, sides in paths.items():
        # PEFT nests one wrapper for each parameter of a module
        bare = "." + re.sub(r"(\.base_layer)+$", "", path)
        left, right = (tensors.get(sides.get(side, "")) for side in "BA")
        if any(bare.endswith(f".{module}") for module in parameters):
            add_finding(found, "note", "the factors of a 3-D parameter (experts) are not measured", path)
        elif left is None or right is None:
            add_finding(
                found, "problem", "lora_A or lora_B is missing: PEFT would keep its own start in that place", path
            )
        elif left.ndim != 2 or right.ndim != 2:
            add_finding(found, "note", "the factors are no matrices (a convolution?) and are not measured", path)
        elif left.shape[1] != right.shape[0] or 0 in (*left.shape, *right.shape):
            because = f"lora_B is {tuple(left.shape)} and lora_A {tuple(right.shape)}: allowed is one rank from 1 up"
            add_finding(found, "problem", because, path)
        else:
            pairs[path] = left, right, _scale(config, path, len(right), ranks, alphas, found)
    return pairs, sum(tensor.numel() for tensor in tensors.values())


def _expressions(config: Mapping[str, Any], field: str, paths: Collection[str], found: Found) -> Expressions:
    """The expressions of rank_pattern or alpha_pattern as PEFT matches them; what could take for ever is a finding."""
    usable, together, longest = [], 0.0, max(map(len, paths), default=0)
    for pattern, own in field_of(config, field, dict).items():
        reason = why_unsafe(pattern, field)
        if reason is None:
            together += steps(pattern, field, names=len(paths), length=longest)
            reason = "with the others it can take too long" if together > _MOST_STEPS else None
        if reason is None:
            usable.append((compiled(pattern, field), own))
        else:
            said = f"the pattern {pattern[:60]!r} is not matched: {reason}; PEFT may stop at it, or never come back"
            add_finding(found, "problem", said, CONFIG)
    return usable


def _scale(
    config: Mapping[str, Any], path: str, rows: int, ranks: Expressions, alphas: Expressions, found: Found
) -> float:
    """alpha / r or alpha / sqrt(r) as PEFT finds them: by the first pattern that the path ends in, else in common."""
    values = []
    for key, expressions in (("r", ranks), ("lora_alpha", alphas)):
        own = next((own for expression, own in expressions if expression.match(path)), config.get(key, _PEFT_DEFAULT))
        values.append(number(own))
    rank, alpha = values
    if rank is None or alpha is None or rank < 1:
        add_finding(found, "problem", "r or alpha is no usable number; the scale here is a guess", path)
    elif rank != rows:
        add_finding(found, "problem", f"the config declares rank {rank:g} and the file stores {rows}: PEFT stops", path)
    alpha, rank = _PEFT_DEFAULT if alpha is None else alpha, rank if rank and rank >= 1 else rows
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def number(value: Any) -> float | None:
    """A finite number of a stranger's config, None for anything else."""
    return float(value) if isinstance(value, int | float) and abs(value) < 1e9 else None


def field_of(config: Mapping[str, Any], key: str, kind: type) -> Any:
    """A field of the expected kind, an empty one for anything else."""
    return config[key] if isinstance(config.get(key), kind) else kind()


def add_finding(found: Found, kind: str, because: str, *subjects: str) -> None:
    """Note what holds for `subjects`; the same sentence is told once for all of them."""
    if subjects:
        found.setdefault((kind, because), []).extend(subjects)


def made_finding(kind: str, because: str, subjects: list[str]) -> Finding:
    """The finding that a sentence and its subjects make."""
    first, *others = dict.fromkeys(subjects)
    return Finding(kind=kind, subject=f"{first} and {len(others)} more" if others else first, because=because)


def open_base(base: str | Path | Checkpoint | None, config: Mapping[str, Any]) -> tuple[Checkpoint | None, str]:
    """The base, or None and why: a stranger's config may name a folder, but never starts a download or stops the audit."""
    if base is not None:
        return base if isinstance(base, Checkpoint) else Checkpoint.open(base), ""
    named = str(config.get("base_model_name_or_path") or "")
    try:
        if named == "embedded" or (named and Path(named).is_dir()):
            return Checkpoint.open(named), ""
    except (InputError, OSError) as error:
        return None, f"the config's base {named!r} cannot be opened ({error})"
    return None, f"no base was given and the config's base {named!r} is no folder here"


def matching_ref(refs: tuple[MatrixRef, ...], path: str, shape: tuple[int, int]) -> MatrixRef | None:
    """The matrix that an adapter's path means: the same path, or the only one that ends alike (a wrapper more or less)."""
    modules = {ref.module: ref for ref in refs if ref.expert is None and ref.slice is None}
    alike = [module for module in modules if module.endswith(f".{path}") or path.endswith(f".{module}")]
    found = [path] if path in modules else alike
    if found:
        return modules[found[0]] if len(found) == 1 else None
    # a head that is tied to the embedding has no matrix of its own: it changes the embedding's
    roles = {ref.role: ref for ref in refs}
    tied = roles.get("embed") if "head" not in roles and not re.search(r"\.\d+\.", path) else None
    return tied if tied is not None and tied.shape == shape else None
