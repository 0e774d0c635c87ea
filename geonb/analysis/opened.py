"""What may be given as a model: a source, a checkpoint, a loaded runtime or bench, or a plain transformers model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geonb.errors import InputError


@dataclass(frozen=True, slots=True)
class Opened:
    """A model in evaluation mode with its tokenizer, if any, and the name that results carry."""

    model: Any
    tokenizer: Any
    source: str
    context: int | None  # longest sequence, tokens

    @property
    def device(self) -> Any:
        return next(self.model.parameters()).device


def open_model(given: Any, *, tokenizer: Any = None, device: str = "auto") -> Opened:
    """`given` as a model that runs; loads a source (folder, hub id, "embedded") or a `Checkpoint`, else takes it as it is.

    A plain model that is in training mode is refused with `InputError`: its dropout would be measured.
    """
    from torch import nn

    from geonb.models.checkpoint import Checkpoint
    from geonb.models.runtime import TorchRuntime

    if isinstance(given, str | Path):
        given = Checkpoint.open(given)
    if isinstance(given, Checkpoint):
        given = TorchRuntime.load(given, device=device)
    # a bench has a runtime, and runs what is on in it
    runtime = given if isinstance(given, TorchRuntime) else getattr(given, "runtime", None)
    if isinstance(runtime, TorchRuntime):
        checkpoint = runtime.checkpoint
        return Opened(runtime.model, tokenizer or runtime.tokenizer, checkpoint.source, checkpoint.context_length)
    if not isinstance(given, nn.Module):
        raise InputError(
            f"a {type(given).__name__} was given as a model; allowed are a folder, a hub id, `embedded`, a Checkpoint, a "
            "TorchRuntime or a transformers model."
        )
    if given.training:
        raise InputError("the model is in training mode, and its dropout would be measured: call model.eval() first.")
    config: Any = getattr(given, "config", None)
    context = getattr(config, "max_position_embeddings", None)
    return Opened(given, tokenizer, type(given).__name__, context if isinstance(context, int) else None)
