"""What a run would take in memory: rough, stated estimates that decide ranks and micro-batches only where they must."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from geonb.derive.lora_rank import adapter_bytes
from geonb.errors import InputError

# without a stated budget, activations on a CPU get this much, the same on every machine so that a plan is as well
_CPU_ACTIVATIONS = 4 * 2**30
# estimates are rough and allocators fragment: a fifth is left free (convention)
_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of the base model in memory, and of one example's activations and logits in a forward and backward pass."""

    model: int
    example: int


def footprint(
    refs: Iterable, config: Mapping[str, Any], *, sequence_length: int, bytes_per_weight: int = 4
) -> Footprint:
    """Estimate from shapes: each linear map keeps input and output twice, the logits exist four times in float32."""
    refs = list(refs)
    weights = sum(ref.shape[0] * ref.shape[1] for ref in refs)
    per_layer: dict[tuple[int | None, str], int] = {}
    for ref in refs:
        if ref.expert is not None:
            key = (ref.layer, ref.role)
            per_layer[key] = per_layer.get(key, 0) + 1
    active = int(config.get("num_experts_per_tok") or 2)
    width = 0.0
    for ref in refs:
        if ref.role in ("embed", "head"):
            continue
        share = 1.0 if ref.expert is None else min(1.0, active / per_layer[(ref.layer, ref.role)])
        width += share * sum(ref.shape)
    vocabulary = max((max(ref.shape) for ref in refs if ref.role in ("embed", "head")), default=0)
    return Footprint(
        model=weights * bytes_per_weight,
        example=int(sequence_length * 4 * (2 * width + 4 * vocabulary)),
    )


def device_memory(device: str) -> int | None:
    """Total bytes of the device, or None where the system does not say."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.get_device_properties(torch.device(device)).total_memory)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def adapter_limit(
    needed: Footprint,
    shapes: Mapping[str, tuple[int, int]],
    wanted: Mapping[str, int],
    *,
    sides: str,
    memory_budget: int | None,
    device: str,
) -> tuple[int | None, str]:
    """Bytes left for adapters and what set the limit; (None, ...) where nothing was stated and the device holds all.

    The device's size enters a plan only where it decides, so that machines on which everything fits agree to the byte.
    """
    least = adapter_bytes(shapes, dict.fromkeys(wanted, 1), sides)
    if memory_budget is not None:
        left = memory_budget - needed.model - needed.example
        if left < least:
            raise InputError(
                f"--memory-budget was given {memory_budget:,} bytes, but the model, one example and rank-1 adapters "
                f"take about {needed.model + needed.example + least:,}: give more, or shorten --seq-length."
            )
        return left, f"--memory-budget {memory_budget:,} bytes"
    total = device_memory(device)
    if total is None:
        return None, "nothing stated"
    left = int(total * _SHARE) - needed.model - needed.example
    if adapter_bytes(shapes, wanted, sides) <= left:
        return None, "nothing stated"
    return max(left, least), f"{total / 2**30:.0f} GiB of {device.split(':')[0]}"


def micro_batch(
    size: int, needed: Footprint, adapters: int, *, memory_budget: int | None, device: str
) -> tuple[int, str]:
    """The largest micro-batch that fits, at most `size`, and why; the rest of a batch is accumulated."""
    if memory_budget is not None:
        room, named = memory_budget - needed.model - adapters, "--memory-budget"
    elif device == "cpu":
        room, named = _CPU_ACTIVATIONS, "the 4 GiB that activations get on a CPU"
    else:
        total = device_memory(device)
        if total is None:
            return size, "the device does not say how much memory it has"
        room, named = int(total * _SHARE) - needed.model - adapters, "the device's memory"
    fits = max(1, min(size, room // max(1, needed.example)))
    if fits == size:
        return size, "the whole batch fits"
    return fits, f"limited by {named}, at about {needed.example / 2**20:,.0f} MiB an example"
