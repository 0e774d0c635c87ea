"""The matrices of an architecture, from its modules on the meta device: no weights, no network, no foreign code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geonb.errors import InputError
from geonb.models.headers import FLOATS, TensorHeader
from geonb.models.matrix_ref import MatrixRef
from geonb.models.roles import layer_of, role_of
from geonb.records import plain


@dataclass(frozen=True, slots=True)
class Architecture:
    """What the config says the model is; `model` is the transformers model on the meta device, None if unknown."""

    model_type: str
    name: str
    is_causal: bool
    model: Any


_CAUSAL = re.compile(r"(ForCausalLM|LMHeadModel)$")


# what a config counts and a model builds one by one; "max_window_layers" and "num_experts_per_tok" are no such counts
_COUNT = re.compile(r"(?!max_).*(^|_)(layers?|blocks|depth|experts)$")
_ANY_COUNT = 256  # so many are built within a second, and weights may be shared between them


def refuse_unheld_layers(folder: Path, config: Any, headers: Mapping[str, TensorHeader]) -> None:
    """Raise `InputError` where a config declares far more layers or experts than its weights hold: building takes hours."""
    numbers = {part for name in headers for part in name.split(".") if part.isdecimal()}
    experts = max((header.shape[0] for header in headers.values() if len(header.shape) == 3), default=0)
    held = max(len(numbers), experts)
    waiting = [config]
    while waiting:
        for key, value in waiting.pop().items():
            if isinstance(value, dict):
                waiting.append(value)
            elif isinstance(value, int) and value > max(held, _ANY_COUNT) and _COUNT.fullmatch(key):
                kind = "experts" if key.endswith("experts") else "layers"
                raise InputError(
                    f"{folder / 'config.json'} declares {value:,} {kind} ({plain(key)[:60]}) and the weights hold {held:,}: "
                    "copy or download it again."
                )


def build_architecture(folder: Path, config: dict) -> Architecture:
    """Instantiate the architecture without weights; one that transformers does not know gives `model=None`."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    model_type = str(config.get("model_type", ""))
    listed = config.get("architectures")
    declared = str(listed[0]) if isinstance(listed, list) and listed else ""
    causal = bool(_CAUSAL.search(declared))
    try:
        known = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            model = (AutoModelForCausalLM if causal else AutoModel).from_config(known, trust_remote_code=False)
    except Exception:
        # a stranger's config can make transformers and torch raise nearly anything; the matrices are there all the same
        return Architecture(model_type=model_type, name=declared or model_type, is_causal=causal, model=None)
    return Architecture(model_type=model_type, name=type(model).__name__, is_causal=causal, model=model)


def find_matrices(architecture: Architecture, headers: dict[str, TensorHeader]) -> tuple[MatrixRef, ...]:
    """Every matrix of the checkpoint, blocks first in the model's order; what no module claims gets the role `other`."""
    refs: list[MatrixRef] = []
    claimed: set[str] = set()
    if architecture.model is not None:
        for ref in _from_modules(architecture.model, headers):
            # a tied tensor belongs to the first module that claims it
            if claimed.isdisjoint(ref.parts) or ref.slice is not None or ref.expert is not None:
                refs.append(ref)
                claimed.update(ref.parts)
    for name, header in headers.items():
        if name in claimed or header.dtype not in FLOATS or min(header.shape, default=0) < 1:
            continue
        if len(header.shape) == 2:
            refs.append(_unclaimed(name, header, header.shape, None))
        elif len(header.shape) == 3 and header.shape[1] > 1 and header.shape[2] > 1:
            refs.extend(_unclaimed(name, header, header.shape[1:], index) for index in range(header.shape[0]))
    if not refs:
        raise InputError("the checkpoint holds no floating-point matrix: give a language model's folder.")
    return tuple(sorted(refs, key=lambda ref: (ref.role in {"embed", "head"}, 0)))


