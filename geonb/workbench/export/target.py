"""What every export target offers: a check before any work, a writer, and its own loader read back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.workbench.export.gap import Logits
from geonb.workbench.export.source import Source

# what a reload yields: the weights as stored in float32 arithmetic (this is judged), or as the loader serves them
STORED, SERVED = "stored weights, float32 arithmetic", "as served"


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of export.

    `check(checkpoint, bits)` raises `InputError` where this base cannot be exported so; `write(source, folder, bits,
    progress)` returns notes; `reload(source, folder)` yields (STORED or SERVED, logits) one loaded model at a time.
    """

    name: str
    loader: str  # the package that reads the export back
    precision: Callable[[Checkpoint, int | None], str]  # a key of the tolerances
    check: Callable[[Checkpoint, int | None], None]
    write: Callable[[Source, Path, int | None, Callable[[str], None]], tuple[str, ...]]
    reload: Callable[[Source, Path], Iterator[tuple[str, Logits]]]
    bits: tuple[int, ...] = ()  # allowed; the first is the default
    needs_changes: bool = True
    explain: Callable[[Source], str] | None = None  # asked after a failure: what else may be its cause; "" for nothing


def transformers_logits(model: Any, device: str) -> Logits:
    """`model`, a loaded causal model of transformers, as a function of token ids."""
    import torch

    model = model.to(device).eval()

    @torch.no_grad()
    def logits(ids):
        tensor = torch.tensor([list(ids)], dtype=torch.long, device=device)
        return model(input_ids=tensor, use_cache=False).logits[0].float().cpu()

    return logits


def require(package: str, *, extra: str, target: str) -> None:
    """Raise `InputError` where `package` is not installed."""
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise InputError(
            f"the target {target} needs the package {extra}, which is not installed: pip install {extra}, or choose "
            "another target."
        )
