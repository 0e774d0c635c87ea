"""The logit lens: what a model's final norm and head would say of the residual stream at any layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from geonb.analysis.blocks import find_blocks, hidden_of
from geonb.analysis.opened import open_model
from geonb.errors import InputError

_ROWS = 64  # at a time: 64 x 150,000 x 8 bytes is 77 MB


@dataclass(frozen=True, slots=True)
class LogitLens:
    """Final norm and output head of one model, applied to rows of the residual stream."""

    norm: Any
    head: Any
    source: str

    def logits(self, rows: Any) -> np.ndarray:
        """Logits (n, vocabulary), float32, of `rows` (n, d)."""
        import torch

        weight = self.head.weight
        with torch.no_grad():
            given = torch.as_tensor(np.asarray(rows, dtype=np.float32)).to(weight.device, weight.dtype)
            return self.head(self.norm(given)).float().cpu().numpy()

    def entropy(self, rows: Any) -> np.ndarray:
        """Entropy (n,) in nats of softmax(logits) over the whole vocabulary, 0 to ln V."""
        from scipy.special import entr, log_softmax

        given = np.asarray(rows)
        found = [
            entr(np.exp(log_softmax(self.logits(given[start : start + _ROWS]).astype(np.float64), axis=1))).sum(1)
            for start in range(0, len(given), _ROWS)
        ]
        return np.concatenate(found)


def logit_lens(model: Any, *, device: str = "auto") -> LogitLens:
    """The lens of `model` (as `collect` takes it), checked against the model's own logits on four tokens.

    Raises `InputError` where no final norm or head is found, or where the model does more to its logits than these two.

    >>> logit_lens("embedded").entropy(np.zeros((1, 256))).round(3) == round(np.log(2048), 3)  # doctest: +SKIP
    array([ True])
    """
    import torch

    opened = open_model(model, device=device)
    path, blocks = find_blocks(opened.model)
    parent = opened.model.get_submodule(path.rpartition(".")[0])
    norms = [child for child in parent.children() if "norm" in type(child).__name__.lower()]
    head = opened.model.get_output_embeddings()
    if not norms or head is None:
        raise InputError(f"{opened.source} has no final norm beside its blocks, or no output head: leave the lens out.")
    lens = LogitLens(norm=norms[-1], head=head, source=opened.source)
    last: list[Any] = []
    handle = blocks[-1].register_forward_hook(lambda _m, _a, result: last.append(hidden_of(result)))
    try:
        with torch.no_grad():
            ids = torch.arange(4, device=opened.device)[None]
            own = (
                opened.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
                .logits[0]
                .float()
                .cpu()
                .numpy()
            )
    finally:
        handle.remove()
    seen = lens.logits(last[0][0].float().cpu().numpy())
    if seen.shape != own.shape or not np.allclose(seen, own, rtol=2e-2, atol=2e-2 * float(np.abs(own).max())):
        raise InputError(
            f"{opened.source} does more to its logits than its final norm and head do: leave the lens out for this model."
        )
    return lens
