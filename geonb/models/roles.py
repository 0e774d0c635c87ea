"""What a module is for, found from where it stands in the architecture."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import nn

# the last name of a projection, by what attention blocks call it
_ATTENTION = {
    "q": {"q_proj", "query", "q", "wq", "q_lin", "to_q"},
    "k": {"k_proj", "key", "k", "wk", "k_lin", "to_k"},
    "v": {"v_proj", "value", "v", "wv", "v_lin", "to_v"},
    "o": {"o_proj", "out_proj", "dense", "c_proj", "wo", "out_lin", "to_out", "o"},
    "fused": {"qkv_proj", "query_key_value", "c_attn", "qkv", "wqkv", "in_proj"},
}
_FEED_FORWARD = {
    "gate": {"gate_proj", "w1", "wi_0"},
    "up": {"up_proj", "w3", "c_fc", "fc1", "dense_h_to_4h", "fc_in", "lin1", "wi_1", "wi", "linear1"},
    "down": {"down_proj", "w2", "c_proj", "fc2", "dense_4h_to_h", "fc_out", "lin2", "wo", "linear2", "output_linear"},
    "fused": {"gate_up_proj", "wi_fused", "input_linear"},
}
_ATTENTION_CLASS = re.compile(r"attn|attention", re.I)
_FEED_FORWARD_CLASS = re.compile(r"mlp|feedforward|feed_forward|ffn|expert", re.I)
_CONVOLUTION_CLASS = re.compile(r"conv", re.I)


def layer_of(path: str, modules: Mapping[str, nn.Module]) -> int | None:
    """The index of the block that `path` lies in: the first number in it that counts the items of a module list."""
    names = path.split(".")
    for position, name in enumerate(names):
        if name.isdigit() and isinstance(modules.get(".".join(names[:position])), nn.ModuleList):
            return int(name)
    return None


def role_of(path: str, modules: Mapping[str, nn.Module], *, output: nn.Module | None) -> str:
    """The role of the module at `path`: by its kind first, then by the block around it, then by its own name.

    The block is the nearest ancestor whose class or name says attention, convolution or feed-forward, so that `c_proj`
    and `dense`, which mean two things in one model, are told apart by where they stand.
    """
    module = modules[path]
    if module is output:
        return "head"
    if isinstance(module, nn.Embedding):
        return "embed"
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return "conv"
    names = path.split(".")
    leaf = names[-1].lower()
    parent = modules.get(".".join(names[:-1]))
    if parent is not None and "experts" in dict(parent.named_children()) and leaf in {"gate", "router"}:
        return "router"
    for depth in range(len(names) - 1, 0, -1):
        ancestor = ".".join(names[:depth])
        # the class says what a block is; the name helps where a class is called by its place ("BertOutput")
        label = f"{type(modules[ancestor]).__name__} {names[depth - 1]}"
        if names[depth - 1].isdigit():
            break
        if _ATTENTION_CLASS.search(label):
            return _named(leaf, _ATTENTION)
        if _CONVOLUTION_CLASS.search(label):
            return "conv"
        if _FEED_FORWARD_CLASS.search(label):
            return _named(leaf, _FEED_FORWARD)
    return _by_shape(module, path)


def _named(leaf: str, vocabulary: Mapping[str, set[str]]) -> str:
    return next((role for role, names in vocabulary.items() if leaf in names), "other")


def _by_shape(module: nn.Module, path: str) -> str:
    """Encoders of BERT's kind keep their feed-forward maps apart: the wide one leads up, its counterpart down."""
    weight = getattr(module, "weight", None)
    if weight is None or weight.ndim != 2 or not re.search(r"\.\d+\.", path):
        return "other"
    rows, columns = weight.shape
    if rows > columns:
        return "up"
    return "down" if rows < columns else "other"