def _unclaimed(name: str, header: TensorHeader, shape, index: int | None) -> MatrixRef:
    return MatrixRef(
        name=name if index is None else f"{name}[{index}]",
        module=name.removesuffix(".weight"),
        role="other",
        layer=_first_number(name),
        expert=None,
        shape=(int(shape[0]), int(shape[1])),
        dtype=FLOATS[header.dtype],
        targetable=False,
        because="no module of a known architecture holds it",
        parts=(name,),
        slice=index,
    )


def _first_number(name: str) -> int | None:
    found = re.search(r"\.(\d+)\.", name)
    return int(found.group(1)) if found else None


def _from_modules(model, headers: dict[str, TensorHeader]):
    from torch import nn

    modules = dict(model.named_modules())
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    prefix = getattr(model, "base_model_prefix", "")
    own = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for path, module in modules.items():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.ndim == 2:
            header = _stored(f"{path}.weight", headers, prefix)
            if header is None and module is output:
                header = _renamed_head(weight, headers, own, prefix)
            if header is not None:
                _refuse_shape(header, header.dtype in FLOATS and len(header.shape) != 2, "two dimensions")
                yield _module_ref(path, module, header, modules, output)
        elif isinstance(module, nn.Conv1d):
            header = _stored(f"{path}.weight", headers, prefix)
            if header is not None:
                _refuse_shape(header, len(header.shape) < 2, "two dimensions or more")
                yield _kernel_ref(path, module, header, modules)
        yield from _expert_refs(path, module, headers, prefix, modules)


def _stored(name: str, headers: dict[str, TensorHeader], prefix: str) -> TensorHeader | None:
    """The stored tensor of a parameter: checkpoints may leave out or add the base model's prefix."""
    candidates = (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}")
    found = next((headers[candidate] for candidate in candidates if candidate in headers), None)
    return found if found is not None else _renamed(name, headers)


def _renamed(name: str, headers: dict[str, TensorHeader]) -> TensorHeader | None:
    """A checkpoint may call a block's part otherwise ("block_sparse_moe.gate" for "mlp.gate"): same layer, same leaf."""
    block = re.match(r"(.*?\.\d+\.)", name)
    if block is None:
        return None
    leaf = ".".join(name.split(".")[-2:])
    same = [key for key in headers if key.startswith(block.group(1)) and key.endswith(f".{leaf}")]
    depth = name.count(".")
    same = [key for key in same if key.count(".") == depth]
    return headers[same[0]] if len(same) == 1 else None


def _renamed_head(weight, headers: dict[str, TensorHeader], own: set[str], prefix: str) -> TensorHeader | None:
    """An output head that the checkpoint calls otherwise: the one tensor of its shape that no module is named after."""
    found = [
        header
        for name, header in headers.items()
        if header.shape == tuple(weight.shape) and name not in own and f"{prefix}.{name}" not in own
    ]
    return found[0] if len(found) == 1 else None


def _module_ref(path: str, module, header: TensorHeader, modules, output) -> MatrixRef:
    from torch import nn

    role = role_of(path, modules, output=output)
    layer = layer_of(path, modules)
    vocabulary = getattr(modules[""].config, "vocab_size", None)
    if role == "other" and layer is None and isinstance(module, nn.Linear) and module.weight.shape[0] == vocabulary:
        role = "head"
    transposed = type(module).__name__ == "Conv1D"
    linear = transposed or isinstance(module, nn.Linear)
    shape = tuple(reversed(header.shape)) if transposed else header.shape
    if header.dtype not in FLOATS:
        raise InputError(_quantised(header))
    reasons = {
        "embed": "an embedding is analysed, not targeted",
        "head": "the output head is analysed, not targeted",
        "router": "a router decides which expert runs; it is analysed, not targeted",
    }
    inside = layer is not None and linear and role not in reasons
    if inside:
        because = "a linear map inside a block"
    else:
        because = reasons.get(role, "not a linear map inside a block")
    return MatrixRef(
        name=f"{path}.weight",
        module=path,
        role=role,
        layer=layer,
        expert=None,
        shape=(int(shape[0]), int(shape[1])),
        dtype=FLOATS[header.dtype],
        targetable=inside,
        because=because,
        parts=(header.name,),
        transposed=transposed,
    )


