"""W13: how much the query heads of the first layer share with the key heads that they are scored against."""

from __future__ import annotations

import numpy as np

from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint


def query_key_alignment(query, key, heads: int, groups: int) -> float:
    """Mean over heads h of sqrt(d) ||W_q,h W_k,g(h)^T||_F / (||W_q,h||_F ||W_k,g(h)||_F); about 1 for independent weights.

    `query`: (heads x size, d), `key`: (groups x size, d); head h is scored against key head h // (heads / groups).
    Raises `InputError` where the shapes do not fit.
    """
    q, k = np.asarray(query, dtype=np.float64), np.asarray(key, dtype=np.float64)
    if (
        heads % groups
        or len(q) % heads
        or len(k) % groups
        or len(q) // heads != len(k) // groups
        or q.shape[1] != k.shape[1]
    ):
        raise InputError(
            f"queries {q.shape} and keys {k.shape} were given for {heads} and {groups} heads; allowed are heads of one size "
            "in both, as many query heads as key heads or a multiple."
        )
    by_head, by_group = q.reshape(heads, -1, q.shape[1]), k.reshape(groups, -1, k.shape[1])
    values = []
    for head in range(heads):
        mine, theirs = by_head[head], by_group[head // (heads // groups)]
        values.append(np.linalg.norm(mine @ theirs.T) / (np.linalg.norm(mine) * np.linalg.norm(theirs)))
    return float(np.mean(values) * np.sqrt(q.shape[1]))


def head_counts(checkpoint: Checkpoint) -> tuple[int, int]:
    """Query heads and key heads, as the config counts them; raises `InputError` where it does not."""
    config = checkpoint.config.get("text_config") or checkpoint.config
    heads = config.get("num_attention_heads") or config.get("n_head")
    if not isinstance(heads, int) or heads < 1:
        raise InputError(f"the config of {checkpoint.source} counts no attention heads: give a model with attention.")
    groups = config.get("num_key_value_heads") or heads
    return heads, int(groups)


def first_layer(checkpoint: Checkpoint) -> tuple[np.ndarray, np.ndarray]:
    """The query and key weights of the first block that has them, (out, in), float64; a fused map is taken apart."""
    heads, groups = head_counts(checkpoint)
    for layer in sorted({ref.layer for ref in checkpoint.refs if ref.layer is not None}):
        found = {ref.role: ref for ref in checkpoint.refs if ref.layer == layer}
        if "q" in found and "k" in found:
            return tuple(checkpoint.read(found[role]).double().numpy() for role in ("q", "k"))  # type: ignore[return-value]
        if "fused" in found:
            whole = checkpoint.read(found["fused"]).double().numpy()
            size = len(whole) // (heads + 2 * groups)
            return whole[: heads * size], whole[heads * size : (heads + groups) * size]
    raise InputError(f"{checkpoint.source} has no block with queries and keys: give a model with attention.")


def alignment_of(source: str) -> tuple[int, float]:
    """Query heads a key head, and the alignment of the first layer."""
    checkpoint = Checkpoint.open(source)
    heads, groups = head_counts(checkpoint)
    query, key = first_layer(checkpoint)
    return heads // groups, query_key_alignment(query, key, heads, groups)
