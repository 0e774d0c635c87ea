"""Adapters for the experts of a mixture: slices of 3-D parameters, which no linear module holds.

A target is named "model.layers.0.mlp.experts.gate_up_proj[3]": the module, its parameter, the expert. Its W + BA is
folded into the parameter before the experts run, in the parameter's dtype and by the operation that PEFT uses, so that
a saved adapter gives the same logits when PEFT loads it by `target_parameters`. B A has the slice's stored shape.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geonb.adapters import bounded, peft_files
from geonb.adapters.bounded import BoundedAdapter
from geonb.adapters.factors import Factors
from geonb.errors import InputError
from geonb.records import parse_json

_NAME = re.compile(r"(?P<module>.+)\.(?P<leaf>\w+)\[(?P<expert>\d+)\]")
_HEADER = "expert_parameters"


@dataclass(frozen=True, slots=True)
class ExpertSlice:
    """One expert's matrix inside a 3-D parameter; stands where a `BoundedAdapter` has its base module."""

    module: nn.Module
    leaf: str
    expert: int

    @property
    def weight(self) -> Tensor:
        """The stored matrix itself, not a copy: what is written to it is written to the parameter."""
        return self.module.get_parameter(self.leaf).detach()[self.expert]


class ExpertAdapter(nn.Module):
    """The factors of one expert's matrix, with the attributes of a `BoundedAdapter`: base, factors, enabled."""

    def __init__(self, base: ExpertSlice, factors: Factors) -> None:
        super().__init__()
        self.base = base
        self.factors = factors
        self.enabled = True


Adapter = BoundedAdapter | ExpertAdapter


class AdaptedExperts(nn.Module):
    """A module of experts that runs with W + BA in place of W for the experts that have an adapter."""

    def __init__(self, base: nn.Module, adapters: Mapping[str, ExpertAdapter]) -> None:
        super().__init__()
        self.base = base
        self.adapters = nn.ModuleDict({f"{one.base.leaf}_{one.base.expert}": one for one in adapters.values()})

    def forward(self, *args, **kwargs):
        adapted: dict[str, list[ExpertAdapter]] = {}
        for adapter in self.adapters.values():
            assert isinstance(adapter, ExpertAdapter)
            if adapter.enabled:
                adapted.setdefault(adapter.base.leaf, []).append(adapter)
        if not adapted:
            return self.base(*args, **kwargs)
        folded = {leaf: _fold(self.base.get_parameter(leaf), ones) for leaf, ones in adapted.items()}
        return torch.func.functional_call(self.base, folded, args, kwargs)

    def __getattr__(self, name: str):
        # blocks ask their experts for sizes and settings; they mean the base's
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)


def _fold(weight: Tensor, adapters: list[ExpertAdapter]) -> Tensor:
    """W + BA for the adapted experts and W for the others, in W's dtype."""
    experts = [adapter.base.expert for adapter in adapters]
    left, right = _padded([adapter.factors() for adapter in adapters])
    chosen = torch.tensor(experts, device=weight.device)
    # a parameter may not change its dtype, so the sum is made in it even where autocast would choose another
    with torch.autocast(device_type=weight.device.type, enabled=False):
        together = torch.baddbmm(weight[chosen], left.to(weight.dtype), right.to(weight.dtype))
        return weight.index_copy(0, chosen, together)


def _padded(pairs: list[tuple[Tensor, Tensor]], rank: int = 0) -> tuple[Tensor, Tensor]:
    """Stacks (n, rows, r) and (n, r, columns) of factors of several ranks, filled up with zeros."""
    rank = max(rank, *(right.shape[0] for _, right in pairs))
    lefts = [nn.functional.pad(left, (0, rank - left.shape[1])) for left, _ in pairs]
    rights = [nn.functional.pad(right, (0, 0, 0, rank - right.shape[0])) for _, right in pairs]
    return torch.stack(lefts), torch.stack(rights)