def _kernel_ref(path: str, module, header: TensorHeader, modules) -> MatrixRef:
    rows = int(header.shape[0])
    columns = 1
    for size in header.shape[1:]:
        columns *= int(size)
    return MatrixRef(
        name=f"{path}.weight",
        module=path,
        role="conv",
        layer=layer_of(path, modules),
        expert=None,
        shape=(rows, columns),
        dtype=FLOATS.get(header.dtype, header.dtype),
        targetable=False,
        because="a convolution kernel (channels x taps) is analysed, not targeted",
        parts=(header.name,),
    )


# how checkpoints that keep experts apart name the parts of what the model joins
_EXPERT_PARTS = {
    "gate_up_proj": (("w1", "w3"), ("gate_proj", "up_proj")),
    "down_proj": (("w2",), ("down_proj",)),
}


def _expert_refs(path: str, module, headers: dict[str, TensorHeader], prefix: str, modules):
    """One reference per expert of each 3-D parameter, whether it is stored whole or expert by expert."""
    for leaf, parameter in module.named_parameters(recurse=False):
        if parameter.ndim != 3 or type(module).__name__.lower().find("expert") < 0:
            continue
        whole = _stored(f"{path}.{leaf}", headers, prefix)
        if whole is not None:
            _refuse_shape(whole, whole.shape[:1] != parameter.shape[:1], f"one of {parameter.shape[0]} experts")
        # experts that are stored apart are at most as many as there are tensors
        for expert in range(parameter.shape[0] if whole is not None else min(parameter.shape[0], len(headers))):
            if whole is not None:
                parts, dtype, index = (whole.name,), whole.dtype, expert
            else:
                found = _apart(path, leaf, expert, headers)
                if found is None:
                    continue
                parts, dtype, index = tuple(header.name for header in found), found[0].dtype, None
            if dtype not in FLOATS:
                raise InputError(_quantised(headers[parts[0]]))
            yield MatrixRef(
                name=f"{path}.{leaf}[{expert}]",
                module=path,
                role="fused" if leaf == "gate_up_proj" else _EXPERT_ROLES.get(leaf, "other"),
                layer=layer_of(path, modules),
                expert=expert,
                shape=(int(parameter.shape[1]), int(parameter.shape[2])),
                dtype=FLOATS[dtype],
                targetable=True,
                because="one expert's linear map",
                parts=parts,
                slice=index,
            )


_EXPERT_ROLES = {"down_proj": "down", "up_proj": "up", "gate_proj": "gate", "w1": "gate", "w2": "down", "w3": "up"}


def _apart(path: str, leaf: str, expert: int, headers: dict[str, TensorHeader]) -> list[TensorHeader] | None:
    block = path.rpartition(".")[0].rpartition(".")[0]
    for names in _EXPERT_PARTS.get(leaf, ()):
        found = []
        for name in names:
            pattern = re.compile(re.escape(block) + r"\.\w+\.experts\." + str(expert) + r"\." + name + r"\.weight$")
            match = next((header for key, header in headers.items() if pattern.match(key)), None)
            if match is not None:
                found.append(match)
        if len(found) == len(names):
            return found
    return None


def _refuse_shape(header: TensorHeader, wrong: bool, allowed: str) -> None:
    if wrong or 0 in header.shape:
        raise InputError(
            f"{header.file} stores the tensor {plain(header.name)[:100]} with the shape {list(header.shape)}; allowed "
            f"is {allowed}, none of them empty: save the model again."
        )


def _quantised(header: TensorHeader) -> str:
    return (
        f"the tensor {header.name} is stored as {header.dtype}, which is a quantised weight; allowed are float64, float32, "
        "float16 and bfloat16, because a quantised matrix has another spectrum: give the unquantised checkpoint."
    )
