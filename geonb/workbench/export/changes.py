"""The low-rank changes of an adapter, as PEFT resolved them: which matrix, which factors, which scale."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from geonb.adapters.foreign import read_config
from geonb.adapters.peft_files import WEIGHTS
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.headers import read_header
from geonb.models.matrix_ref import MatrixRef

# beside the factors of a head PEFT stores the head itself, unchanged; were it not, the logits would tell
_FACTOR = re.compile(r".+\.(lora_[AB](\.[^.]+)?|base_layer)\.weight")
_MOVES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True, slots=True)
class Change:
    """dW = scale B A of one matrix: B (out, r) and A (r, in), float32 on the CPU."""

    module: str  # the module's path; an expert's is "path.parameter[expert]"
    ref: MatrixRef | None  # None for an output head that is tied to the embedding
    left: Any
    right: Any
    scale: float

    @property
    def rank(self) -> int:
        """Rows of A."""
        return self.right.shape[0]

    def dense(self) -> Any:
        """dW in float64, (out, in)."""
        return self.scale * (self.left.double() @ self.right.double())


def refuse_unmergeable(folder: Path) -> None:
    """Raise `InputError` where the adapter is more than W + scale B A, from its config and the names in its header."""
    config = read_config(folder)
    start = str(config.get("init_lora_weights")).lower()
    if start.startswith(_MOVES_BASE):
        raise InputError(
            f"the adapter {folder} starts by {start!r}, which also changes the base; allowed here is W + scale B A alone: "
            "save it with PEFT's path_initial_model_for_weight_conversion first."
        )
    if config.get("alora_invocation_tokens"):
        raise InputError(
            f"the adapter {folder} acts only after its invocation tokens, which no weight can express: export it with "
            "--target adapter."
        )
    others = [name for name in read_header(folder / WEIGHTS) if not _FACTOR.fullmatch(name)]
    if others:
        raise InputError(
            f"the adapter {folder} holds {others[0]!r} ({len(others)} such tensors), which is no lora_A or lora_B weight; "
            "allowed here is W + scale B A alone: export it with --target adapter, or merge it with PEFT."
        )


def read_changes(model: Any, checkpoint: Checkpoint) -> tuple[Change, ...]:
    """Every change of the active adapter of a PEFT `model`; factors that are all zero are left out.

    Raises `InputError` for a wrapped module that has no stored matrix of its own in `checkpoint`.
    """
    from peft.tuners.lora.layer import LoraLayer, ParamWrapper

    refs = {ref.module: ref for ref in checkpoint.refs if ref.expert is None and ref.slice is None}
    experts = {ref.name: ref for ref in checkpoint.refs if ref.expert is not None}
    found: list[Change] = []
    for path, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        name, wrapper = path.removeprefix("base_model.model."), cast(Any, module)
        if isinstance(module, ParamWrapper):
            # PEFT nests one wrapper for each parameter of a module
            name = f"{re.sub(r'(.base_layer)+$', '', name)}.{wrapper.parameter_name}"
            found += _of_experts(name, wrapper, experts, checkpoint)
        elif name in refs or _is_tied_head(name, checkpoint):
            adapter = wrapper.active_adapters[0]
            left, right = (side[adapter].weight.detach().cpu().clone() for side in (wrapper.lora_B, wrapper.lora_A))
            if left.ndim != 2 or ((ref := refs.get(name)) is not None and ref.shape != (len(left), right.shape[1])):
                raise InputError(_unplaced(name, checkpoint))
            found.append(Change(name, refs.get(name), left, right, float(wrapper.scaling[adapter])))
        else:
            raise InputError(_unplaced(name, checkpoint))
    return tuple(one for one in found if one.left.any() and one.right.any() and one.scale)


def _of_experts(name: str, module: Any, refs: dict[str, MatrixRef], checkpoint: Checkpoint) -> list[Change]:
    """One change an expert: A is stored as (experts * r, in), B as (out, r * experts) with the expert last."""
    adapter = module.active_adapters[0]
    left, right = (side[adapter].weight.detach().cpu() for side in (module.lora_B, module.lora_A))
    count = module.num_experts
    if f"{name}[{count - 1}]" not in refs:
        raise InputError(_unplaced(name, checkpoint))
    right = right.reshape(count, -1, right.shape[1])
    left = left.reshape(left.shape[0], -1, count).permute(2, 0, 1)
    if getattr(module.get_base_layer(), "is_transposed", False):  # the parameter is (experts, in, out)
        left, right = right.mT, left.mT
    scale = float(module.scaling[adapter])
    return [
        Change(f"{name}[{expert}]", refs[f"{name}[{expert}]"], left[expert].clone(), right[expert].clone(), scale)
        for expert in range(count)
    ]


def _is_tied_head(name: str, checkpoint: Checkpoint) -> bool:
    roles = {ref.role for ref in checkpoint.refs}
    return "head" not in roles and "embed" in roles and not re.search(r"\.\d+\.", name) and "embed" not in name


def _unplaced(name: str, checkpoint: Checkpoint) -> str:
    return (
        f"the adapter changes {name!r}, which is no stored matrix of {checkpoint.source}; allowed are linear maps and "
        "experts' parameters: export it with --target adapter."
    )