def is_expert(name: str) -> bool:
    """Whether `name` means one expert of a 3-D parameter.

    >>> is_expert("model.layers.0.mlp.experts.down_proj[2]"), is_expert("model.layers.0.self_attn.q_proj")
    (True, False)
    """
    return _NAME.fullmatch(name) is not None


def inject(model: nn.Module, factors: Mapping[str, Factors]) -> dict[str, Adapter]:
    """Put adapters on linear modules (named by their path) and on experts (named "path.parameter[expert]").

    Raises `InputError` when a name is not in the model or its factors have another shape, before any change.
    """
    modules = dict(model.named_modules())
    grouped: dict[str, dict[str, ExpertAdapter]] = {}
    for name, factor in factors.items():
        found = _NAME.fullmatch(name)
        if found is None:
            continue
        base = ExpertSlice(modules.get(found["module"], nn.Module()), found["leaf"], int(found["expert"]))
        _check(name, base, factor)
        grouped.setdefault(found["module"], {})[name] = ExpertAdapter(base, factor)
    linear = bounded.inject(model, {name: factor for name, factor in factors.items() if not is_expert(name)})
    for path, adapters in grouped.items():
        parent, _, leaf = path.rpartition(".")
        setattr(model.get_submodule(parent), leaf, AdaptedExperts(modules[path], adapters))
    experts = {name: adapter for adapters in grouped.values() for name, adapter in adapters.items()}
    return {name: experts[name] if name in experts else linear[name] for name in factors}


def _check(name: str, base: ExpertSlice, factors: Factors) -> None:
    parameter = dict(base.module.named_parameters(recurse=False)).get(base.leaf)
    if parameter is None or parameter.ndim != 3 or base.expert >= parameter.shape[0]:
        raise InputError(f"the plan targets {name!r}, which this model does not have: plan again for this checkpoint.")
    left, right = factors()
    if (left.shape[0], right.shape[1]) != tuple(parameter.shape[1:]):
        raise InputError(
            f"the factors of {name!r} make a {left.shape[0]} x {right.shape[1]} change; this model's expert is "
            f"{parameter.shape[1]} x {parameter.shape[2]}: plan again for this checkpoint."
        )


def remove(model: nn.Module, adapters: Mapping[str, Adapter]) -> None:
    """Put the modules back where `inject` found them."""
    bounded.remove(model, {path: one for path, one in adapters.items() if isinstance(one, BoundedAdapter)})
    for path, module in list(model.named_modules()):
        if isinstance(module, AdaptedExperts):
            parent, _, leaf = path.rpartition(".")
            setattr(model.get_submodule(parent), leaf, module.base)


def save_adapter(
    folder: str | Path,
    products: Mapping[str, tuple[Tensor, Tensor]],
    adapters: Mapping[str, Adapter],
    *,
    base: str,
    transposed: bool = False,
    notes: Mapping[str, str] | None = None,
) -> Path:
    """Write `products` (name -> (B, A)) as a PEFT adapter; `adapters` (what `inject` gave) say where the experts stand.

    PEFT knows one rank for each parameter and factors for all of its experts, so the experts' factors are filled up with
    zeros to the largest rank among them; the safetensors header holds what is needed to take the zeros away again.
    """
    experts = {name: pair for name, pair in products.items() if is_expert(name)}
    linear = {name: pair for name, pair in products.items() if name not in experts}
    if not experts:
        return peft_files.save_adapter(folder, linear, base=base, transposed=transposed, notes=notes)
    rank = max(right.shape[0] for _, right in experts.values())
    tensors, layout = _expert_tensors(experts, adapters, rank)
    return peft_files.save_adapter(
        folder,
        linear,
        base=base,
        transposed=transposed,
        notes={**(notes or {}), _HEADER: json.dumps(layout, sort_keys=True)},
        parameters={entry["parameter"]: rank for entry in layout.values()},
        parameter_tensors=tensors,
    )


