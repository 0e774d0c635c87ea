"""A model turned in its own basis: the same function, so an adapter must move into it exactly."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from geonb.claims.experiments.adapter_transfer import RANK
from geonb.errors import InputError

# of a Llama-like block: the maps that read the residual stream; the others write into it
_READS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
_BESIDE = "mlp.gate_proj"


@torch.no_grad()
def turned_copy(model: Any, turn: Tensor) -> Any:
    """The same function in another basis of the residual stream: a Llama-like model with its gains folded in and Q put in.

    RMSNorm without gain commutes with an orthogonal Q, so the logits stay. Raises `InputError` for another architecture.
    """
    if not hasattr(getattr(model, "model", None), "norm") or not hasattr(model.model.layers[0], "input_layernorm"):
        raise InputError(f"{type(model).__name__} has no RMSNorm before each block; allowed is a Llama-like model.")
    twin = copy.deepcopy(model)
    twin.config.tie_word_embeddings = False
    embedding = twin.model.embed_tokens.weight.data.clone()
    twin.lm_head.weight = nn.Parameter(
        embedding.clone() if model.config.tie_word_embeddings else twin.lm_head.weight.data.clone()
    )
    twin.lm_head.weight.data = (twin.lm_head.weight.data * twin.model.norm.weight.data) @ turn.T
    twin.model.embed_tokens.weight = nn.Parameter(embedding @ turn.T)
    twin.model.norm.weight.data.fill_(1.0)
    for block in twin.model.layers:
        for norm, names in (
            (block.input_layernorm, ("q_proj", "k_proj", "v_proj")),
            (block.post_attention_layernorm, ("gate_proj", "up_proj")),
        ):
            for name in names:
                module = getattr(block.self_attn if name[0] in "qkv" else block.mlp, name)
                module.weight.data = (module.weight.data * norm.weight.data) @ turn.T
            norm.weight.data.fill_(1.0)
        for module in (block.self_attn.o_proj, block.mlp.down_proj):
            module.weight.data = turn @ module.weight.data
    return twin.eval().requires_grad_(False)


@torch.no_grad()
def seen_by(model: Any, texts: Sequence[Sequence[int]]) -> dict[str, tuple[Tensor, Tensor]]:
    """What goes into and comes out of every linear map of a causal model's blocks, one row a token."""
    modules = {name: module for name, module in model.model.layers.named_modules() if isinstance(module, nn.Linear)}
    seen: dict[str, tuple[list[Tensor], list[Tensor]]] = {name: ([], []) for name in modules}

    def keep(name: str):
        def hook(module, given, out):
            seen[name][0].append(given[0][0])
            seen[name][1].append(out[0])

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        for ids in texts:
            model(input_ids=torch.tensor([list(ids)]), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return {name: (torch.cat(given), torch.cat(out)) for name, (given, out) in seen.items()}


@torch.no_grad()
def logits_with(model: Any, change: Mapping[str, Tensor], texts: Sequence[Sequence[int]]) -> Tensor:
    """The logits of every token of `texts` with each dW added to its map for the while."""
    modules = dict(model.model.layers.named_modules())
    for name, delta in change.items():
        modules[name].weight += delta
    try:
        return torch.cat([model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0] for ids in texts])
    finally:
        for name, delta in change.items():
            modules[name].weight -= delta


@dataclass(frozen=True, slots=True)
class TurnedError:
    """Largest error of the logits over the largest change that the adapter makes, for four ways to move it."""

    fitted: float  # the stream's sides turned by Procrustes, heads and neurons left as they are
    every_side: (
        float  # Procrustes on what goes into and out of each matrix: blind where the adapter writes and nothing wrote
    )
    copied: float
    random: float


def turned_error(
    model: Any,
    fit_on: Sequence[Sequence[int]],
    judge_on: Sequence[Sequence[int]],
    *,
    seed: int,
    every_side: bool = False,
) -> TurnedError:
    """Move a random adapter of rank 8 (a tenth of each matrix's norm) into a copy of `model` in a random basis.

    `every_side` asks for that way too; it takes most of the time, and is nan without.
    """
    generator = torch.Generator().manual_seed(seed)
    width = model.config.hidden_size
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))[0]
    model = copy.deepcopy(model).double()
    source = turned_copy(model, torch.eye(width, dtype=torch.float64))
    target = turned_copy(model, turn)
    before, after = seen_by(source, fit_on), seen_by(target, fit_on)
    modules = dict(source.model.layers.named_modules())
    change = {}
    for name in before:
        weight = modules[name].weight
        rows, columns = weight.shape
        delta = torch.randn(rows, RANK, generator=generator, dtype=torch.float64) @ torch.randn(
            RANK, columns, generator=generator, dtype=torch.float64
        )
        change[name] = 0.1 * torch.linalg.matrix_norm(weight, 2) / torch.linalg.matrix_norm(delta, 2) * delta
    wanted, plain = logits_with(source, change, judge_on), logits_with(source, {}, judge_on)
    scale = float((wanted - plain).abs().max())

    def turned(columns: int) -> Tensor:
        return torch.linalg.qr(torch.randn(columns, columns, generator=generator, dtype=torch.float64))[0]

    stream = {name: _turn_of(before[name][0], after[name][0]) for name in change if name.endswith(_READS)}
    ways = {
        "fitted": {
            name: delta @ stream[name].T if name in stream else stream[f"{name.split('.')[0]}.{_BESIDE}"] @ delta
            for name, delta in change.items()
        },
        "copied": change,
        "random": {name: turned(delta.shape[0]) @ delta @ turned(delta.shape[1]).T for name, delta in change.items()},
    }
    if every_side:
        ways["every_side"] = {
            name: _turn_of(before[name][1], after[name][1]) @ delta @ _turn_of(before[name][0], after[name][0]).T
            for name, delta in change.items()
        }
    errors = {
        way: float((logits_with(target, moved, judge_on) - wanted).abs().max()) / scale for way, moved in ways.items()
    }
    return TurnedError(**{"every_side": float("nan"), **errors})


def _turn_of(source: Tensor, target: Tensor) -> Tensor:
    """Procrustes without centring: nothing is moved between the two, only turned."""
    left, _, right = torch.linalg.svd(target.T @ source, full_matrices=False)
    return left @ right