def _expert_tensors(
    products: Mapping[str, tuple[Tensor, Tensor]], adapters: Mapping[str, Adapter], rank: int
) -> tuple[dict[str, Tensor], dict[str, dict]]:
    """PEFT's tensors of every targeted parameter by key, and by the same keys what they hold."""
    grouped: dict[str, dict[str, dict[int, tuple[Tensor, Tensor]]]] = {}
    holders: dict[str, nn.Module] = {}
    for name, pair in products.items():
        where = adapters[name].base
        assert isinstance(where, ExpertSlice)
        path = _NAME.fullmatch(name)["module"]  # type: ignore[index]
        grouped.setdefault(path, {}).setdefault(where.leaf, {})[where.expert] = pair
        holders[path] = where.module
    tensors, layout = {}, {}
    for path, leaves in sorted(grouped.items()):
        holder = holders[path]
        # PEFT nests one wrapper per parameter in the module's own order: the last parameter is the outermost
        order = [leaf for leaf, _ in holder.named_parameters(recurse=False) if leaf in leaves]
        for depth, leaf in enumerate(reversed(order)):
            key = f"base_model.model.{path}." + "base_layer." * depth
            count, rows, columns = holder.get_parameter(leaf).shape
            nothing = torch.zeros(rows, 0), torch.zeros(0, columns)
            pairs = [leaves[leaf].get(expert, nothing) for expert in range(count)]
            pairs = [(left.detach().float().cpu(), right.detach().float().cpu()) for left, right in pairs]
            left, right = _padded(pairs, rank)
            swapped = bool(getattr(holder, "is_transposed", False))
            if swapped:  # stored as (expert, in, out): what PEFT calls A reads the rows
                left, right = right.mT, left.mT
            tensors[f"{key}lora_A.weight"] = right.reshape(count * rank, -1).contiguous()
            tensors[f"{key}lora_B.weight"] = left.permute(1, 2, 0).reshape(-1, rank * count).contiguous()
            layout[key] = {
                "parameter": f"{path}.{leaf}",
                "experts": count,
                "swapped": swapped,
                "ranks": {str(expert): right.shape[0] for expert, (_, right) in sorted(leaves[leaf].items())},
            }
    return tensors, layout


def load_factors(folder: str | Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Read back what `save_adapter` wrote, experts included: name -> (B, A), float32.

    Raises `InputError` where the folder has no readable adapter, or where its header says of the experts what is no JSON
    or does not fit the tensors.
    """
    from safetensors import safe_open

    pairs = peft_files.load_factors(folder)
    path = Path(folder) / peft_files.WEIGHTS
    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get(_HEADER, "{}")
    try:
        layout = parse_json(text, "the layout")
    except InputError:
        raise InputError(f"{path} says of its experts what is no JSON: save the adapter again.") from None
    try:
        return _take_apart(pairs, layout)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        # a stranger's header: another kind of value, another tensor, or a count that its numbers do not fill
        raise InputError(f"{path} says of its experts what does not fit its tensors: save the adapter again.") from None


def _take_apart(pairs: dict[str, tuple[Tensor, Tensor]], layout: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """The pairs with those of whole parameters replaced by one for each expert, without the zeros."""
    for key, entry in layout.items():
        left, right = pairs.pop(key.removeprefix("base_model.model.").removesuffix("."))
        count = entry["experts"]
        right = right.reshape(count, -1, right.shape[1])
        left = left.reshape(left.shape[0], -1, count).permute(2, 0, 1)
        if entry["swapped"]:
            left, right = right.mT, left.mT
        for expert, rank in entry["ranks"].items():
            index = int(expert)
            if not (0 <= index < count and 0 < rank <= right.shape[1]):
                raise ValueError
            pairs[f"{entry['parameter']}[{expert}]"] = (
                left[index, :, :rank].contiguous(),
                right[index, :rank].contiguous(),
            )
    return pairs
